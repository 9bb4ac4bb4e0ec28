"""Predictions matched with the truth, as flat arrays: every IoU computed once, greedy matching, average precision.

All metrics except those of pycocotools start from one `Matching`. Images, classes and instances are numbers from 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from fashionseg.core import documents

IOU_THRESHOLD = 0.5  # a prediction with at least this IoU finds a true instance, where a single threshold is needed
SHOWN_SCORE = 0.5  # predictions with lower scores are left out of overlays and of the confusion table
RECALLS = np.linspace(0, 1, 101)  # COCO's
BATCH_CELLS = 2**21  # pairs of instances x thresholds matched at once: some dozens of megabytes


@dataclass(frozen=True)
class InstanceTable:
    """Predictions (highest score first within an image) or truth (in the document's order) of all images, by image id.

    images, classes (n,) int: indices into the document's images by ascending id, and into its categories; areas (n,)
    of the masks, pixels; scores (n,), 1 for truth; attributes (n, A) bool.
    """

    images: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    attributes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Matching:
    """The IoU of every prediction with every true instance of its image.

    iou (p,): ordered by image, then prediction, then true instance; in_crowd (n,): the largest share of a prediction
    within a crowd region of its class, -inf where its image has none; image_count: images without instances too.
    """

    predictions: InstanceTable
    truth: InstanceTable
    iou: np.ndarray
    in_crowd: np.ndarray
    image_count: int

    @cached_property
    def _true_counts(self) -> np.ndarray:
        return np.bincount(self.truth.images, minlength=self.image_count)

    @cached_property
    def _offsets(self) -> np.ndarray:
        """(n,): the index into `iou` of a prediction and a true instance is the offset plus the true instance."""
        counts = self._true_counts[self.predictions.images]
        return np.cumsum(counts) - counts - (np.cumsum(self._true_counts) - self._true_counts)[self.predictions.images]

    def iou_between(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """IoU of predictions and true instances of the same images; their indices are broadcast against each other."""
        return self.iou[self._offsets[predictions] + truth]

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The prediction and the true instance of every entry of `iou`, each (p,)."""
        predictions = np.repeat(np.arange(len(self.predictions)), self._true_counts[self.predictions.images])
        return predictions, np.arange(len(self.iou)) - self._offsets[predictions]

    @cached_property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """One number for class and image, of each prediction (n,) and of each true instance (m,)."""
        return tuple(side.classes * self.image_count + side.images for side in (self.predictions, self.truth))

    @cached_property
    def matched(self) -> np.ndarray:
        """(n,) the true instance of its class that each prediction finds at `IOU_THRESHOLD`; -1: none.

        Greedy, highest score first: a prediction takes the instance with the highest IoU that is still free. So leaving
        out the lowest scores does not change the matches of the others.
        """
        return self.greedy(*self.groups)

    @cached_property
    def ignored(self) -> np.ndarray:
        """(n,) bool: predictions that find no instance and lie in a crowd region, neither right nor wrong in COCO."""
        return (self.matched < 0) & (self.in_crowd >= IOU_THRESHOLD)

    def greedy(self, prediction_keys: np.ndarray, truth_keys: np.ndarray) -> np.ndarray:
        """(n,) as `matched`, between predictions and true instances of equal key >= 0; a key belongs to one image."""
        matched = np.full(len(self.predictions), -1)
        for predictions, truth in batches(prediction_keys, truth_keys, 1):
            iou = self.iou_between(predictions[:, :, None], truth[:, None])
            no_f1, none_ignored = np.array([-1.0]), np.zeros(truth.shape, bool)
            places = assign(iou, np.ones_like(iou), none_ignored, np.array([IOU_THRESHOLD]), no_f1)
            rows, columns = np.nonzero(places[..., 0, 0] >= 0)
            matched[predictions[rows, columns]] = truth[rows, places[rows, columns, 0, 0]]
        return matched


def match(document: dict[str, Any], predictions: list[dict[str, Any]], attribute_score: float = 0.0) -> Matching:
    """The matching of COCO results with the truth of a COCO document, whose ids they must have.

    Attributes of a prediction count if their score is at least `attribute_score`.
    """
    images = {id_: place for place, id_ in enumerate(sorted(image["id"] for image in document["images"]))}
    by_score = sorted(predictions, key=lambda p: -p["score"])
    sides = by_score, document["annotations"], document.get("crowds", [])
    groups = (documents.by_image(rows, document) for rows in sides)
    predicted, true, crowded = ([of_image[id_] for id_ in images] for of_image in groups)
    ious, in_crowd = [], []
    for results, annotations, crowds in track(
        zip(predicted, true, crowded, strict=True), "match masks", total=len(images)
    ):
        if results and annotations:
            ious.append(_ious(results, annotations, 0).ravel())
        if results and crowds:
            classes = (np.array([row["category_id"] for row in rows]) for rows in (results, crowds))
            shares = np.where(np.equal.outer(*classes), _ious(results, crowds, 1), -np.inf)
            in_crowd.append(shares.max(1))
        else:
            in_crowd.append(np.full(len(results), -np.inf))
    results, annotations = ([row for rows in groups for row in rows] for groups in (predicted, true))
    areas = [coco_mask.area(result["segmentation"]) for result in results]  # one by one: it fails for lists over 255
    true_areas = [annotation["area"] for annotation in annotations]
    attribute_ids = [shown_attributes(result, attribute_score) for result in results]
    true_attribute_ids = [annotation.get("attribute_ids", []) for annotation in annotations]
    return Matching(
        _instance_table(results, areas, attribute_ids, document, images),
        _instance_table(annotations, true_areas, true_attribute_ids, document, images),
        np.concatenate(ious) if ious else np.zeros(0),
        np.concatenate([np.zeros(0), *in_crowd]),
        len(images),
    )


def _ious(results: list[dict[str, Any]], annotations: list[dict[str, Any]], crowd: int) -> np.ndarray:
    """(results, annotations); crowd 1: the share of the result's area, instead."""
    masks = ([row["segmentation"] for row in rows] for rows in (results, annotations))
    return coco_mask.iou(*masks, [crowd] * len(annotations))


def shown_attributes(prediction: dict[str, Any], score: float) -> list[int]:
    """The attribute ids of a prediction with at least this score; all of them where it has no attribute_scores."""
    ids = prediction.get("attribute_ids", [])
    scores = prediction.get("attribute_scores", [1.0] * len(ids))
    return [id_ for id_, value in zip(ids, scores, strict=True) if value >= score]


def batches(
    prediction_keys: np.ndarray, truth_keys: np.ndarray, thresholds: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of predictions and true instances of equal key >= 0, in batches of groups of one shape.

    Yields indices of predictions (b, d) and of true instances (b, g), in order within a group. Instances whose key the
    other side lacks are left out.
    """
    sides = [_grouped(prediction_keys), _grouped(truth_keys)]
    _, *common = np.intersect1d(sides[0][1], sides[1][1], assume_unique=True, return_indices=True)
    starts, counts = (np.stack([side[n][at] for side, at in zip(sides, common, strict=True)], 1) for n in (2, 3))
    for shape in np.unique(counts, axis=0):
        chosen = starts[(counts == shape).all(1)]
        at_once = max(1, BATCH_CELLS // int(shape.prod() * thresholds))
        for first in range(0, len(chosen), at_once):
            part = chosen[first : first + at_once]
            yield tuple(sides[n][0][part[:, n, None] + np.arange(shape[n])] for n in (0, 1))


def assign(
    iou: np.ndarray, f1: np.ndarray, ignored: np.ndarray, iou_thresholds: np.ndarray, f1_thresholds: np.ndarray
) -> np.ndarray:
    """COCO's greedy matching with a second threshold: (b, d, t, f) index into the g true instances, -1 for none.

    iou, f1 (b, d, g): predictions by falling score, true instances in the order in which they are tried; ignored
    (b, g): true instances that a prediction takes only where it finds no other; they come last. A true instance must
    reach both thresholds, and each match raises both, as in the class FPEval of the package fashionpedia.
    """
    b, d, g = iou.shape
    cells = (b, len(iou_thresholds), len(f1_thresholds))
    taken = np.zeros((*cells, g), bool)
    places = np.full((b, d, *cells[1:]), -1, np.int32)
    for prediction in range(d):
        iou_needed = np.broadcast_to(iou_thresholds[:, None], cells).copy()
        f1_needed = np.broadcast_to(f1_thresholds, cells).copy()
        place = places[:, prediction]
        has_real = np.zeros(cells, bool)
        for true in range(g):
            overlap, agreement = (values[:, prediction, true, None, None] for values in (iou, f1))
            out = ignored[:, true, None, None]
            better = (overlap >= iou_needed) & (agreement >= f1_needed) & ~taken[..., true] & ~(has_real & out)
            np.copyto(iou_needed, overlap, where=better)
            np.copyto(f1_needed, agreement, where=better)
            place[better] = true
            has_real |= better & ~out
        for true in range(g):
            taken[..., true] |= place == true
    return places


def average_precision(hits: np.ndarray, misses: np.ndarray, true_count: int) -> np.ndarray:
    """(...) COCO's AP: monotone precision, mean at 101 recalls. hits, misses (..., n) bool, highest score first."""
    n = hits.shape[-1]
    if not n:
        return np.zeros(hits.shape[:-1])
    hit_count = hits.reshape(-1, n).cumsum(1)
    precision = hit_count / (hit_count + misses.reshape(-1, n).cumsum(1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    needed = np.searchsorted(np.arange(true_count + 1) / true_count, RECALLS)  # hits needed for each recall
    rows = np.arange(len(hit_count))[:, None]
    # Counts rise along a row; adding n + 1 from row to row makes them rise over the whole array, for searchsorted.
    places = np.searchsorted((hit_count + rows * (n + 1)).ravel(), (needed + rows * (n + 1)).ravel()).reshape(-1, 101)
    reached = places < (rows + 1) * n
    values = np.where(reached, precision.ravel()[np.minimum(places, precision.size - 1)], 0)
    return values.mean(1).reshape(hits.shape[:-1])


def _instance_table(
    rows: list[dict[str, Any]],
    areas: list[float],
    attribute_ids: list[list[int]],
    document: dict[str, Any],
    images: dict[int, int],
) -> InstanceTable:
    categories = documents.places_of(document)
    attributes = {attribute["id"]: place for place, attribute in enumerate(document.get("attributes", []))}
    chosen = np.zeros((len(rows), len(attributes)), bool)
    for row, ids in enumerate(attribute_ids):
        chosen[row, [attributes[id_] for id_ in ids]] = True
    return InstanceTable(
        np.array([images[row["image_id"]] for row in rows], int),
        np.array([categories[row["category_id"]] for row in rows], int),
        np.array(areas, float),
        np.array([row.get("score", 1.0) for row in rows], float),
        chosen,
    )


def _grouped(keys: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices sorted by key, without keys < 0; the distinct keys; start and length of each key's group."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] >= 0]
    return order, *np.unique(keys[order], return_index=True, return_counts=True)
