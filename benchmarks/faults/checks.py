"""Whether a stage made the right thing of a file: '' or what is wrong. Plain loops and other programs say what is right."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ruamel.yaml import YAML

from fashionseg import params as reader

SOUND = Path("sound")  # the outs of the sound files
FAR = 20.0  # levels of 255: two decoders and two ways of resizing differ by less, even on what bit errors make
printed = io.StringIO()  # by `make check`


def load(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def text(path: str | Path) -> str:
    return Path(path).read_bytes().decode("utf-8-sig")


def rows(path: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text(path), newline="")))


def dropped() -> list[dict[str, str]]:
    return rows("results/data/dropped.csv")


# Pictures


def pictures(name: str) -> str:
    """The others as they were; the one decoded as OpenCV does, or left out and counted."""
    own = str(Path(name).relative_to("competition"))
    if other := [
        str(path)
        for path in (SOUND / "data/images").rglob("*.jpg")
        if path.relative_to(SOUND / "data/images") != Path(own).with_suffix(".jpg")
        and path.read_bytes() != Path("data", path.relative_to(SOUND / "data")).read_bytes()
    ]:
        return f"other pictures changed: {other[:3]}"
    for subset in ("train", "val", "test"):
        before, now = (_of_pictures(load(root / f"data/coco/{subset}.json"), own) for root in (SOUND, Path()))
        if before != now:
            return f"other pictures' annotations in {subset} changed"
    made = Path("data/images", own)
    if not made.exists():
        return "" if any(name in row["first"] for row in dropped()) else "left out without a word"
    with quiet_opencv():
        theirs = cv2.imread(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if theirs is None:
        return "taken, but OpenCV cannot decode it"
    ours = cv2.imread(str(made)).astype(float)
    theirs = cv2.resize(theirs, ours.shape[1::-1], interpolation=cv2.INTER_AREA).astype(float)
    far = np.abs(ours - theirs).mean()
    return f"differs from OpenCV's by {far:.1f} levels" if far > FAR else ""


def _of_pictures(document: dict, but: str) -> list:
    """Images and annotations of all pictures but one."""
    names = {image["id"]: image["file_name"] for image in document["images"] if image["file_name"] != but}
    found = [[names[image["id"]], image["height"], image["width"]] for image in document["images"] if image["id"] in names]
    kept = [one for one in document["annotations"] if one["image_id"] in names]
    return sorted(map(repr, found)) + sorted(
        repr((names[one["image_id"]], one["category_id"], one["segmentation"], one["attribute_ids"])) for one in kept
    )


@contextlib.contextmanager
def quiet_opencv():
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    yield
    cv2.utils.logging.setLogLevel(before)


# Rows and labels


def annotations(_: str) -> str:
    """What plain loops find in train.csv and the label file, mask for mask; what is left out is counted."""
    labels = load("data/raw/label_descriptions.json")
    documents = {subset: load(f"data/coco/{subset}.json") for subset in ("train", "val")}
    for kind in ("categories", "attributes"):
        if any(document[kind] != labels.get(kind, []) for document in documents.values()):
            return f"other {kind} than in the label file"
    ids = {kind: {entry["id"] for entry in labels.get(kind, [])} for kind in ("categories", "attributes")}
    expected: dict[tuple, set[int]] = {}
    faulty = again = 0
    for row in rows("data/raw/train.csv"):
        if not any(row.values()):
            continue
        instance = _instance(row, ids)
        if instance is None:
            faulty += 1
        elif instance[:3] in expected:
            again += 1
            expected[instance[:3]] |= instance[3]
        else:
            expected[instance[:3]] = set(instance[3])
    found = {}
    for document in documents.values():
        names = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
        for one in document["annotations"]:
            key = names[one["image_id"]], one["category_id"], digest(coco_mask.decode(one["segmentation"]))
            found[key] = set(one["attribute_ids"])
    if found != expected:
        lost, new = expected.keys() - found.keys(), found.keys() - expected.keys()
        return f"{len(lost)} instances lost, {len(new)} new: {sorted(lost)[:1]} {sorted(new)[:1]}"
    counted = sum(int(row["count"]) for row in dropped())
    return "" if counted == faulty + again else f"{faulty} rows are faulty and {again} repeated, {counted} are counted"


def _instance(row: dict[str, str], ids: dict[str, set[int]]) -> tuple[str, int, str, set[int]] | None:
    """A row's image, class, digest of the mask, attributes; None where one of them cannot be."""
    try:
        with Image.open(Path("competition/train", f"{row['ImageId']}.jpg")) as picture:
            shape = picture.size[::-1]
        class_id, size = float(row["ClassId"]), (float(row["Height"]), float(row["Width"]))
        attributes = {int(number) for number in re.findall(r"\d+", row["AttributesIds"])}
        if re.sub(r"[\s\d,'\"\[\](){}]", "", row["AttributesIds"]) or size != shape or class_id not in ids["categories"]:
            return None
        mask = np.zeros(shape[0] * shape[1], np.uint8)
        numbers = [int(number) for number in row["EncodedPixels"].split()]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            inside = 1 <= start and 0 < length and start - 1 + length <= mask.size
            if not inside or mask[start - 1 : start - 1 + length].any():
                return None
            mask[start - 1 : start - 1 + length] = 1
        if not numbers or not attributes <= ids["attributes"]:
            return None
        return row["ImageId"], int(class_id), digest(mask.reshape(shape[::-1]).T), attributes
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None


