"""The forms of the JSON files that stages read, checked where they are read."""

from dataclasses import dataclass
from itertools import cycle
from math import inf
from pathlib import Path
from typing import Any

from fashionseg.core import files
from fashionseg.core.errors import UserError


@dataclass(frozen=True)
class Nullable:
    """A form, or null."""

    form: Any


NAMED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
LABEL = {"id": int, "name": str, "supercategory?": str}
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
COCO_SOURCE = {  # of any origin: its masks may be polygons, and its reader looks at them
    **LABELS,
    "images": [IMAGE],
    "annotations": [{"id?": int, "image_id": int, "category_id": int, "iscrowd?": int, "attribute_ids?": [int]}],
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


def read(path: str | Path, form: Any = COCO) -> Any:
    """A JSON file of a form; raises UserError where it differs from it, as `files.read_json` does, and where an
    annotation of a COCO document is of an image, a category or an attribute that the document lacks.

    A COCO document's annotations are its instances alone, see `apart`.
    """
    value = files.read_json(path)
    if fault := mismatch(value, form) or (_foreign(value) if form is COCO else ""):
        raise UserError(f"{path}: {fault}; get it again, or run `dvc repro` if that wrote it.")
    return apart(value) if form is COCO else value


def apart(document: dict[str, Any]) -> dict[str, Any]:
    """A COCO document with its crowd regions (iscrowd 1) as `crowds`, apart from `annotations`: they are no instances,
    only COCO's AP asks for them, to pass over predictions within."""
    crowds = [annotation for annotation in document.get("annotations", []) if annotation.get("iscrowd", 0) == 1]
    if not crowds:
        return document
    instances = [annotation for annotation in document["annotations"] if annotation.get("iscrowd", 0) != 1]
    return {**document, "annotations": instances, "crowds": crowds}


def mismatch(value: Any, form: Any) -> str:
    """Where a JSON value first differs from a form and how, '' for nowhere.

    A form is a type (float takes whole numbers, too), {key: form} where 'key?' may be missing, {str: form} for any
    keys, [form] for a list of any length, (form, form, ...) for one of that length, or a Nullable.
    """
    fault = _mismatch(value, form)
    return fault.removeprefix(".") if fault[:1] in ("", ".", "[") else f"it{fault}"


def _mismatch(value: Any, form: Any) -> str:
    if isinstance(form, Nullable):
        return "" if value is None else _mismatch(value, form.form)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return _fault("an object", value)
        for key, of_key in (dict.fromkeys(value, form[str]) if str in form else form).items():
            name = key if str in form else key.removesuffix("?")
            if name not in value:
                if name == key:
                    return f" has no '{name}'"
            elif fault := _mismatch(value[name], of_key):
                return f".{name}{fault}"
    elif isinstance(form, list | tuple):
        if not isinstance(value, list) or (isinstance(form, tuple) and len(value) != len(form)):
            return _fault(f"a list of {len(form)}" if isinstance(form, tuple) else "a list", value)
        for number, (item, of_item) in enumerate(zip(value, cycle(form), strict=False)):
            if fault := _mismatch(item, of_item):
                return f"[{number}]{fault}"
    elif not (type(value) in (int, float) and abs(value) < inf if form is float else type(value) is form):
        return _fault(NAMED[form], value)
    return ""


def _fault(expected: str, value: Any) -> str:
    return f" should be {expected}, not {repr(value)[:60]}"


def _foreign(document: dict[str, Any]) -> str:
    known = {
        name: {row["id"] for row in document.get(kind, [])}
        for name, kind in (("image_id", "images"), ("category_id", "categories"), ("attribute_ids", "attributes"))
    }
    for number, annotation in enumerate(document.get("annotations", [])):
        for name, ids in known.items():
            found = annotation.get(name, [])
            if foreign := set(found if isinstance(found, list) else [found]) - ids:
                return f"annotations[{number}].{name} has {min(foreign)}, which the document lacks"
    return ""
