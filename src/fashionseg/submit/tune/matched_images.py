"""Candidates of the validation images matched with their truth, on the submission's grid."""

from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from rich.progress import track

from fashionseg.core import documents
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import (
    Candidates,
    Prediction,
    grid_size,
    make_candidates,
    predictions_by_image,
)
from fashionseg.submit.config import Submission

BATCH = 50  # images a worker process takes at a time


@dataclass(frozen=True)
class MatchedImage:
    """Candidates (n) and truth of one validation image.

    nearest (n,): index of the true instance of the same class with the highest IoU; iou (n,): that IoU, 0 without any.
    """

    candidates: Candidates
    truth: kaggle_metric.ImageInstances
    nearest: np.ndarray
    iou: np.ndarray


def match_images(
    document: dict[str, Any],
    predictions: list[Prediction],
    params: Submission,
    workers: int = 1,
    mask_threshold: float | None = None,
) -> list[MatchedImage]:
    """The images of a COCO document with truth, in its order. mask_threshold: as in `PostProcessing`."""
    predicted = predictions_by_image(predictions, document)
    truth = documents.by_image(document["annotations"], document)
    tasks = [
        joblib.delayed(_match_image)(
            predicted[image["id"]], truth[image["id"]], (image["height"], image["width"]), params, mask_threshold
        )
        for image in document["images"]
    ]
    done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
    images = []
    for image, (matched, kept) in zip(document["images"], track(done, "match", total=len(tasks)), strict=True):
        of_image = predicted[image["id"]]
        candidates = replace(matched.candidates, predictions=[of_image[place] for place in kept])
        images.append(replace(matched, candidates=candidates))
    return images


def _match_image(
    predictions: list[Prediction],
    annotations: list[dict[str, Any]],
    size: tuple[int, int],
    params: Submission,
    mask_threshold: float | None,
) -> tuple[MatchedImage, list[int]]:
    """A matched image without its predictions, of which a second copy would come back from the worker, and which they
    are. Its masks are compact: those of a fold of the competition take a gigabyte."""
    candidates = make_candidates(predictions, *size, params, mask_threshold)
    truth = kaggle_metric.ImageInstances.of_coco(annotations, *grid_size(*size, params))
    no_attributes = [frozenset()] * len(candidates.classes)
    instances = kaggle_metric.ImageInstances(candidates.masks, candidates.classes, no_attributes)
    places = {id(prediction): place for place, prediction in enumerate(predictions)}
    kept = [places[id(prediction)] for prediction in candidates.predictions]
    overlaps = kaggle_metric.best_overlaps(instances, truth)
    candidates = replace(candidates, predictions=[], masks=candidates.masks.compact())
    return MatchedImage(candidates, replace(truth, masks=truth.masks.compact()), *overlaps), kept
