"""A folder in COCO's layout: annotations/instances_train*.json, a file that names the test pictures, pictures below.

Polygons and run lengths become the rows of a competition of run lengths; ids of pictures and categories stay.
"""

from math import inf
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from pycocotools import mask as coco_mask
from rich.progress import track

from fashionseg.convert.source import Source, check_labels
from fashionseg.core import documents, paths, pictures, rle
from fashionseg.core.errors import UserError

TRAIN = ("instances*train*.json",)
TEST = ("image_info*test*.json", "instances*test*.json", "instances*val*.json")  # the first that is there
TRIED = 100  # pictures that tell in which folder they are
LARGEST = 2 * Image.MAX_IMAGE_PIXELS  # what Pillow reads
LONGEST = 255  # bytes of a file's name, on all common file systems


def read(folder: Path) -> Source:
    """Raises UserError where a file is missing or not of COCO's form."""
    train_path, test_path = (_only(folder / paths.ANNOTATIONS, patterns) for patterns in (TRAIN, TEST))
    document = documents.read(train_path, documents.COCO_SOURCE)
    for needed in ("images", "categories", "annotations"):
        if not document[needed]:
            raise UserError(f"{train_path} has no {needed}; there is nothing to train on.")
    check_labels(train_path, document)
    of_test = documents.read(test_path, documents.COCO_IMAGES)
    originals = pictures.originals(folder)
    train, train_numbers = _pictures(document["images"], train_path, originals)
    test, test_numbers = _pictures(of_test["images"], test_path, originals)
    if both := set(train_numbers) & set(test_numbers):
        raise UserError(f"{train_path} and {test_path} both name {min(both)}; a picture is for one of them.")
    sample = pd.DataFrame({"ImageId": [*test], "EncodedPixels": "", "ClassId": str(document["categories"][0]["id"])})
    attributes = document.get("attributes", [])
    notes = [f"{train_path} is split into training and validation; {test_path} names the test pictures"]
    table = _table(document)
    if crowds := table["crowd"].sum():
        notes += [f"{crowds} crowd regions are no instances to train on; COCO's AP passes over predictions in them"]
    encoded = table[["EncodedPixels"]]
    table = table.drop(columns="EncodedPixels").assign(masked=encoded["EncodedPixels"] != "")
    return Source(
        categories=document["categories"],
        attributes=attributes,
        table=table,
        masks=lambda of_part: of_part(encoded),
        place=f"{train_path}: annotation ",
        train=train,
        test=test,
        sample=sample.assign(AttributesIds="") if attributes else sample,
        numbers=train_numbers | test_numbers,
        test_sizes={test[image["file_name"]]: (image["height"], image["width"]) for image in of_test["images"]},
        notes=notes,
    )


def _only(folder: Path, patterns: tuple[str, ...]) -> Path:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise UserError(f"{folder} holds {', '.join(path.name for path in found)}; leave one of them there.")
        if found:
            return found[0]
    raise UserError(f"{folder} holds no {' or '.join(patterns)}.")


def _pictures(images: list[dict[str, Any]], path: Path, originals: Path) -> tuple[dict[str, Path], dict[Path, int]]:
    """file_name -> path, sorted, and path -> id. They lie in `originals`, in images/, or in a folder named as the end
    of the annotation file, such as train2017."""
    if not images:
        raise UserError(f"{path} has no images; name there what is to be answered.")
    for image in images:
        image["file_name"] = Path(image["file_name"]).as_posix()  # ./a.jpg is a.jpg
    names = [image["file_name"] for image in images]
    if foreign := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise UserError(f"{path}: the file_name {foreign[0]} leads out of the folder; expected is a name below it.")
    if broken := [name for name in names if {"\r", "\n"} & set(name)]:
        raise UserError(f"{path}: the file_name {broken[0]!r} has a line break; a submission may not: rename it.")
    longest = max("/".join(names).encode(errors="replace").split(b"/"), key=len)
    if len(longest) > LONGEST:
        start = longest[:60].decode(errors="ignore")
        raise UserError(f"{path}: the file_name {start}... is longer than a file's name can be; shorten it.")
    for what in ("id", "file_name"):
        values = pd.Series([image[what] for image in images])
        if values.duplicated().any():
            raise UserError(f"{path} has two images of the {what} {values[values.duplicated()].iloc[0]}.")
    subset = path.stem.rpartition("_")[2]
    folders = [originals / part for part in ("", "images", subset, f"images/{subset}")]
    base = max(folders, key=lambda folder: sum((folder / name).is_file() for name in names[:TRIED]))
    if not any((base / name).is_file() for name in names[:TRIED]):
        raise UserError(f"{names[0]} of {path} is in none of {', '.join(map(str, folders))}; put the pictures there.")
    return {name: base / name for name in sorted(names)}, {base / image["file_name"]: image["id"] for image in images}


def _table(document: dict[str, Any]) -> pd.DataFrame:
    """One row an annotation, as `Source.table`, with EncodedPixels in place of `masked`."""
    images = {image["id"]: image for image in document["images"]}
    rows = []
    for number, annotation in enumerate(track(document["annotations"], "reading masks"), 1):
        image = images.get(annotation["image_id"], {"file_name": "", "height": 0, "width": 0})
        height, width = image["height"], image["width"]
        encoded, fault = _encoded(annotation.get("segmentation"), height, width) if image["file_name"] else ("", "")
        rows.append(
            {
                "ImageId": image["file_name"],
                "EncodedPixels": encoded,
                "Height": str(height),
                "Width": str(width),
                "ClassId": str(annotation["category_id"]),
                "AttributesIds": ",".join(map(str, annotation.get("attribute_ids", []))),
                "row": annotation.get("id", number),
                "crowd": annotation.get("iscrowd", 0) == 1,
                "fault": fault,
            }
        )
    return pd.DataFrame(rows)


def _encoded(segmentation: Any, height: int, width: int) -> tuple[str, str]:
    """EncodedPixels of polygons or run lengths and '', or '' and what is wrong with them."""
    if min(height, width) < 1 or height * width > LARGEST:  # which would end pycocotools, and this process with it
        return "", "height and width of the image are those of no picture"
    try:
        if isinstance(segmentation, list):
            if fault := _polygon_fault(segmentation, height, width):
                return "", fault
            runs = rle.from_coco([coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))])
        else:
            if list(segmentation["size"]) != [height, width]:
                return "", "segmentation is of another size than its image"
            runs = rle.from_coco([segmentation])
    except (rle.RunError, KeyError, TypeError, ValueError, IndexError):
        return "", "segmentation is no mask"
    return (runs.to_kaggle()[0], "") if runs.areas()[0] else ("", "segmentation is empty")


def _polygon_fault(polygons: list[Any], height: int, width: int) -> str:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "segmentation has a polygon that is no list of three points or more"
        if not all(type(value) in (int, float) and abs(value) < inf for value in polygon):
            return "segmentation has a polygon with a point that is no number"
        if min(polygon) < -max(height, width) or max(polygon) > 2 * max(height, width):
            return "segmentation has a polygon that leaves the picture by more than its size"
    return "" if polygons else "segmentation is empty"
