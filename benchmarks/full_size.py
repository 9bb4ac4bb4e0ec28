"""A competition of the true schema at any share of the true size, and predictions on it, drawn for benchmarks.

As in iMaterialist (Fashion) 2020: pictures, rows, instances a picture, instances a class, rows without attributes.
Sizes and run counts follow its 74 rows that are at hand: 1.4 runs a pixel of the root of the area in the median.
"""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from fashionseg.core import pictures, rle

IMAGES, TEST_IMAGES, ROWS, MOST = 45_623, 3_200, 333_401, 74  # MOST: instances of a picture
# Of each class, 0 to 45.
# fmt: off
INSTANCES = np.array([
    6161, 16548, 1494, 1107, 7833, 719, 12414, 2756, 5046, 3124, 18739, 922, 152, 4855, 2518, 3470,
    1457, 1385, 3389, 6851, 112, 4326, 2582, 46374, 7217, 1374, 135, 1226, 10159, 5972, 874, 59448,
    27179, 34258, 3300, 7991, 3529, 5084, 528, 1367, 588, 274, 4893, 2407, 929, 335,
])
# fmt: on
ATTRIBUTES = np.array([number for number in range(341) if not 235 <= number <= 280 and number != 284])
WITH_ATTRIBUTES = [*range(13), 28, 29, 31, 32, 33]  # classes
PREDICTIONS, MASK_SIDE = 60, 28  # predictions of a picture; side of a soft mask
LEAST_SCORE = 0.05  # predict.score
CHUNK = 2000  # rows that are drawn at once
FIELDS = ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]

Detections = dict[str, np.ndarray]


def draw(folder: Path, share: float, photographs: bool = False) -> None:
    """A competition's folder. Pictures are headers of the true size without pixels, or `photographs` that can be
    decoded, of some 0.1 byte a pixel as the competition's."""
    random = np.random.default_rng(0)
    images, tests = (max(10, round(share * count)) for count in (IMAGES, TEST_IMAGES))
    names = [random.bytes(16).hex() for _ in range(images + tests)]
    sizes = _sizes(images + tests, random)
    for part, chosen in (("train", slice(images)), ("test", slice(images, None))):
        (folder / part).mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            paths = [folder / part / f"{name}.jpg" for name in names[chosen]]
            list(track(pool.map(_photograph if photographs else _header, paths, sizes[chosen]), part, len(paths)))
    (folder / "label_descriptions.json").write_text(json.dumps(labels()))
    with (folder / "sample_submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *([name, "1 1", 23, ""] for name in names[images:])])
    rows = max(images, round(share * ROWS))
    owners = np.repeat(np.arange(images), _instances_of(images, rows, random))
    classes = random.choice(len(INSTANCES), len(owners), p=INSTANCES / INSTANCES.sum())
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FIELDS[:2], "Height", "Width", *FIELDS[2:]])
        for start in track(range(0, len(owners), CHUNK), "train.csv"):
            of_chunk = owners[start : start + CHUNK].tolist()
            masks = garments(sizes[of_chunk], random).to_kaggle()
            for image, encoded, class_id in zip(of_chunk, masks, classes[start : start + CHUNK].tolist(), strict=True):
                ids = ",".join(map(str, _attributes(class_id, random)))
                writer.writerow([names[image], encoded, *sizes[image].tolist(), class_id, ids])


def labels() -> dict[str, list[dict]]:
    """label_descriptions.json: 46 categories and 294 attributes, ids with gaps."""
    groups = {"categories": range(len(INSTANCES)), "attributes": ATTRIBUTES.tolist()}
    return {
        kind: [
            {"id": number, "name": f"{kind} {number}, drawn", "supercategory": f"group {number % 9}", "level": 1}
            for number in numbers
        ]
        for kind, numbers in groups.items()
    }


def garments(sizes: np.ndarray, random: np.random.Generator) -> rle.Runs:
    """A mask of rough edges for each of (N, 2) heights and widths; some columns have a hole and so two runs."""
    heights, widths = sizes.T
    areas = heights * widths * np.minimum(random.lognormal(np.log(0.025), 1.9, len(sizes)), 0.6)
    columns = np.clip(np.sqrt(areas * random.lognormal(0.8, 0.6, len(sizes))), 2, widths * 0.95).astype(int)
    tall = np.clip(areas / columns * 1.27, 4, heights * 0.9)  # an ellipse fills 1 / 1.27 of its box
    left, top = (random.random((2, len(sizes))) * (widths - columns, heights - tall)).astype(int)
    holes = random.random(len(sizes)) ** 6

    mask = np.repeat(np.arange(len(sizes)), columns)
    place = np.arange(len(mask)) - np.repeat(np.cumsum(columns) - columns, columns)
    reach = np.sqrt(1 - (2 * (place + 0.5) / columns[mask] - 1) ** 2) * tall[mask] / 2
    noise = random.random((2, len(mask))) * np.minimum(heights / 1500, tall / 8)[mask]
    middle = top[mask] + tall[mask] / 2
    first = np.clip(middle - reach + noise[0], 1, heights[mask] - 2).astype(int)
    last = np.clip(middle + reach - noise[1], first + 1, heights[mask] - 1).astype(int)
    holed = (place < (holes * columns)[mask]) & (last - first > 8)
    hole = first + (last - first) * 2 // 5  # where it begins
    tops, ends = (
        np.stack([first, hole + 2 + (noise[1] * 2).astype(int) % 3]),
        np.stack([np.where(holed, hole, last), last]),
    )
    there = np.stack([np.ones_like(holed), holed]).T.ravel()
    starts = ((left[mask] + place) * heights[mask] + tops).T.ravel()[there]
    lengths = (ends - tops).T.ravel()[there]
    counts = np.bincount(mask, 1 + holed, len(sizes)).astype(int)
    return rle.Runs(starts, lengths, np.concatenate([[0], np.cumsum(counts)]), heights, widths)


