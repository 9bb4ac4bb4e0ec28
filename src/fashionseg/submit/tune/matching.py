"""Predictions of the validation images beside their truth, on the submission's grid."""

from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from rich.progress import track

from fashionseg.core import rle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import Candidates, Prediction, by_image, candidates, grid
from fashionseg.submit.config import Submission

BATCH = 50  # images that a worker takes at a time


@dataclass(frozen=True)
class Image:
    """Candidates of one validation image; for each the true instance of its class it overlaps most, and their IoU."""

    found: Candidates
    truth: kaggle_metric.Instances
    true: np.ndarray
    iou: np.ndarray


def match(
    document: dict[str, Any],
    predictions: list[Prediction],
    params: Submission,
    workers: int = 1,
    mask_threshold: float | None = None,
) -> list[Image]:
    """Predictions of all images against the truth, on the submission's grid; their masks as `Rule` says."""
    predicted = by_image(predictions, document)
    truth: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in predicted}
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    tasks = [
        joblib.delayed(_matched)(
            predicted[image["id"]], truth[image["id"]], image["height"], image["width"], params, mask_threshold
        )
        for image in document["images"]
    ]
    done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
    return list(track(done, "match", total=len(tasks)))


def _matched(
    predictions: list[Prediction],
    rows: list[dict[str, Any]],
    height: int,
    width: int,
    params: Submission,
    mask_threshold: float | None,
) -> Image:
    found = candidates(predictions, height, width, params, mask_threshold)
    masks = rle.from_coco([row["segmentation"] for row in rows]).resize(*grid(height, width, params.longest_side))
    classes = np.array([row["category_id"] for row in rows], int)
    true = kaggle_metric.Instances(masks, classes, [frozenset(row["attribute_ids"]) for row in rows])
    claims = kaggle_metric.Instances(found.masks, found.classes, [frozenset()] * len(found.classes))
    return Image(found, true, *kaggle_metric.overlaps(claims, true))
