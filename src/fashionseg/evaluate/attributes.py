"""Attributes: Fashionpedia's average precision over IoU and F1 thresholds, and F1 attribute by attribute.

AP_IoU+F1 is COCO's mask AP where a match must also reach an F1 threshold; both thresholds are 0.50:0.05:0.95. The F1 of
two attribute sets is the mean of the F1 of present and of absent attributes. Classes without attributes have the IoU
threshold only. Source: Jia et al., Fashionpedia (2020), and its package `fashionpedia`, whose class FPEval gives the
same values for documents whose category ids are 0 to 45.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fashionseg.evaluate.matching import Matching, assign, average_precision, batches

ANY = -1.0  # a threshold that everything reaches
THRESHOLDS = np.append(np.linspace(0.5, 0.95, 10), ANY)  # of IoU and of F1
AREAS = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))  # COCO's: all, small, medium and large masks
MAX_DETECTIONS = (1, 10, 100)  # of a class in an image
FASHIONPEDIA_CLASSES = frozenset({*range(13), 28, 29, 31, 32, 33})  # FPEval's classes with attributes, of ids 0 to 45
MODES = {  # whether a match needs IoU, F1
    "IoU and F1": (True, True),
    "IoU alone": (True, False),
    "F1 alone": (False, True),
}
FREQUENT = 10  # least true instances of a class or attribute that is called frequent


@dataclass(frozen=True)
class PrecisionRecall:
    """Average precision and recall of each class at each pair of thresholds; NaN without truth of that area.

    precision (K, 4, T, F) and recall (K, 4, 3, T, F) over classes, AREAS, MAX_DETECTIONS and THRESHOLDS of IoU
    and of F1; has_attributes (K,) bool: classes without have the same value at every F1 threshold.
    """

    precision: np.ndarray
    recall: np.ndarray
    has_attributes: np.ndarray


def measurable(document: dict[str, Any], predictions: list[dict[str, Any]]) -> bool:
    """Whether the truth has attributes and, unless there are no predictions, some prediction has."""
    true = any(annotation.get("attribute_ids") for annotation in document["annotations"])
    return true and (not predictions or any(prediction.get("attribute_ids") for prediction in predictions))


def with_attributes(document: dict[str, Any]) -> np.ndarray:
    """(K,) bool: classes with attributes in the truth; for category ids 0 to 45, those of FPEval."""
    ids = [category["id"] for category in document["categories"]]
    if sorted(ids) == list(range(46)):
        have = FASHIONPEDIA_CLASSES
    else:
        have = {row["category_id"] for row in document["annotations"] if row.get("attribute_ids")}
    return np.isin(ids, list(have))


def evaluate(matching: Matching, has_attributes: np.ndarray) -> PrecisionRecall:
    """AP_IoU+F1 by class. has_attributes (K,) bool, see `with_attributes`."""
    shape = (len(has_attributes), len(AREAS), len(THRESHOLDS), len(THRESHOLDS))
    precision, recall = np.full(shape, np.nan), np.full((*shape[:2], len(MAX_DETECTIONS), *shape[2:]), np.nan)
    predictions, truth = matching.predictions, matching.truth
    keys = pd.Series(matching.groups[0])  # an image's predictions are ordered by falling score
    ranks = keys.groupby(keys).cumcount().to_numpy()  # among those of its class in its image
    order = np.argsort(-predictions.scores, kind="stable")
    for have, f1_thresholds in ((True, THRESHOLDS), (False, THRESHOLDS[-1:])):
        evaluated = has_attributes == have
        used = evaluated[predictions.classes] & (ranks < MAX_DETECTIONS[-1])
        hits, misses = _hits_and_misses(matching, used, evaluated[truth.classes], f1_thresholds)
        for class_ in np.unique(truth.classes[evaluated[truth.classes]]):
            rows = order[used[order] & (predictions.classes[order] == class_)]
            hit, miss = (np.moveaxis(of_all[rows], 0, -1) for of_all in (hits, misses))  # (areas, t, f, n)
            areas = truth.areas[truth.classes == class_]
            for area, limits in enumerate(AREAS):
                count = int(_within(areas, limits).sum())
                if count:
                    precision[class_, area] = average_precision(hit[area], miss[area], count)
                    for place, most in enumerate(MAX_DETECTIONS):
                        recall[class_, area, place] = hit[area][..., ranks[rows] < most].sum(-1) / count
    return PrecisionRecall(precision, recall, has_attributes)


def summary(scores: PrecisionRecall) -> dict[str, float | None]:
    """Like `coco.average_precision.summary`, at all F1 thresholds; `AP_plain` is AP as the plain mean over the classes.

    In the other values a class with attributes weighs ten times as much as one without, as in FPEval.
    """
    table = aggregates(scores)["IoU and F1"]
    names = {"AP": "AP", "AP50": "AP_IOU50", "AP75": "AP_IOU75", "APs": "APs", "APm": "APm", "APl": "APl"}
    values = {**{name: table[other] for name, other in names.items()}, "AR100": table["AR@100"]}
    values["AP_plain"] = _mean(by_class(scores))
    return {name: None if np.isnan(value) else round(value, 5) for name, value in values.items()}


def by_class(scores: PrecisionRecall) -> np.ndarray:
    """(K,) AP_IoU+F1 of each class, NaN without truth."""
    return scores.precision[:, 0, _chosen(), _chosen()].mean((1, 2))


def aggregates(scores: PrecisionRecall) -> dict[str, dict[str, float]]:
    """All values that FPEval prints, by name, for each of MODES.

    NaN where there is no truth. `AP_IOU50_F175` is at IoU 0.50 and F1 0.75; AR is average recall.
    """
    return {mode: _aggregated(scores, *mode_needs) for mode, mode_needs in MODES.items()}


def by_attribute(matching: Matching, document: dict[str, Any]) -> pd.DataFrame:
    """One row an attribute that occurs in the truth or in predictions matched at IoU 0.5.

    id, name, supercategory; truth: true instances that have it; matched: those of them that are matched; precision,
    recall and F1 over matched instances; frequent: whether it counts in `macro_f1`.
    """
    is_matched = matching.matched >= 0
    predicted = matching.predictions.attributes[is_matched]
    true = matching.truth.attributes[matching.matched[is_matched]]
    both = (predicted & true).sum(0)
    counts = matching.truth.attributes.sum(0)
    attributes = document.get("attributes", [])
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {
                "id": [attribute["id"] for attribute in attributes],
                "name": [attribute["name"] for attribute in attributes],
                "supercategory": [attribute.get("supercategory") or "" for attribute in attributes],
                "truth": counts,
                "matched": true.sum(0),
                "precision": both / predicted.sum(0),
                "recall": both / true.sum(0),
                "F1": 2 * both / (predicted.sum(0) + true.sum(0)),
                "frequent": counts >= FREQUENT,
            }
        ).round(5)
    return table[(table["truth"] > 0) | predicted.any(0)]


def by_supercategory(table: pd.DataFrame) -> pd.DataFrame:
    """From the table of `by_attribute`, its frequent rows only: supercategory, (none) for those without one, attributes
    (count), mean F1."""
    frequent = table[table["frequent"]].fillna({"F1": 0})
    groups = frequent.assign(supercategory=frequent["supercategory"].replace("", "(none)")).groupby(
        "supercategory", sort=False
    )
    return groups.agg(attributes=("id", "count"), F1=("F1", "mean")).round(5).reset_index()


def macro_f1(table: pd.DataFrame) -> float | None:
    """Mean F1 over the frequent attributes of `by_attribute`, NaN counting as 0; None without frequent attributes."""
    frequent = table[table["frequent"]]
    return round(float(frequent["F1"].fillna(0).mean()), 5) if len(frequent) else None


def f1_scores(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(...) mean of the F1 of present and of absent attributes, from (..., A) bool; an F1 of nothing is left out."""
    both, sizes = (predicted & true).sum(-1), predicted.sum(-1) + true.sum(-1)
    neither, absent = predicted.shape[-1] - sizes + both, 2 * predicted.shape[-1] - sizes
    with np.errstate(invalid="ignore"):
        present_f1, absent_f1 = 2 * both / sizes, 2 * neither / absent
    present_f1, absent_f1 = np.where(sizes, present_f1, absent_f1), np.where(absent, absent_f1, present_f1)
    return (present_f1 + absent_f1) / 2


