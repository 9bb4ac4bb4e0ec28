"""A sweep of thresholds over matched whole numbers against the metric taken anew from the masks for each threshold.

python benchmarks/tuning.py                     both ways must give the same values; the masks in one round
python benchmarks/tuning.py --whole 1000 5700   seconds and memory of all of `tune` for so many images
"""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from fashionseg.core import rle
from fashionseg.predict import masks
from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import Rule, Thresholds
from fashionseg.submit.tune.crossfit import tune
from fashionseg.submit.tune.matching import Image, match
from fashionseg.submit.tune.pool import Stock
from fashionseg.submit.tune.tuner import FLOORS, Tuner

IMAGES = 40
CANDIDATES = 60  # an image, as `predict` keeps
TRUE = 7  # instances an image; the competition has 7.3
CLASSES = 46
SIDE = 1024  # of the submission's grid
ATTRIBUTES = 294
PARAMS = Submission(longest_side=SIDE, min_area=20, overlap="same_class")
METRIC = Tune(formula="jaccard", average="image", f1="set", folds=5, trees=100, leaf=20)
SOLID = masks.pack(np.ones((28, 28)))  # all that the sweep of scores needs of them
RULE = Rule(None, 1.0, 1.0, PARAMS.min_area, Thresholds(0.5), Thresholds(0.5), None, list(range(CLASSES)))


def garment(random: np.random.Generator) -> rle.Runs:
    """A mask with rough edges, 100 to 400 columns wide."""
    width = int(random.integers(100, 400))
    columns = random.integers(0, SIDE - width) + np.arange(width)
    tops, heights = (low + random.integers(0, 25, width) for low in random.integers(50, 450, 2))
    text = " ".join(np.stack([columns * SIDE + tops + 1, heights], axis=1).ravel().astype(str))
    return rle.from_kaggle([text], [SIDE], [SIDE])


def scene(images: int) -> tuple[dict, list[dict]]:
    """A COCO document, and predictions: a half are the truth a little shifted, the others are nothing."""
    random = np.random.default_rng(0)
    annotations, predictions = [], []
    for image_id in range(images):
        masks = [garment(random) for _ in range(TRUE)]
        classes = random.integers(0, CLASSES, TRUE)
        rows = [
            {"image_id": image_id, "category_id": int(number), "segmentation": mask.to_coco()[0], "attribute_ids": []}
            for number, mask in zip(classes, masks, strict=True)
        ]
        annotations += rows
        for place in range(CANDIDATES):
            right = place % 2 == 0
            base = rows[place // 2 % TRUE]
            shifted = masks[place // 2 % TRUE].decode(0)
            mask = rle.encode(np.roll(shifted, random.integers(0, 30, 2), (0, 1))) if right else garment(random)
            score = random.beta(4, 2) if right else random.beta(2, 4)
            row = base if right else {**base, "category_id": int(random.integers(0, CLASSES))}
            box = mask.boxes()[0].tolist()
            known = {
                "margin": 0.5,
                "agreement": 1.0,
                "mask": SOLID,
                "mask_score": 0.5,
                "stability": 0.5,
                "attribute_scores": [],
            }
            segmentation = mask.to_coco()[0]
            predictions.append({**row, **known, "score": round(score, 6), "segmentation": segmentation, "bbox": box})
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(CLASSES)],
        "attributes": [{"id": i, "name": str(i)} for i in range(ATTRIBUTES)],
    }, predictions


def from_masks(images: list[Image]) -> list[float]:
    """For each threshold the claims of all images, laid beside the truth again."""
    values = []
    for floor in FLOORS:
        rule = replace(RULE, scores=Thresholds(float(floor)))
        pairs = []
        for image in images:
            kept = rule.chosen(image.found, rule.worth(image.found))
            attributes = rule.attribute_sets([image.found.predictions[i] for i in kept])
            pairs.append(
                (kaggle_metric.Instances(image.found.masks[kept], image.found.classes[kept], attributes), image.truth)
            )
        values.append(kaggle_metric.value(kaggle_metric.tally(pairs, METRIC, ATTRIBUTES), METRIC))
    return values


def from_numbers(images: list[Image]) -> list[float]:
    """Images matched before know how many thresholds each candidate exceeds."""
    tuner = Tuner(METRIC, PARAMS, RULE.categories, ATTRIBUTES, seed=0, workers=1)
    stock = Stock.of(images, [tuner.agreed(image, RULE) for image in images])
    pool = stock.pool(np.concatenate([image.found.scores for image in images]), RULE)
    return [pool.value(pool.worth - floor, False, METRIC) for floor in FLOORS]


def match_once(images: list[Image]) -> None:
    for image in images:
        nothing = [frozenset()] * len(image.found.classes)
        kaggle_metric.overlaps(kaggle_metric.Instances(image.found.masks, image.found.classes, nothing), image.truth)


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """Of the processor: other programs on the machine do not count."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main() -> None:
    images = match(*scene(IMAGES), PARAMS)
    plain, expected = seconds(lambda: from_masks(images))
    matched, _ = seconds(lambda: match_once(images))
    swept, found = min((seconds(lambda: from_numbers(images)) for _ in range(5)), key=lambda pair: pair[0])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    title = f"{len(FLOORS)} thresholds, {IMAGES} images of {CANDIDATES} candidates, seconds"
    table = Table("a sweep", title=title)
    for name in ("from masks", "from numbers", "times as fast", "matching, once", "times as fast with it"):
        table.add_column(name, justify="right")
    ratios = plain / swept, plain / (swept + matched)
    table.add_row(
        METRIC.formula, f"{plain:.2f}", f"{swept:.3f}", f"{ratios[0]:.0f}", f"{matched:.2f}", f"{ratios[1]:.1f}"
    )
    Console().print(table)


def repeated(images: int) -> tuple[dict, list[dict]]:
    """Masks of IMAGES images again and again, as so many take long to draw, each time with new scores."""
    random = np.random.default_rng(1)
    document, predictions = scene(IMAGES)
    of_image: dict[int, list[list[dict]]] = {i: [[], []] for i in range(IMAGES)}
    for kind, rows in enumerate((document["annotations"], predictions)):
        for row in rows:
            of_image[row["image_id"]][kind].append(row)
    chosen = [of_image[i % IMAGES] for i in range(images)]
    document |= {
        "images": [{**document["images"][i % IMAGES], "id": i} for i in range(images)],
        "annotations": [{**row, "image_id": i} for i, (rows, _) in enumerate(chosen) for row in rows],
    }
    return document, [
        {**row, "image_id": i, "score": round(row["score"] * random.uniform(0.7, 1), 6)}
        for i, (_, rows) in enumerate(chosen)
        for row in rows
    ]


def whole(images: int) -> None:
    document, predictions = repeated(images)
    began = time.perf_counter(), time.process_time()
    tune(document, predictions, METRIC, PARAMS, seed=0, workers=2)
    wall, own = time.perf_counter() - began[0], time.process_time() - began[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{images} images, {len(predictions)} predictions: {wall:.0f} s, {own:.0f} s of the processor and what two "
        f"workers took, at most {peak:.1f} GB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--whole"]:
        for count in sys.argv[2:]:
            whole(int(count))
    else:
        main()