def digest(mask: np.ndarray) -> str:
    return hashlib.md5(np.ascontiguousarray(mask).tobytes() + str(mask.shape).encode()).hexdigest()


def sample(name: str) -> str:
    """What is to be submitted has the sample's columns and, in its order, its images."""
    asked, made = rows(name), rows("data/coco/sample_submission.csv")
    order = list(dict.fromkeys(row["ImageId"] for row in asked if any(row.values())))
    if list(asked[0]) != list(made[0]):
        return f"columns {list(made[0])} where {list(asked[0])} are asked for"
    tested = {image["ImageId"] for image in load("data/coco/test.json")["images"]}
    return "" if [row["ImageId"] for row in made] == order and tested == set(order) else "other images or another order"


# params.yaml


def params(name: str) -> str:
    """Each value is what YAML 1.2 says."""
    theirs = YAML(typ="safe", pure=True).load(Path(name).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    ours = vars(reader.load(*reader.SECTIONS))
    for section, value in ours.items():
        for key, one in vars(value).items() if hasattr(value, "__dict__") else [(None, value)]:
            other = theirs[section][key] if key else theirs[section]
            if one != other or isinstance(one, bool) != isinstance(other, bool):
                return f"{section}.{key} is {other!r}, read as {one!r}"
    return ""


# Predictions


def scores(name: str) -> str:
    """AP of masks and boxes as pycocotools finds it; the tuned score is one."""
    metrics = load("metrics/evaluate.json")
    for kind in ("segm", "bbox"):
        theirs = _ap("data/coco/val.json", load(name), kind)
        ours = [metrics[kind][key] for key in ("AP", "AP50", "AP75")]
        if any(abs((a if a is not None else -1) - b) > 1e-4 for a, b in zip(ours, theirs, strict=True)):
            return f"{kind} AP {ours} where pycocotools has {theirs}"
    value = load("metrics/tune.json")["value"]
    return "" if 0 <= value <= 1 else f"a tuned score of {value}"


def _ap(document: str, predictions: list[dict], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = load(document)
        truth.createIndex()
        if not predictions:
            return [0.0] * 3
        keys = ("image_id", "category_id", "score", "segmentation" if kind == "segm" else "bbox")
        found = truth.loadRes([{key: one[key] for key in keys} for one in predictions])
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3].tolist()


def documents(name: str) -> str:
    if name.endswith("train.json"):
        pairs: dict[str, set[int]] = {}
        for one in load(name)["annotations"]:
            pairs.setdefault(str(one["category_id"]), set()).update(one.get("attribute_ids", []))
        made = load("results/postprocessing.json")["attribute_pairs"]
        return "" if {c: sorted(ids) for c, ids in pairs.items() if ids} == made else "other attribute pairs"
    return scores("predictions/val.json")


def submission(name: str) -> str:
    """Every image has its rows, each of a known class, on the grid, without overlap within a class."""
    return wrong_submission(Path("submissions/submission.csv").read_bytes())


def checked(name: str) -> str:
    """`make check` finds fault where plain loops do."""
    ours, theirs = printed.getvalue(), wrong_submission(Path(name).read_bytes())
    valid = ours.strip() == f"{name} is valid"
    return f"found valid, but {theirs}" if valid and theirs else f"found {ours[:200]}" if theirs == "" and not valid else ""


def wrong_submission(data: bytes) -> str:
    """What plain loops find wrong with a submission, '' for nothing."""
    test = load("data/coco/test.json")
    sizes = {Path(image["file_name"]).stem: (image["height"], image["width"]) for image in test["images"]}
    order = list(dict.fromkeys(row["ImageId"] for row in rows("data/coco/sample_submission.csv")))
    known = {kind: {str(entry["id"]) for entry in test[kind]} for kind in ("categories", "attributes")}
    if b"\r" in data or data.startswith(b"\xef\xbb\xbf"):
        return "not plain lines"
    try:
        lines = list(csv.reader(io.StringIO(data.decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        return str(error)
    if not lines or lines[0] != ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]:
        return "the header"
    drawn: dict[tuple[str, str], np.ndarray] = {}
    images = []
    for line in lines[1:]:
        if len(line) != 4 or line[0] not in sizes or line[2] not in known["categories"]:
            return f"the line {str(line)[:80]}"
        images.append(line[0])
        ids = line[3].split(",") if line[3] else []
        if not set(ids) <= known["attributes"] or ids != sorted(set(ids), key=int):
            return f"the attributes {line[3][:80]}"
        height, width = (max(1, side * 1024 // max(sizes[line[0]])) for side in sizes[line[0]])
        mask = drawn.setdefault((line[0], line[2]), np.zeros(height * width, bool))
        if not re.fullmatch(r"[1-9]\d*( [1-9]\d*)*", line[1]):
            return f"the runs {line[1][:80]}"
        numbers, last = list(map(int, line[1].split(" "))), 0
        if len(numbers) % 2:
            return "an odd number of runs"
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            if start <= last or start - 1 + length > mask.size or mask[start - 1 : start - 1 + length].any():
                return f"the run {start} {length}"
            mask[start - 1 : start - 1 + length] = True
            last = start - 1 + length
    if [name for name, _ in itertools.groupby(images)] != order:
        return "images missing or in another order"
    return ""


# The network

network_of: dict[str, Any] = {}  # what `load` gave: network, labels


def network(_: str) -> str:
    """Weights that the file holds, all finite; config and labels as the JSON file has them."""
    loaded, labels = network_of["network"], network_of["labels"]
    description = load("models/mask_rcnn.json")
    if labels.category_ids != [entry["id"] for entry in description["categories"]]:
        return "other categories"
    if labels.attribute_ids != [entry["id"] for entry in description.get("attributes", [])]:
        return "other attributes"
    ours = Counter(digest(np.asarray(variable)) for variable in loaded.weights)
    theirs: Counter = Counter()
    with h5py.File("models/mask_rcnn.weights.h5") as file:
        file.visititems(lambda _, item: theirs.update([digest(item[()])]) if isinstance(item, h5py.Dataset) else None)
    if ours - theirs:
        return f"{sum((ours - theirs).values())} weights are not those of the file"
    if not all(np.isfinite(np.asarray(variable)).all() for variable in loaded.weights):
        return "weights that are no numbers"
    config = {key: value for key, value in vars(loaded.config).items() if key != "backbone"}
    other = {key: value for key, value in description["network"].items() if key in config and value != config[key]}
    return f"other config: {other}" if other else ""


# Checkpoints

restored: dict[str, Any] = {}  # what a checkpoint gave, and should have given


def checkpoint(_: str) -> str:
    """All variables, the state and the history as they were saved."""
    for what, (found, expected) in restored.items():
        if found != expected:
            return f"{what} is not what was saved"
    return ""

