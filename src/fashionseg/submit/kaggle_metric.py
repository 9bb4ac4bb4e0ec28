"""The competition's metric: a sweep of IoU and attribute-F1 thresholds over the claims of each image.

A claim is a hit at (t_i, t_f) when its IoU with a true instance of its class exceeds t_i and, if that instance has
attributes, the F1 of the two attribute sets exceeds t_f. So all that counts of a claim are two whole numbers: how many
of the IoU thresholds it exceeds (`overlap`) and how many of the F1 thresholds (`agreement`).

At each pair of thresholds the value is TP / (TP + FP) (`precision`, 2020: a missed instance costs nothing) or
TP / (TP + FP + FN) (`jaccard`, 2019), then averaged. Source: participants of the two editions. The order of averaging
and the kind of F1 that Kaggle uses are not known, so both are named choices (`params.Metric`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from fashionseg.core import rle
from fashionseg.submit.config import Metric

THRESHOLDS = np.arange(50, 100, 5) / 100
LEVELS = len(THRESHOLDS)
FILLER_CLASS = 23  # an image without a claim must appear in the file all the same, with a row that is no hit


@dataclass(frozen=True)
class Instances:
    """Claims or truth of one image: masks on one grid, classes (n,) int, attributes as n sets of ids."""

    masks: rle.Runs
    classes: np.ndarray
    attributes: Sequence[frozenset[int]]


@dataclass(frozen=True)
class Tally:
    """Claims of many images, those of an image in the order of claiming, and how many true instances there are.

    images (n,) numbers from 0; classes (n,); true (n,) number of the true instance that the claim overlaps most, unique
    over all images; overlap (n,), agreement (n,) int 0..10; true_images (t,), true_classes (t,); count of the images.
    """

    images: np.ndarray
    classes: np.ndarray
    true: np.ndarray
    overlap: np.ndarray
    agreement: np.ndarray
    true_images: np.ndarray
    true_classes: np.ndarray
    count: int


def f1(first: frozenset[int], second: frozenset[int], kind: str, attributes: int) -> float:
    """F1 of two sets of attribute ids out of so many; 1 where both are empty.

    kind: `set`, of the sets; `macro`, the mean of that and of the F1 of the absent ones, as Fashionpedia's FPEval does;
    `none`, 1 always.
    """
    if kind == "none" or not (first or second):
        return 1.0
    both, either = len(first & second), len(first | second)
    of_sets = 2 * both / (both + either)
    absent = attributes - either
    of_absent = 2 * absent / (absent + attributes - both) if attributes > both else 1.0
    return of_sets if kind == "set" else (of_sets + of_absent) / 2


def level(values: np.ndarray | float) -> np.ndarray:
    """How many of THRESHOLDS each value exceeds, int 0..10."""
    return np.searchsorted(THRESHOLDS, values, side="left")


def overlaps(claims: Instances, truth: Instances) -> tuple[np.ndarray, np.ndarray]:
    """For each claim the place of the true instance of its class that it overlaps most, and their IoU; 0, 0 of none."""
    if not len(claims.classes) or not len(truth.classes):
        return np.zeros(len(claims.classes), int), np.zeros(len(claims.classes))
    ious = coco_mask.iou(claims.masks.to_coco(), truth.masks.to_coco(), [0] * len(truth.classes))
    ious *= claims.classes[:, None] == truth.classes
    return ious.argmax(axis=1), ious.max(axis=1)


def agreement(claimed: frozenset[int], true: frozenset[int], kind: str, attributes: int) -> int:
    """How many F1 thresholds a claim's attributes exceed, 0..10: all of them where the truth has none."""
    return int(level(f1(claimed, true, kind, attributes))) if true else LEVELS


