"""Chooses the threshold of the soft masks: the one at which masks overlap the truth best."""

from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg.core import rle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import windows_on_grid
from fashionseg.submit.config import Submission
from fashionseg.submit.tune.matched_images import BATCH, MatchedImage

MASK_THRESHOLDS = np.arange(30, 75, 5) / 100  # of the soft masks' probabilities
NEAR_IOU = 0.3  # with at least this IoU a mask may match the true instance at another threshold
MAX_IMAGES = 1000  # images whose masks are pasted at every threshold


@dataclass(frozen=True)
class MaskSweep:
    """How well masks near a true instance overlap it at each threshold.

    images (p,): image of each mask, an index into the document's; scores (p,); iou_levels
    (p, 1 + len(MASK_THRESHOLDS)): IoU thresholds exceeded by the predicted segmentation and at each of MASK_THRESHOLDS.
    """

    images: np.ndarray
    scores: np.ndarray
    iou_levels: np.ndarray

    @classmethod
    def of(cls, document: dict[str, Any], images: list[MatchedImage], params: Submission, workers: int) -> "MaskSweep":
        """Of at most MAX_IMAGES images, evenly spaced. images: of `match_images` with the predicted segmentations."""
        chosen = range(0, len(images), -(-len(images) // MAX_IMAGES))
        sizes = [(document["images"][i]["height"], document["images"][i]["width"]) for i in chosen]
        tasks = [joblib.delayed(_sweep_image)(images[i], *size, params) for i, size in zip(chosen, sizes, strict=True)]
        done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
        scores, iou_levels = zip(*track(done, "sweep masks", total=len(tasks)), strict=True)
        numbers = np.repeat(np.array(chosen), [len(of_image) for of_image in scores])
        return cls(numbers, np.concatenate(scores), np.concatenate(iou_levels))

    def best_threshold(self, images: np.ndarray) -> float | None:
        """The threshold with the highest score-weighted IoU level on these images; None for the segmentations, unless
        its gain over them exceeds the gain's standard error over images: for less, no mask is pasted again."""
        rows = np.isin(self.images, images)
        scores, levels = self.scores[rows], self.iou_levels[rows]
        best = int((scores @ levels).argmax())
        gains = np.bincount(self.images[rows], scores * (levels[:, best] - levels[:, 0]), images.max() + 1)[images]
        error = np.sqrt(len(images) / max(1, len(images) - 1) * ((gains - gains.mean()) ** 2).sum())
        return float(MASK_THRESHOLDS[best - 1]) if gains.sum() > error else None

    def table(self) -> pd.DataFrame:
        """One row a threshold; value: the mean share of the IoU thresholds that a mask exceeds, weighted by score."""
        total = max(self.scores.sum(), 1e-9) * kaggle_metric.THRESHOLD_COUNT
        return pd.DataFrame({"threshold": MASK_THRESHOLDS, "value": self.scores @ self.iou_levels[:, 1:] / total})


def _sweep_image(image: MatchedImage, height: int, width: int, params: Submission) -> tuple[np.ndarray, np.ndarray]:
    """Scores (p,) and IoU levels (p, 1 + len(MASK_THRESHOLDS)) of the best candidate near each true instance."""
    near = np.flatnonzero(image.iou >= NEAR_IOU)
    first = near[np.unique(image.nearest[near], return_index=True)[1]]
    true_masks = image.truth.masks[image.nearest[first]]
    windows = windows_on_grid([image.candidates.predictions[i] for i in first], height, width, params)
    ious = [
        rle.concatenate([window.above(threshold) for window in windows]).elementwise_iou(true_masks)
        for threshold in MASK_THRESHOLDS
    ]
    return image.candidates.scores[first], kaggle_metric.level(np.stack([image.iou[first], *ious], axis=1))