def detections(document: dict, count: int) -> Iterator[Detections]:
    """What a network finds on the first `count` pictures of a COCO document, as `inference.coco_results` takes it.

    PREDICTIONS a picture: the first of each true instance is near to it, the others are shifted, of lower scores and
    often of another class. Beyond the last picture the first comes again.
    """
    random = np.random.default_rng(1)
    truth: dict[int, list[dict]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    of_images = list(truth.values())
    for number in range(count):
        yield _detected(of_images[number % len(of_images)], random)


def _detected(annotations: list[dict], random: np.random.Generator) -> Detections:
    runs = rle.from_coco([annotation["segmentation"] for annotation in annotations])
    size = np.tile([runs.widths[0], runs.heights[0]], 2)
    true_boxes = np.array([annotation["bbox"] for annotation in annotations], float)
    small = runs.resize(*pictures.fit(int(runs.heights[0]), int(runs.widths[0]), 320))
    soft = [
        cv2.resize(small.crop(i, y, x, max(h, 1), max(w, 1)).decode(0), (MASK_SIDE,) * 2, interpolation=cv2.INTER_AREA)
        for i, (x, y, w, h) in enumerate(small.boxes().tolist())
    ]
    times, true = np.divmod(np.arange(PREDICTIONS), len(annotations))
    right = times == 0
    shift = random.normal(0, np.where(right, 0.03, 0.25)[:, None], (PREDICTIONS, 4)) * np.tile(true_boxes[true, 2:], 2)
    corners = np.concatenate([true_boxes[:, :2], true_boxes[:, :2] + true_boxes[:, 2:]], 1)[true] + shift
    corners = np.sort(np.clip(corners, 0, size).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    scores = np.where(right, random.beta(5, 2, PREDICTIONS), random.beta(1, 5, PREDICTIONS))
    classes = np.array([annotation["category_id"] for annotation in annotations])[true] + 1
    other = random.random(PREDICTIONS) > np.where(right, 0.85, 0.4)
    classes[other] = 1 + random.choice(len(INSTANCES), other.sum(), p=INSTANCES / INSTANCES.sum())
    attributes = 0.6 * random.random((PREDICTIONS, len(ATTRIBUTES))) ** 60
    for row, place in enumerate(true):
        known = np.searchsorted(ATTRIBUTES, annotations[place]["attribute_ids"])
        attributes[row, known] = random.beta(4, 2, len(known))
    order = np.argsort(-scores, kind="stable")
    found = {
        "boxes": corners / size,
        "scores": np.maximum(scores, LEAST_SCORE),
        "margins": scores / 2,
        "agreement": np.ones(PREDICTIONS),
        "classes": classes,
        "masks": np.clip(np.stack(soft)[true] + random.normal(0, 0.1, (PREDICTIONS, *(MASK_SIDE,) * 2)), 0, 1),
        "attributes": attributes,
    }
    return {name: values[order] for name, values in found.items()}


def _sizes(count: int, random: np.random.Generator) -> np.ndarray:
    """(count, 2) heights and widths: 2,236 x 1,762 on average, most of them upright, at most 6,000 pixels."""
    long = np.clip(random.lognormal(np.log(2000), 0.55, count), 400, 6000)
    short = long * random.uniform(0.62, 0.82, count)
    upright = random.random(count) < 0.85
    return np.stack([np.where(upright, long, short), np.where(upright, short, long)], axis=1).astype(int)


def _instances_of(images: int, rows: int, random: np.random.Generator) -> np.ndarray:
    """(images,) instances of each picture, one at least: many have few, the first has MOST."""
    weights = random.gamma(1.5, size=images - 1)
    most = min(MOST, rows - images + 1)
    return np.array([most, *(1 + random.multinomial(rows - images + 1 - most, weights / weights.sum()))])


def _attributes(class_id: int, random: np.random.Generator) -> list[int]:
    """3.7 ids on average and 14 at most, a few of which are frequent; none where the class has none."""
    if class_id not in WITH_ATTRIBUTES:
        return []
    places = random.random(min(14, 1 + random.poisson(2.9))) ** 2 * len(ATTRIBUTES)
    return sorted(set(ATTRIBUTES[places.astype(int)].tolist()))


def _header(path: Path, size: np.ndarray) -> None:
    """A JPEG whose header tells this height and width; its pixels are missing."""
    content = bytearray(cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1])
    frame = content.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, then height and width
    content[frame : frame + 4] = size.astype(">u2").tobytes()
    path.write_bytes(content)


def _photograph(path: Path, size: np.ndarray) -> None:
    random = np.random.default_rng(list(path.stem.encode()))
    coarse, fine = (
        cv2.resize(random.integers(0, high, (n, n, 3), np.uint8), size[::-1].tolist(), interpolation=cv2.INTER_CUBIC)
        for n, high in ((9, 200), (160, 56))
    )
    cv2.imwrite(str(path), coarse + fine, [cv2.IMWRITE_JPEG_QUALITY, 90])
