"""Predictions beside truth as flat arrays: every IoU computed once, greedy matching, average precision.

All metrics but pycocotools' own start from one `Matching`. An image, a class or an instance is a place in an array.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

IOU = 0.5  # from here on a prediction is said to have found an instance, where one threshold is wanted
SHOWN_SCORE = 0.5  # weaker predictions are left out of pictures and of the confusion table
RECALLS = np.linspace(0, 1, 101)  # COCO's
BATCH_CELLS = 2**21  # instances x thresholds that are matched at once: some dozens of megabytes


@dataclass(frozen=True)
class Instances:
    """Predictions (best first within an image) or truth (as in the document), image after image.

    images, classes (n,) int: places in the document's images by ascending id, and in its categories;
    areas (n,) pixels of the mask; scores (n,), 1 for truth; attributes (n, A) bool.
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

    iou (p,): image after image, prediction after prediction, true instance after true instance; image_count: of the
    document, those without instances too.
    """

    predictions: Instances
    truth: Instances
    iou: np.ndarray
    image_count: int

    @cached_property
    def _true_counts(self) -> np.ndarray:
        return np.bincount(self.truth.images, minlength=self.image_count)

    @cached_property
    def _places(self) -> np.ndarray:
        """(n,): where in `iou` the first pair of each prediction stands, less the place of that true instance."""
        counts = self._true_counts[self.predictions.images]
        return np.cumsum(counts) - counts - (np.cumsum(self._true_counts) - self._true_counts)[self.predictions.images]

    def overlaps(self, predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """IoU of predictions and true instances (places, broadcast against each other) of the same images."""
        return self.iou[self._places[predictions] + truth]

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The prediction and the true instance, each (p,), of every entry of `iou`."""
        predictions = np.repeat(np.arange(len(self.predictions)), self._true_counts[self.predictions.images])
        return predictions, np.arange(len(self.iou)) - self._places[predictions]

    @cached_property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """A number for the class and image of each prediction (n,) and of each true instance (m,)."""
        return tuple(side.classes * self.image_count + side.images for side in (self.predictions, self.truth))

    @cached_property
    def matched(self) -> np.ndarray:
        """(n,) the true instance of its class that each prediction has found at `IOU`, best score first; -1: none.

        A prediction takes the instance that it overlaps most of those that no better one has taken, so leaving out
        the weakest predictions does not change what the others have found.
        """
        return self.greedy(*self.groups)

    def greedy(self, prediction_keys: np.ndarray, truth_keys: np.ndarray) -> np.ndarray:
        """(n,) like `matched`, between predictions and true instances of equal key >= 0; a key is of one image."""
        matched = np.full(len(self.predictions), -1)
        for predictions, truth in batches(prediction_keys, truth_keys, 1):
            iou = self.overlaps(predictions[:, :, None], truth[:, None])
            places = assign(iou, np.ones_like(iou), np.zeros(truth.shape, bool), np.array([IOU]), np.array([-1.0]))
            rows, columns = np.nonzero(places[..., 0, 0] >= 0)
            matched[predictions[rows, columns]] = truth[rows, places[rows, columns, 0, 0]]
        return matched


def compare(document: dict[str, Any], predictions: list[dict[str, Any]], attribute_score: float = 0.0) -> Matching:
    """Lays predictions (COCO results) beside the truth of a COCO document.

    An attribute of a prediction counts from `attribute_score` on. Every id must be one of the document's.
    """
    images = {id_: place for place, id_ in enumerate(sorted(image["id"] for image in document["images"]))}
    predicted = _by_image(sorted(predictions, key=lambda p: -p["score"]), images)
    true = _by_image(document["annotations"], images)
    ious = []
    for found, there in track(zip(predicted, true, strict=True), "compare masks", total=len(images)):
        if found and there:
            masks = [[row["segmentation"] for row in rows] for rows in (found, there)]
            ious.append(coco_mask.iou(*masks, [0] * len(there)).ravel())
    found, there = ([row for rows in groups for row in rows] for groups in (predicted, true))
    areas = [coco_mask.area(prediction["segmentation"]) for prediction in found]  # a list of over 255 makes it fail
    true_areas = [annotation["area"] for annotation in there]
    chosen = [shown_attributes(prediction, attribute_score) for prediction in found]
    true_chosen = [annotation.get("attribute_ids", []) for annotation in there]
    return Matching(
        _instances(found, areas, chosen, document, images),
        _instances(there, true_areas, true_chosen, document, images),
        np.concatenate(ious) if ious else np.zeros(0),
        len(images),
    )


