"""The competition's metric: precision (2020) or Jaccard (2019) over IoU thresholds and attribute-F1 thresholds.

A submitted instance is a hit at (t_iou, t_f1) when its IoU with a true instance of its class exceeds t_iou and, if that
true instance has attributes, the F1 of the two attribute sets exceeds t_f1. So the metric needs only two counts of each
submitted instance: how many IoU thresholds it exceeds (its IoU level) and how many F1 thresholds (its F1 level).

At each of the 100 pairs of thresholds the score is TP / (TP + FP) (`precision`, 2020: a missed instance costs nothing)
or TP / (TP + FP + FN) (`jaccard`, 2019); the metric is their mean. Source: participants of both editions. Kaggle does
not tell the order of averaging nor which F1 it uses, so params choose both (`config.Metric`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fashionseg.core import rle
from fashionseg.submit.config import Metric

THRESHOLDS = np.arange(50, 100, 5) / 100  # of IoU and of F1
THRESHOLD_COUNT = len(THRESHOLDS)
NO_CLASS = -1  # class of the filler row in a submission without ClassId


@dataclass(frozen=True)
class ImageInstances:
    """Submitted or true instances of one image: masks on the submission's grid, classes (n,) int, n attribute sets."""

    masks: rle.Runs
    classes: np.ndarray
    attributes: Sequence[frozenset[int]]

    @classmethod
    def of_coco(cls, annotations: Sequence[dict[str, Any]], height: int, width: int) -> "ImageInstances":
        """The true instances of an image, on a grid of height x width pixels."""
        return cls(
            masks=rle.from_coco([row["segmentation"] for row in annotations]).resize(height, width),
            classes=np.array([row["category_id"] for row in annotations], int),
            attributes=[frozenset(row.get("attribute_ids", [])) for row in annotations],
        )


@dataclass(frozen=True, kw_only=True)
class MatchCounts:
    """Counts from which the metric is computed, of n submitted and t true instances of many images.

    images (n,) int: image of each submitted instance, from 0, in order of submission within an image; classes (n,);
    nearest (n,): the true instance of its class with the highest IoU, numbered over all images; iou_levels and
    f1_levels (n,) int 0..10; true_images (t,); true_classes (t,); image_count: includes images without instances.
    filler_class: class of the row that an image without submitted instances gets, since every image must appear in the
    file; it is never a hit. None: it gets an empty row, which is correct where the image has no true instances.
    """

    images: np.ndarray
    classes: np.ndarray
    nearest: np.ndarray
    iou_levels: np.ndarray
    f1_levels: np.ndarray
    true_images: np.ndarray
    true_classes: np.ndarray
    image_count: int
    filler_class: int | None


def f1(first: frozenset[int], second: frozenset[int], kind: str, attribute_count: int) -> float:
    """F1 of two sets of attribute ids; 1 where both are empty. attribute_count: attributes in the label file.

    kind: `set`, F1 of the two sets; `macro`, mean of it and the F1 of the absent attributes, as in Fashionpedia's
    FPEval; `none`, always 1.
    """
    if kind == "none" or not (first or second):
        return 1.0
    both, either = len(first & second), len(first | second)
    f1_present = 2 * both / (both + either)
    absent = attribute_count - either
    f1_absent = 2 * absent / (absent + attribute_count - both) if attribute_count > both else 1.0
    return f1_present if kind == "set" else (f1_present + f1_absent) / 2


def level(values: np.ndarray | float) -> np.ndarray:
    """How many of THRESHOLDS each value exceeds, int 0..10."""
    return np.searchsorted(THRESHOLDS, values, side="left")


def f1_level(submitted: frozenset[int], true: frozenset[int], kind: str, attribute_count: int) -> int:
    """How many F1 thresholds submitted attributes exceed, 0..10; 10 where the true instance has no attributes."""
    return int(level(f1(submitted, true, kind, attribute_count))) if true else THRESHOLD_COUNT


def best_overlaps(submitted: ImageInstances, truth: ImageInstances) -> tuple[np.ndarray, np.ndarray]:
    """(n,) index of the true instance of the same class with the highest IoU, and (n,) its IoU; 0 and 0 without one."""
    if not len(submitted.classes) or not len(truth.classes):
        return np.zeros(len(submitted.classes), int), np.zeros(len(submitted.classes))
    ious = coco_mask.iou(submitted.masks.to_coco(), truth.masks.to_coco(), [0] * len(truth.classes))
    ious *= submitted.classes[:, None] == truth.classes
    return ious.argmax(axis=1), ious.max(axis=1)


def image_counts(
    classes: np.ndarray,
    nearest: np.ndarray,
    iou: np.ndarray,
    f1_levels: np.ndarray,
    *,
    true_classes: np.ndarray,
    filler_class: int | None,
) -> MatchCounts:
    """Counts of one image. classes, f1_levels (n,); nearest, iou (n,) of `best_overlaps`; true_classes (t,)."""
    return MatchCounts(
        images=np.zeros(len(classes), int),
        classes=classes,
        nearest=nearest,
        iou_levels=level(iou),
        f1_levels=f1_levels,
        true_images=np.zeros(len(true_classes), int),
        true_classes=true_classes,
        image_count=1,
        filler_class=filler_class,
    )


