"""Whether stages made the right thing of a damaged file: '' or what is wrong. Other programs and plain loops tell."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ruamel.yaml import YAML

from fashionseg import params as reader

FAR = 20.0  # levels of 255: two decoders and two ways of resizing differ by less, even on what bit errors make
printed = io.StringIO()  # by `make check`


def load(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def rows(path: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(path).read_bytes().decode("utf-8-sig"), newline="")))


def dropped(root: Path = Path()) -> list[dict[str, str]]:
    return rows(root / "results/data/dropped.csv")


def digests(arrays) -> list[str]:
    return [hashlib.md5(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]


def pictures(name: str) -> str:
    """The others as they were; this one decoded as OpenCV does, or left out and counted."""
    own = Path(name).relative_to("competition").with_suffix(".jpg")
    if _of_others(Path(), own) != _of_others(Path("sound"), own):
        return "other pictures or their annotations changed"
    made = Path("data/images", own)
    if not made.exists():
        return "" if any(name in row["first"] for row in dropped()) else "left out without a word"
    theirs = cv2.imread(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if theirs is None:
        return "taken, but OpenCV cannot decode it"
    ours = cv2.imread(str(made)).astype(float)
    far = np.abs(ours - cv2.resize(theirs, ours.shape[1::-1], interpolation=cv2.INTER_AREA)).mean()
    return f"differs from OpenCV's by {far:.1f} levels" if far > FAR else ""


def _of_others(root: Path, but: Path) -> tuple[dict, list[str]]:
    """Pictures and annotations of all but one, on either side of the split, which all pictures decide."""
    images, found = root / "data/images", []
    for document in map(load, (root / "data/coco").glob("*.json")):
        names = {image["id"]: image["file_name"] for image in document["images"]}
        for one in document.get("annotations", []):
            keys = ("category_id", "segmentation", "attribute_ids")
            found.append(repr([names[one["image_id"]], *map(one.get, keys)]))
    contents = {path.relative_to(images): path.read_bytes() for path in images.rglob("*.jpg")}
    contents.pop(but, None)
    return contents, sorted(one for one in found if str(but) not in one)


def annotations(_: str) -> str:
    """What plain loops find in train.csv and the label file, mask for mask; the rows left out are counted."""
    labels = load("data/raw/label_descriptions.json")
    ids = {kind: {entry["id"] for entry in labels.get(kind, [])} for kind in ("categories", "attributes")}
    read = [row for row in rows("data/raw/train.csv") if any(row.values())]
    expected, found, count = {}, {}, 0
    for row in read:
        if instance := _instance(row, ids):
            expected.setdefault(instance[:3], set()).update(instance[3])
    for document in (load(f"data/coco/{subset}.json") for subset in ("train", "val")):
        if any(document[kind] != labels.get(kind, []) for kind in ids):
            return "other labels than in the label file"
        names = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
        count += len(document["annotations"])
        for one in document["annotations"]:
            mask = coco_mask.decode(one["segmentation"])
            found[names[one["image_id"]], one["category_id"], *digests([mask])] = set(one["attribute_ids"])
    if found != expected:
        lost, new = expected.keys() - found.keys(), found.keys() - expected.keys()
        return f"{len(lost)} instances lost, {len(new)} new: {sorted(lost)[:1]} {sorted(new)[:1]}"
    counted = sum(int(row["count"]) for row in dropped())
    return "" if count + counted == len(read) else f"of {len(read)} rows {count} are taken and {counted} are counted"


def _instance(row: dict[str, str], ids: dict[str, set[int]]) -> tuple[str, int, str, set[int]] | None:
    """A row's image, class, digest of the mask, attributes; None where one of them cannot be."""
    try:
        with Image.open(Path("competition/train", f"{row['ImageId']}.jpg")) as picture:
            shape = picture.size[::-1]
        class_id, size = float(row["ClassId"]), (float(row["Height"]), float(row["Width"]))
        attributes = {int(number) for number in re.findall(r"\d+", row["AttributesIds"])}
        odd = re.sub(r"[\s\d,'\"\[\](){}]", "", row["AttributesIds"])
        mask, numbers = (
            np.zeros(shape[0] * shape[1], np.uint8),
            [int(number) for number in row["EncodedPixels"].split()],
        )
        known = class_id in ids["categories"] and attributes <= ids["attributes"]
        if odd or size != shape or not known or not _drawn(numbers, mask):
            return None
        return row["ImageId"], int(class_id), *digests([mask.reshape(shape[::-1]).T]), attributes
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None