def shown_attributes(prediction: dict[str, Any], score: float) -> list[int]:
    """The attribute ids of a prediction whose score is at least `score`; all of them where it has no such scores."""
    ids = prediction.get("attribute_ids", [])
    scores = prediction.get("attribute_scores", [1.0] * len(ids))
    return [id_ for id_, value in zip(ids, scores, strict=True) if value >= score]


def batches(
    prediction_keys: np.ndarray, truth_keys: np.ndarray, thresholds: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of predictions and true instances of equal key >= 0, many of one shape at once: places (b, d), (b, g).

    Order within a group is kept. What has no counterpart of its key is in no batch.
    """
    sides = [_runs(prediction_keys), _runs(truth_keys)]
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
    """COCO's greedy matching with a second bar: (b, d, t, f) place among the g true instances, -1 where none.

    iou, f1 (b, d, g): predictions best first, true instances in the order in which they are tried; ignored (b, g):
    those that a prediction takes only where it finds no other, and which must come last. A true instance must pass
    both thresholds, and each better one raises both bars, as in the class FPEval of the package fashionpedia.
    """
    b, d, g = iou.shape
    cells = (b, len(iou_thresholds), len(f1_thresholds))
    taken = np.zeros((*cells, g), bool)
    places = np.full((b, d, *cells[1:]), -1, np.int32)
    for prediction in range(d):
        iou_bar = np.broadcast_to(iou_thresholds[:, None], cells).copy()
        f1_bar = np.broadcast_to(f1_thresholds, cells).copy()
        place = places[:, prediction]
        has_real = np.zeros(cells, bool)
        for true in range(g):
            overlap, agreement = (values[:, prediction, true, None, None] for values in (iou, f1))
            out = ignored[:, true, None, None]
            better = (overlap >= iou_bar) & (agreement >= f1_bar) & ~taken[..., true] & ~(has_real & out)
            np.copyto(iou_bar, overlap, where=better)
            np.copyto(f1_bar, agreement, where=better)
            place[better] = true
            has_real |= better & ~out
        for true in range(g):
            taken[..., true] |= place == true
    return places


def average_precision(hits: np.ndarray, misses: np.ndarray, true_count: int) -> np.ndarray:
    """COCO's: precision made monotone, mean at 101 recalls. hits, misses (..., n) bool, best first: (...)."""
    n = hits.shape[-1]
    if not n:
        return np.zeros(hits.shape[:-1])
    hit_count = hits.reshape(-1, n).cumsum(1)
    precision = hit_count / (hit_count + misses.reshape(-1, n).cumsum(1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    needed = np.searchsorted(np.arange(true_count + 1) / true_count, RECALLS)  # hits that make up each recall
    rows = np.arange(len(hit_count))[:, None]
    # Counts rise along a row; with n + 1 added from row to row they do so all through.
    places = np.searchsorted((hit_count + rows * (n + 1)).ravel(), (needed + rows * (n + 1)).ravel()).reshape(-1, 101)
    reached = places < (rows + 1) * n
    values = np.where(reached, precision.ravel()[np.minimum(places, precision.size - 1)], 0)
    return values.mean(1).reshape(hits.shape[:-1])


def _by_image(rows: list[dict[str, Any]], images: dict[int, int]) -> list[list[dict[str, Any]]]:
    groups = [[] for _ in images]
    for row in rows:
        groups[images[row["image_id"]]].append(row)
    return groups


def _instances(
    rows: list[dict[str, Any]],
    areas: list[float],
    attribute_ids: list[list[int]],
    document: dict[str, Any],
    images: dict[int, int],
) -> Instances:
    categories = {category["id"]: place for place, category in enumerate(document["categories"])}
    attributes = {attribute["id"]: place for place, attribute in enumerate(document.get("attributes", []))}
    chosen = np.zeros((len(rows), len(attributes)), bool)
    for row, ids in enumerate(attribute_ids):
        chosen[row, [attributes[id_] for id_ in ids]] = True
    return Instances(
        np.array([images[row["image_id"]] for row in rows], int),
        np.array([categories[row["category_id"]] for row in rows], int),
        np.array(areas, float),
        np.array([row.get("score", 1.0) for row in rows], float),
        chosen,
    )


def _runs(keys: np.ndarray) -> tuple[np.ndarray, ...]:
    """Places ordered by key >= 0, the distinct keys, and where the run of each starts and how long it is."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] >= 0]
    return order, *np.unique(keys[order], return_index=True, return_counts=True)