def count_matches(
    pairs: Sequence[tuple[ImageInstances, ImageInstances]],
    metric: Metric,
    attribute_count: int,
    filler_class: int | None,
) -> MatchCounts:
    """Counts of (submitted, true) instances, one pair per image, at least one pair."""
    counts = []
    for submitted, truth in pairs:
        nearest, iou = best_overlaps(submitted, truth)
        true_attributes = [truth.attributes[i] if len(truth.attributes) else frozenset() for i in nearest]
        f1_levels = [
            f1_level(ids, true_ids, metric.f1, attribute_count)
            for ids, true_ids in zip(submitted.attributes, true_attributes, strict=True)
        ]
        levels = np.array(f1_levels, int)
        of_image = image_counts(
            submitted.classes, nearest, iou, levels, true_classes=truth.classes, filler_class=filler_class
        )
        counts.append(of_image)
    return joined(counts)


def joined(counts: Sequence[MatchCounts]) -> MatchCounts:
    """Concatenates counts, images in order."""
    image_offsets = np.cumsum([0, *(part.image_count for part in counts[:-1])])
    true_offsets = np.cumsum([0, *(len(part.true_images) for part in counts[:-1])])
    no_offsets = np.zeros(len(counts), int)

    def column(name: str, offsets: np.ndarray) -> np.ndarray:
        return np.concatenate([getattr(part, name) + offset for part, offset in zip(counts, offsets, strict=True)])

    return MatchCounts(
        images=column("images", image_offsets),
        classes=column("classes", no_offsets),
        nearest=column("nearest", true_offsets),
        iou_levels=column("iou_levels", no_offsets),
        f1_levels=column("f1_levels", no_offsets),
        true_images=column("true_images", image_offsets),
        true_classes=column("true_classes", no_offsets),
        image_count=sum(part.image_count for part in counts),
        filler_class=counts[0].filler_class,
    )


def score(counts: MatchCounts, metric: Metric) -> float:
    """The metric, 0..1.

    A true instance is matched once, by the first submitted instance with IoU above the lowest threshold. An image with
    neither true nor submitted instances scores 1 if counts.filler_class is None; else it has a filler row.
    metric.average: `image`, mean over images; `class`, the score of each submitted class of an image (jaccard: or true
    class), mean over the image's classes, then over images; `all`, one score of all images together.
    """
    return float(image_scores(counts, metric).mean())


def image_scores(counts: MatchCounts, metric: Metric) -> np.ndarray:
    """(image_count,) score of each image; (1,) if metric.average is `all`. Their mean is `score`."""
    empty = np.flatnonzero(np.bincount(counts.images, minlength=counts.image_count) == 0)
    if counts.filler_class is None:
        empty = empty[:0]
    images = np.concatenate([counts.images, empty])
    classes = np.concatenate([counts.classes, np.full(len(empty), counts.filler_class or 0)])
    near = np.flatnonzero(counts.iou_levels)
    first = near[np.unique(counts.nearest[near], return_index=True)[1]]
    is_hit = np.zeros(len(images), int)
    is_hit[first] = 1
    iou_levels, f1_levels = is_hit * np.pad([counts.iou_levels, counts.f1_levels], [(0, 0), (0, len(empty))])

    group_of = {
        "image": lambda image, class_id: image,
        "class": lambda image, class_id: class_id * counts.image_count + image,
        "all": lambda image, class_id: image * 0,
    }[metric.average]
    group = np.concatenate([group_of(images, classes), group_of(counts.true_images, counts.true_classes)])
    names = np.arange(counts.image_count if metric.average == "image" else 1)
    if metric.average == "class":
        names, group = np.unique(group, return_inverse=True)
    group, true_group = np.split(group, [len(images)])
    submitted = np.bincount(group, minlength=len(names))
    if metric.formula == "precision":  # the same denominator at all thresholds
        used = np.flatnonzero(submitted)
        scores = np.bincount(group, iou_levels * f1_levels, len(names))[used] / (submitted[used] * THRESHOLD_COUNT**2)
    else:
        # Instances per group with exactly these levels; cumulative sums give those with at least these levels.
        cells = (group * (THRESHOLD_COUNT + 1) + iou_levels) * (THRESHOLD_COUNT + 1) + f1_levels
        exact = np.bincount(cells, minlength=len(names) * (THRESHOLD_COUNT + 1) ** 2)
        exact = exact.reshape(len(names), THRESHOLD_COUNT + 1, THRESHOLD_COUNT + 1)
        hits = exact[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, -2::-1, -2::-1]
        submitted_and_true = submitted + np.bincount(true_group, minlength=len(names))
        used = np.flatnonzero(submitted_and_true)
        scores = (hits[used] / (submitted_and_true[used, None, None] - hits[used])).mean(axis=(1, 2))
    if metric.average == "all":
        return scores if len(scores) else np.zeros(1)
    image = names[used] % counts.image_count
    sums, used_groups = (np.bincount(image, weights, counts.image_count) for weights in (scores, None))
    # Images without submitted instances: 1 without true instances, for precision 0 with some.
    is_empty = np.bincount(counts.true_images, minlength=counts.image_count) == 0
    return np.where(used_groups > 0, sums / np.maximum(used_groups, 1), is_empty)