def _drawn(numbers: list[int], mask: np.ndarray) -> bool:
    """Draws runs into a flat mask; False where they are none, do not ascend, leave it or meet what is drawn already."""
    last = 0
    for start, length in zip(numbers[::2], numbers[1::2], strict=False):
        end = start - 1 + length
        if start <= last or length < 1 or end > mask.size or mask[start - 1 : end].any():
            return False
        mask[start - 1 : end] = 1
        last = end
    return bool(numbers) and len(numbers) % 2 == 0


def params(name: str) -> str:
    """Each value is what YAML 1.2 says."""
    theirs = YAML(typ="safe", pure=True).load(Path(name).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    for section, value in vars(reader.load(*reader.SECTIONS)).items():
        for key, one in vars(value).items() if hasattr(value, "__dict__") else [(None, value)]:
            other = theirs[section][key] if key else theirs[section]
            if one != other or isinstance(one, bool) != isinstance(other, bool):
                return f"{section}.{key} is {other!r}, read as {one!r}"
    return ""


def predictions(name: str) -> str:
    """Of val AP of masks and boxes as pycocotools finds it; of test a submission that plain loops find valid."""
    if name.endswith("test.json"):
        return wrong_submission(Path("submissions/submission.csv").read_bytes())
    for kind, column in (("segm", "segmentation"), ("bbox", "bbox")):
        found = [{key: one[key] for key in ("image_id", "category_id", "score", column)} for one in load(name)]
        ours, theirs = load("metrics/evaluate.json")[kind]["AP"], 0.0
        if found:
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO("data/coco/val.json")
                evaluation = COCOeval(truth, truth.loadRes(found), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            theirs = float(evaluation.stats[0])
        if abs(ours - theirs) > 1e-4:
            return f"{kind} AP {ours} where pycocotools has {theirs}"
    return ""


def submission(name: str) -> str:
    """`make check` finds fault exactly where plain loops do."""
    valid, theirs = printed.getvalue().strip() == f"{name} is valid", wrong_submission(Path(name).read_bytes())
    return f"valid: {valid}, but plain loops find {theirs or 'nothing'}" if valid == bool(theirs) else ""


def wrong_submission(data: bytes) -> str:
    """What plain loops find wrong with a submission, '' for nothing."""
    test = load("data/coco/test.json")
    sizes = {Path(image["file_name"]).stem: (image["height"], image["width"]) for image in test["images"]}
    known = {kind: {str(entry["id"]) for entry in test[kind]} for kind in ("categories", "attributes")}
    try:
        header, *lines = csv.reader(io.StringIO(data.decode(), newline=""))
    except (ValueError, csv.Error) as error:
        return str(error)
    if b"\r" in data or header != ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]:
        return "the header, or no plain lines"
    masks: dict[tuple[str, str], np.ndarray] = {}
    for line in lines:
        if len(line) != 4 or line[0] not in sizes or line[2] not in known["categories"]:
            return f"the line {str(line)[:80]}"
        ids = line[3].split(",") if line[3] else []
        if not set(ids) <= known["attributes"] or ids != sorted(set(ids), key=int):
            return f"the attributes {line[3][:80]}"
        height, width = (max(1, side * 1024 // max(sizes[line[0]])) for side in sizes[line[0]])
        mask = masks.setdefault((line[0], line[2]), np.zeros(height * width, bool))
        plain = re.fullmatch(r"[1-9]\d*( +[1-9]\d*)*", line[1])
        if not plain or not _drawn(list(map(int, line[1].split())), mask):
            return f"the runs {line[1][:80]}"
    order = list(dict.fromkeys(row["ImageId"] for row in rows("data/coco/sample_submission.csv")))
    found = [name for name, _ in itertools.groupby(line[0] for line in lines)]
    return "" if found == order else "images or their order"