def tally(pairs: Sequence[tuple[Instances, Instances]], metric: Metric, attributes: int) -> Tally:
    """Compares claims with the truth, image by image, both on the submission's grid; attributes: how many there are."""
    columns: list[list[np.ndarray]] = []
    offset = 0
    for image, (claims, truth) in enumerate(pairs):
        place, iou = overlaps(claims, truth)
        agreed = [
            agreement(claimed, truth.attributes[p] if len(truth.attributes) else frozenset(), metric.f1, attributes)
            for claimed, p in zip(claims.attributes, place, strict=True)
        ]
        number, true_number = np.full(len(place), image), np.full(len(truth.classes), image)
        columns.append(
            [number, claims.classes, place + offset, level(iou), np.array(agreed, int), true_number, truth.classes]
        )
        offset += len(truth.classes)
    return Tally(*(np.concatenate([[], *column]).astype(int) for column in zip(*columns, strict=True)), len(pairs))


def joined(tallies: Sequence[Tally]) -> Tally:
    """One tally of the images of all, in order."""
    before = np.cumsum([(0, 0), *((tally.count, len(tally.true_images)) for tally in tallies)], axis=0)
    columns = [
        [t.images + image, t.classes, t.true + true, t.overlap, t.agreement, t.true_images + image, t.true_classes]
        for t, (image, true) in zip(tallies, before, strict=False)
    ]
    return Tally(*map(np.concatenate, zip(*columns, strict=True)), int(before[-1, 0]))


def value(tally: Tally, metric: Metric) -> float:
    """The metric, 0..1, of at least one image.

    A true instance is found once, by the first claim; an image without a claim gets the filler row, which is no hit.
    metric.average: `image`, the value of each image, then their mean; `class`, that of each class of each image where
    it is claimed (jaccard: or true), their mean over the image, then over images; `all`, of the counts of all images.
    """
    return float(values(tally, metric).mean())


def values(tally: Tally, metric: Metric) -> np.ndarray:
    """(count,) what each image adds to the mean that `value` is; (1,) where metric.average is `all`."""
    silent = np.flatnonzero(np.bincount(tally.images, minlength=tally.count) == 0)
    images = np.concatenate([tally.images, silent])
    classes = np.concatenate([tally.classes, np.full(len(silent), FILLER_CLASS)])
    near = np.flatnonzero(tally.overlap)
    hitting = np.zeros(len(images), int)
    hitting[near[np.unique(tally.true[near], return_index=True)[1]]] = 1
    overlap, agreed = hitting * np.pad([tally.overlap, tally.agreement], [(0, 0), (0, len(silent))])

    group_of = {
        "image": lambda image, number: image,
        "class": lambda image, number: number * tally.count + image,
        "all": lambda image, number: image * 0,
    }[metric.average]
    group = np.concatenate([group_of(images, classes), group_of(tally.true_images, tally.true_classes)])
    names = np.arange(tally.count if metric.average == "image" else 1)
    if metric.average == "class":
        names, group = np.unique(group, return_inverse=True)
    group, true_group = np.split(group, [len(images)])
    claims = np.bincount(group, minlength=len(names))
    if metric.formula == "precision":  # what is divided by is the same at all thresholds
        shown = np.flatnonzero(claims)
        found = np.bincount(group, overlap * agreed, len(names))[shown] / (claims[shown] * LEVELS**2)
    else:
        # Claims of each group that exceed exactly so many thresholds, summed up to: at least so many.
        cells = (group * (LEVELS + 1) + overlap) * (LEVELS + 1) + agreed
        exact = np.bincount(cells, minlength=len(names) * (LEVELS + 1) ** 2)
        exact = exact.reshape(len(names), LEVELS + 1, LEVELS + 1)
        hits = exact[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, -2::-1, -2::-1]
        whole = claims + np.bincount(true_group, minlength=len(names))
        shown = np.flatnonzero(whole)
        found = (hits[shown] / (whole[shown, None, None] - hits[shown])).mean(axis=(1, 2))
    if metric.average == "class":
        image = names[shown] % tally.count
        found = np.bincount(image, found) / np.bincount(image)
    return found
