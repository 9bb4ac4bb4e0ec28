"""The competition's metric: a sweep of IoU and attribute-F1 thresholds over the claims of each image.

A claim is a hit at (t_i, t_f) when its IoU with a true instance of its class exceeds t_i and, if that instance has
attributes, the F1 of the two attribute sets exceeds t_f. An image's value at a pair of thresholds is
TP / (TP + FP) (`precision`, 2020: a missed instance costs nothing) or TP / (TP + FP + FN) (`jaccard`, 2019); the
score is the mean over all pairs, then over all images. Source: participants of the 2020 edition; the order of
averaging and the kind of F1 that Kaggle uses are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from fashionseg import rle

THRESHOLDS = np.arange(50, 100, 5) / 100


@dataclass(frozen=True)
class Instances:
    """Claims or truth of one image: masks on one grid, classes (n,) int, attributes as n sets of ids."""

    masks: rle.Runs
    classes: np.ndarray
    attributes: Sequence[frozenset[int]]


def f1(first: frozenset[int], second: frozenset[int]) -> float:
    """F1 of two sets; 1 where both are empty."""
    return 2 * len(first & second) / (len(first) + len(second)) if first or second else 1.0


def hits(claims: Instances, truth: Instances) -> np.ndarray:
    """(n, 10, 10) bool: whether each claim is a hit at each pair of IoU and F1 thresholds."""
    found = np.zeros((len(claims.classes), len(THRESHOLDS), len(THRESHOLDS)), bool)
    if not len(claims.classes) or not len(truth.classes):
        return found
    overlaps = coco_mask.iou(claims.masks.to_coco(), truth.masks.to_coco(), [0] * len(truth.classes))
    for claim, true in np.argwhere((overlaps > THRESHOLDS[0]) & (claims.classes[:, None] == truth.classes)):
        agreement = f1(claims.attributes[claim], truth.attributes[true]) if truth.attributes[true] else np.inf
        found[claim] |= (overlaps[claim, true] > THRESHOLDS)[:, None] & (agreement > THRESHOLDS)
    return found


def value(found: np.ndarray, true_count: int, formula: str) -> float:
    """The value of one image from the `hits` (n, 10, 10) of its claims; without a claim the filler row misses.

    Claims of one class share no pixel, so a true instance is hit by one of them at most: FN = true_count - TP.
    """
    positives = found.sum(axis=0)
    claimed = max(len(found), 1)
    whole = claimed if formula == "precision" else claimed + true_count - positives
    return float((positives / whole).mean())
