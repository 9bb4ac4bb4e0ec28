"""A sweep of score thresholds over a table of candidates, compared with the metric of the masks at each threshold.

Run as `python benchmarks/tuning.py`. Both must give the same scores; the masks are timed once. All of `tune` at full
size: scale.py.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from fashionseg.coco import masks
from fashionseg.core import rle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import PostProcessing, Thresholds
from fashionseg.submit.tune.candidate_table import CandidateTable
from fashionseg.submit.tune.matched_images import MatchedImage, match_images
from fashionseg.submit.tune.tuner import SCORE_THRESHOLDS, Tuner

IMAGES = 40
CANDIDATES = 60  # an image, as `predict` keeps
TRUE = 7  # instances an image; the competition has 7.3
CLASSES = 46
SIDE = 1024  # of the submission's grid
ATTRIBUTES = 294
PARAMS = Submission(longest_side=SIDE, square=False, min_area=20, overlap="same_class")
METRIC = Tune(formula="jaccard", average="image", f1="set", folds=5, trees=100, leaf=20)
SOLID = masks.pack(np.ones((28, 28)))  # a soft mask; the sweep of scores does not read it
POST = PostProcessing(
    max_per_image=None,
    nms_iou=1.0,
    mask_overlap=1.0,
    min_area=PARAMS.min_area,
    score_thresholds=Thresholds(0.5),
    attribute_thresholds=Thresholds(0.5),
    attribute_pairs={},
    selector=None,
    categories=list(range(CLASSES)),
)


def garment(random: np.random.Generator) -> rle.Runs:
    """A mask with rough edges, 100 to 400 columns wide."""
    width = int(random.integers(100, 400))
    columns = random.integers(0, SIDE - width) + np.arange(width)
    tops, heights = (low + random.integers(0, 25, width) for low in random.integers(50, 450, 2))
    text = " ".join(np.stack([columns * SIDE + tops + 1, heights], axis=1).ravel().astype(str))
    return rle.from_kaggle([text], [SIDE], [SIDE])


def scene(images: int) -> tuple[dict, list[dict]]:
    """A COCO document, and predictions: half are the truth, a little shifted, half are false positives."""
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
            more = {
                "margin": 0.5,
                "agreement": 1.0,
                "mask": SOLID,
                "mask_score": 0.5,
                "stability": 0.5,
                "attribute_scores": [],
            }
            segmentation = mask.to_coco()[0]
            predictions.append({**row, **more, "score": round(score, 6), "segmentation": segmentation, "bbox": box})
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(CLASSES)],
        "attributes": [{"id": i, "name": str(i)} for i in range(ATTRIBUTES)],
    }, predictions


def from_masks(images: list[MatchedImage]) -> list[float]:
    """The metric at each threshold, by matching the masks of all images with the truth again."""
    values = []
    for threshold in SCORE_THRESHOLDS:
        post = replace(POST, score_thresholds=Thresholds(float(threshold)))
        pairs = []
        for image in images:
            kept = post.select(image.candidates, post.gains(image.candidates))
            attributes = post.attribute_sets([image.candidates.predictions[i] for i in kept])
            pairs.append(
                (
                    kaggle_metric.ImageInstances(
                        image.candidates.masks[kept], image.candidates.classes[kept], attributes
                    ),
                    image.truth,
                )
            )
        values.append(kaggle_metric.score(kaggle_metric.count_matches(pairs, METRIC, ATTRIBUTES, 0), METRIC))
    return values


def from_numbers(images: list[MatchedImage]) -> list[float]:
    """The metric at each threshold from the table of candidates."""
    tuner = Tuner(
        params=METRIC,
        submission=PARAMS,
        categories=POST.categories,
        attribute_count=ATTRIBUTES,
        attribute_pairs={},
        filler_class=0,
        seed=0,
        workers=1,
    )
    table = CandidateTable.of(images, [tuner.f1_levels(image, POST) for image in images], 0)
    ranked = table.ranked(np.concatenate([image.candidates.scores for image in images], 0), POST)
    return [ranked.metric_score(ranked.scores - threshold, False, METRIC) for threshold in SCORE_THRESHOLDS]


def match_once(images: list[MatchedImage]) -> None:
    for image in images:
        candidates = image.candidates
        no_attributes = [frozenset()] * len(candidates.classes)
        instances = kaggle_metric.ImageInstances(candidates.masks, candidates.classes, no_attributes)
        kaggle_metric.best_overlaps(instances, image.truth)


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """CPU time, so that other programs on the machine do not count."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main() -> None:
    images = match_images(*scene(IMAGES), PARAMS)
    plain, expected = seconds(lambda: from_masks(images))
    matched, _ = seconds(lambda: match_once(images))
    swept, scores = min((seconds(lambda: from_numbers(images)) for _ in range(5)), key=lambda pair: pair[0])
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    title = f"{len(SCORE_THRESHOLDS)} thresholds, {IMAGES} images of {CANDIDATES} candidates, seconds"
    table = Table("a sweep", title=title)
    for name in ("from masks", "from numbers", "times as fast", "matching, once", "times as fast with it"):
        table.add_column(name, justify="right")
    ratios = plain / swept, plain / (swept + matched)
    table.add_row(
        METRIC.formula, f"{plain:.2f}", f"{swept:.3f}", f"{ratios[0]:.0f}", f"{matched:.2f}", f"{ratios[1]:.1f}"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