def _hits_and_misses(
    matching: Matching, predictions: np.ndarray, truth: np.ndarray, f1_thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and misses, each (n, areas, t, f) bool; a prediction that is ignored for an area, or lies in a crowd region,
    is neither.

    predictions (n,) and truth (m,) bool: those that are evaluated.
    """
    keys = [np.where(used, group, -1) for used, group in zip((predictions, truth), matching.groups, strict=True)]
    hits = np.zeros((len(predictions), len(AREAS), len(THRESHOLDS), len(f1_thresholds)), bool)
    misses = np.ones_like(hits)
    for predicted, true in batches(*keys, hits[:1].size):
        iou = matching.iou_between(predicted[:, :, None], true[:, None])
        f1 = np.ones_like(iou)
        if len(f1_thresholds) > 1:
            attributes = matching.predictions.attributes[predicted], matching.truth.attributes[true]
            f1 = f1_scores(attributes[0][:, :, None], attributes[1][:, None])
        for area, limits in enumerate(AREAS):
            out = ~_within(matching.truth.areas[true], limits)
            order = np.argsort(out, axis=1, kind="stable")
            out = np.take_along_axis(out, order, 1)
            ordered = (np.take_along_axis(values, order[:, None], 2) for values in (iou, f1))
            places = assign(*ordered, out, THRESHOLDS, f1_thresholds)
            on_ignored = out[np.arange(len(out))[:, None, None, None], places]
            hits[predicted, area] = (places >= 0) & ~on_ignored
            misses[predicted, area] = places < 0
    for area, limits in enumerate(AREAS):
        misses[~_within(matching.predictions.areas, limits), area] = False
    misses &= (matching.in_crowd[:, None] < THRESHOLDS)[:, None, :, None]
    return hits, misses


def _within(areas: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (areas >= limits[0]) & (areas <= limits[1])


def _aggregated(scores: PrecisionRecall, by_iou: bool, by_f1: bool) -> dict[str, float]:
    def value(values: np.ndarray, iou: int | None = None, f1: int | None = None) -> float:
        """Mean of values (K, T, F) at one threshold (per cent), or over all thresholds of the mode."""
        ious = _chosen(iou) if by_iou else slice(-1, None)
        f1s = _chosen(f1) if by_f1 else slice(-1, None)
        weights = np.where(scores.has_attributes & by_f1 & (f1 is None), 10, 1)
        return _mean(values[:, ious, f1s].mean((1, 2)), weights)

    every, *sizes = (scores.precision[:, area] for area in range(len(AREAS)))
    table = {"AP": value(every)}
    if by_iou:
        table |= {f"AP_IOU{iou}": value(every, iou=iou) for iou in (50, 75)}
    if by_f1:
        table |= {f"AP_F1{f1}": value(every, f1=f1) for f1 in (50, 75)}
    if by_iou and by_f1:
        table |= {f"AP_IOU{iou}_F1{f1}": value(every, iou=iou, f1=f1) for iou in (50, 75) for f1 in (50, 75)}
    table |= {f"AP{letter}": value(size) for letter, size in zip("sml", sizes, strict=True)}
    table |= {f"AR@{most}": value(scores.recall[:, 0, place]) for place, most in enumerate(MAX_DETECTIONS)}
    table |= {f"AR{letter}@100": value(scores.recall[:, area, -1]) for area, letter in enumerate("sml", 1)}
    return table


def _chosen(percent: int | None = None) -> slice:
    """Slice of THRESHOLDS: one threshold in per cent, or all but ANY."""
    if percent is None:
        return slice(0, -1)
    place = int(np.argmin(abs(THRESHOLDS - percent / 100)))
    return slice(place, place + 1)


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    valid = ~np.isnan(values)
    if not valid.any():
        return np.nan
    return float(np.average(values[valid], weights=None if weights is None else weights[valid]))
