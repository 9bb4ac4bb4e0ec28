"""Where masks should end: the threshold of their probabilities that pays best."""

from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import on_grid
from fashionseg.submit.config import Submission
from fashionseg.submit.tune.matching import BATCH, Image

MASK_THRESHOLDS = np.arange(30, 75, 5) / 100  # of a mask's probabilities
NEAR = 0.3  # IoU of a mask that another threshold may bring to a true instance
SWEPT = 1000  # images at most for which masks are pasted at every threshold


@dataclass(frozen=True)
class MaskSweep:
    """What masks that lie near a true instance are worth at other thresholds.

    images (p,) the number of each one's image; scores (p,); levels (p, 1 + len(MASK_THRESHOLDS)), how many IoU
    thresholds it exceeds as predicted and at each of MASK_THRESHOLDS.
    """

    images: np.ndarray
    scores: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, document: dict[str, Any], images: list[Image], params: Submission, workers: int) -> "MaskSweep":
        """Of SWEPT images at most, evenly spread; images: those of `match` with the masks as predicted."""
        chosen = range(0, len(images), -(-len(images) // SWEPT))
        sizes = [(document["images"][i]["height"], document["images"][i]["width"]) for i in chosen]
        tasks = [joblib.delayed(_swept)(images[i], *size, params) for i, size in zip(chosen, sizes, strict=True)]
        done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
        scores, levels = zip(*track(done, "sweep masks", total=len(tasks)), strict=True)
        numbers = np.repeat(np.array(chosen), [len(of_image) for of_image in scores])
        return cls(numbers, np.concatenate(scores), np.concatenate(levels))

    def best(self, images: np.ndarray) -> float | None:
        """The threshold that serves the masks of the images of these numbers best, each as its score counts."""
        rows = np.isin(self.images, images)
        place = int((self.scores[rows] @ self.levels[rows]).argmax())  # of equals the masks as predicted
        return float(MASK_THRESHOLDS[place - 1]) if place else None

    def table(self) -> pd.DataFrame:
        """One row a threshold: value, the mean share of the IoU thresholds that a mask exceeds."""
        whole = max(self.scores.sum(), 1e-9) * kaggle_metric.LEVELS
        return pd.DataFrame({"threshold": MASK_THRESHOLDS, "value": self.scores @ self.levels[:, 1:] / whole})


def _swept(image: Image, height: int, width: int, params: Submission) -> tuple[np.ndarray, np.ndarray]:
    near = np.flatnonzero(image.iou >= NEAR)
    first = near[np.unique(image.true[near], return_index=True)[1]]  # a true instance is found once, by the best
    true, predictions = image.truth.masks[image.true[first]], [image.found.predictions[i] for i in first]
    ious = [on_grid(predictions, height, width, params, threshold).iou(true) for threshold in MASK_THRESHOLDS]
    return image.found.scores[first], kaggle_metric.level(np.stack([image.iou[first], *ious], axis=1))
