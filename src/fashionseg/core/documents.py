"""COCO documents and results as JSON: their schemas, checked on reading, and what all readers ask of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashionseg.core import files, rle
from fashionseg.core.errors import UserError
from fashionseg.core.schema import FLAG, Nullable, mismatch

LABEL = {"id": int, "name": str, "supercategory?": Nullable(str)}
LABELS = {"categories": [LABEL], "attributes?": [LABEL]}
RUNS = {"size": (int, int), "counts": str}
BOX = (float,) * 4
IMAGE = {"id": int, "file_name": str, "height": int, "width": int}
ANNOTATION = {
    "image_id": int,
    "category_id": int,
    "segmentation": RUNS,
    "area": float,
    "bbox": BOX,
    "attribute_ids?": [int],
}
COCO = {**LABELS, "images": [IMAGE], "annotations?": [ANNOTATION]}
COCO_IMAGES = {"images": [IMAGE]}
COCO_SOURCE = {  # COCO from elsewhere: masks may be polygons and are checked where they are converted
    **LABELS,
    "images": [IMAGE],
    "annotations": [{"id?": int, "image_id": int, "category_id": int, "iscrowd?": FLAG, "attribute_ids?": [int]}],
}
PREDICTIONS = [
    {
        "image_id": int,
        "category_id": int,
        "score": float,
        "segmentation": RUNS,
        "bbox": BOX,
        **dict.fromkeys(("margin?", "agreement?", "mask_score?", "stability?"), float),
        "mask?": str,
        "attribute_ids?": [int],
        "attribute_scores?": [float],
    }
]


def read(path: str | Path, schema: Any = COCO) -> Any:
    """Reads a JSON file and checks it against a schema. Raises UserError where it differs, as `files.read_json`, and
    where an annotation of a COCO document has an image, category or attribute id that the document lacks, or no mask.

    A COCO document is returned with its crowd regions separated, see `apart`.
    """
    value = files.read_json(path)
    if fault := mismatch(value, schema) or (schema is COCO and foreign_or_no_mask(value)):
        raise UserError(f"{path}: {fault}; get it again, or run `dvc repro` if that wrote it.")
    return apart(value) if schema is COCO else value


def apart(document: dict[str, Any]) -> dict[str, Any]:
    """A COCO document with its crowd regions (iscrowd 1) moved from `annotations` to `crowds`: they are not instances
    and only used by COCO's AP, which ignores predictions within them."""
    crowds = [annotation for annotation in document.get("annotations", []) if annotation.get("iscrowd", 0) == 1]
    if not crowds:
        return document
    instances = [annotation for annotation in document["annotations"] if annotation.get("iscrowd", 0) != 1]
    return {**document, "annotations": instances, "crowds": crowds}


def short(names: Sequence[str]) -> list[str]:
    """Names to show: up to the first comma, as "shirt" of "shirt, blouse", or whole where others begin alike; numbered
    where even these are the same."""
    starts = [name.partition(",")[0] for name in names]
    counts, used = Counter(starts), Counter()
    shown = [start if counts[start] == 1 else name for start, name in zip(starts, names, strict=True)]
    for place, name in enumerate(shown):
        used[name] += 1
        shown[place] = name if used[name] == 1 else f"{name} ({used[name]})"
    return shown


def names_of(document: dict[str, Any]) -> dict[int, str]:
    """Id -> name to show of each category of a document, in its order."""
    categories = document["categories"]
    names = short([category["name"] for category in categories])
    return {category["id"]: name for category, name in zip(categories, names, strict=True)}


def places_of(document: dict[str, Any]) -> dict[int, int]:
    """Id -> place of each category of a document: the index of its name and of its colour."""
    return {category["id"]: place for place, category in enumerate(document["categories"])}


def by_image(rows: Sequence[dict[str, Any]], document: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Annotations or results of each image of a document by its id, in their order; [] where it has none."""
    groups: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for row in rows:
        groups[row["image_id"]].append(row)
    return groups


def ids_of(document: dict[str, Any]) -> dict[str, set[int]]:
    """The ids that image_id, category_id and attribute_ids may have."""
    kinds = {"image_id": "images", "category_id": "categories", "attribute_ids": "attributes"}
    return {name: {row["id"] for row in document.get(kind, [])} for name, kind in kinds.items()}


def foreign(row: dict[str, Any], known: dict[str, set[int]]) -> tuple[str, int] | None:
    """Key and id of an annotation or result that is not among `ids_of`, if any."""
    for name, ids in known.items():
        used = row.get(name, [])
        if others := set(used if isinstance(used, list) else [used]) - ids:
            return name, min(others)
    return None


def foreign_or_no_mask(document: dict[str, Any]) -> str:
    """The first annotation with an id that the document lacks, or without a mask of its image; '' for none."""
    return _foreign(document) or _no_mask(document)


def _foreign(document: dict[str, Any]) -> str:
    known = ids_of(document)
    for number, annotation in enumerate(document.get("annotations", [])):
        if found := foreign(annotation, known):
            return f"annotations[{number}].{found[0]} has {found[1]}, which the document lacks"
    return ""


def _no_mask(document: dict[str, Any]) -> str:
    """The first segmentation that is no mask of its image."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in document["images"]}
    masks = [annotation["segmentation"] for annotation in document.get("annotations", [])]
    for number, (annotation, mask) in enumerate(zip(document.get("annotations", []), masks, strict=True)):
        if mask["size"] != (size := sizes[annotation["image_id"]]):
            return f"annotations[{number}].segmentation.size is {mask['size']}, that of its image is {size}"
    try:
        rle.check_coco(masks)
    except rle.RunError as error:
        return f"annotations[{error.row}].segmentation is no mask: {error.reason}"
    return ""
