"""Errors: confusion of classes, what each kind of error costs, and confident false positives."""

from typing import Any

import numpy as np
import pandas as pd

from fashionseg.core import documents
from fashionseg.evaluate.matching import IOU_THRESHOLD, SHOWN_SCORE, Matching, average_precision

BACKGROUND_IOU = 0.1  # TIDE's: with at most this IoU a prediction counts as background
MISSED, FALSE_POSITIVE = "(missed)", "(invented)"  # values in confusion.csv; brackets sort them before the classes


def confusion(matching: Matching, document: dict[str, Any]) -> pd.DataFrame:
    """How often (`count`) instances of the class `truth` are predicted as `predicted`, the most frequent pair first.

    Predictions of at least SHOWN_SCORE are first matched within their class (`Matching.matched`), then the others with
    the remaining true instances of any class, at IoU >= 0.5 and highest score first. What remains is MISSED or a false
    positive, but in a crowd region of its class.
    """
    names = np.array([*documents.names_of(document).values()], object)
    shown = (matching.predictions.scores >= SHOWN_SCORE) & ~matching.ignored
    matched = np.where(shown, matching.matched, -1)
    left = np.where(np.isin(np.arange(len(matching.truth)), matched), -1, matching.truth.images)
    idle = np.where(shown & (matched < 0), matching.predictions.images, -1)
    matched = np.maximum(matched, matching.greedy(idle, left))
    pairs = np.flatnonzero(matched >= 0)
    predicted = np.full(len(matching.truth), MISSED, object)
    predicted[matched[pairs]] = names[matching.predictions.classes[pairs]]
    false_positives = names[matching.predictions.classes[shown & (matched < 0)]]
    confused = pd.DataFrame(
        {
            "truth": [*names[matching.truth.classes], *[FALSE_POSITIVE] * len(false_positives)],
            "predicted": [*predicted, *false_positives],
        }
    )
    return confused.value_counts().reset_index()


def breakdown(matching: Matching) -> pd.DataFrame:
    """Six kinds of error at IoU 0.5: `error`, `count` and `dAP`, the gain in AP50 if only this kind were corrected.

    class: matches an instance of another class; location: IoU 0.1 to 0.5 with an instance of its class; both: IoU 0.1
    to 0.5 with an instance of another class; duplicate: its instance is matched already; background: IoU <= 0.1;
    missed: a true instance that is neither matched nor the target of a class or location error. Correcting a class or
    location error turns the best prediction of an unmatched instance into a hit and drops the others; a missed instance
    is taken out of the truth; other errors are dropped. Source: Bolya et al., TIDE (2020), and its package `tidecv`;
    but, as in COCO, classes without truth do not count in the mean, and predictions in crowd regions are no errors.
    """
    predictions, truth, hit = matching.predictions, matching.truth, matching.matched >= 0
    used = np.isin(np.arange(len(truth)), matching.matched)
    prediction, true = matching.pairs
    own_class = predictions.classes[prediction] == truth.classes[true]
    own_iou, own = _best(matching, own_class)
    other_iou, other = _best(matching, ~own_class)
    any_iou, _ = _best(matching, np.ones_like(own_class))
    near = (own_iou >= BACKGROUND_IOU) & (own_iou <= IOU_THRESHOLD)
    kinds = np.select(
        [hit | matching.ignored, near, other_iou >= IOU_THRESHOLD, own_iou >= IOU_THRESHOLD, any_iou <= BACKGROUND_IOU],
        ["", "location", "class", "duplicate", "background"],
        "both",
    )
    target = np.select([kinds == "location", kinds == "class"], [own, other], -1)
    correctable = np.flatnonzero(np.isin(target, np.flatnonzero(~used)))
    corrected, first = np.unique(target[correctable], return_index=True)  # predictions are ordered by falling score
    new_hit = np.isin(np.arange(len(predictions)), correctable[first])
    classes = predictions.classes.copy()
    classes[new_hit] = truth.classes[target[new_hit]]
    missed = np.setdiff1d(np.flatnonzero(~used), corrected)

    everything, nothing = ~matching.ignored, np.zeros(0, int)
    before = _mean_precision(matching, predictions.classes, hit, everything, nothing)
    rows = []
    for kind in ("class", "location", "both", "duplicate", "background"):
        now = new_hit & (kinds == kind)
        kept = everything & ((kinds != kind) | now)
        after = _mean_precision(matching, np.where(now, classes, predictions.classes), hit | now, kept, nothing)
        rows.append((kind, int((kinds == kind).sum()), after))
    rows.append(("missed", len(missed), _mean_precision(matching, predictions.classes, hit, everything, missed)))
    table = pd.DataFrame(rows, columns=["error", "count", "dAP"])
    return table.assign(dAP=(table["dAP"] - before).clip(lower=0).round(5))


def confident_mistakes(matching: Matching, document: dict[str, Any]) -> pd.DataFrame:
    """Predictions of at least SHOWN_SCORE with IoU < 0.5 with all true instances of their class and in no crowd region
    of it, highest score first.

    prediction: its index in the predictions sorted by image id and falling score; image_id, name, score; IoU: the
    highest with its own class; other, other_IoU: class and IoU of the true instance of another class with the highest
    IoU, "" and 0 without any.
    """
    predictions, truth = matching.predictions, matching.truth
    prediction, true = matching.pairs
    own_class = predictions.classes[prediction] == truth.classes[true]
    own_iou, _ = _best(matching, own_class)
    other_iou, other = _best(matching, ~own_class)
    shown = (predictions.scores >= SHOWN_SCORE) & ~matching.ignored
    wrong = np.flatnonzero(shown & (own_iou < IOU_THRESHOLD))
    wrong = wrong[np.argsort(-predictions.scores[wrong], kind="stable")]
    names = np.array([*documents.names_of(document).values(), ""], object)
    classes = np.append(truth.classes, -1)[other[wrong]]  # without another instance -1, the empty name
    return pd.DataFrame(
        {
            "prediction": wrong,
            "image_id": np.sort([image["id"] for image in document["images"]])[predictions.images[wrong]],
            "name": names[predictions.classes[wrong]],
            "score": predictions.scores[wrong],
            "IoU": own_iou[wrong].round(5),
            "other": names[classes],
            "other_IoU": other_iou[wrong].round(5),
        }
    )


def _best(matching: Matching, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU of each prediction (n,) and the true instance (n,) that has it; 0 and -1 without overlap.

    among (p,) bool: the pairs of `Matching.pairs` to choose from.
    """
    prediction, true = matching.pairs
    among = np.flatnonzero(among & (matching.iou > 0))
    order = among[np.lexsort((true[among], -matching.iou[among], prediction[among]))]
    having, first = np.unique(prediction[order], return_index=True)
    iou, place = np.zeros(len(matching.predictions)), np.full(len(matching.predictions), -1)
    iou[having], place[having] = matching.iou[order[first]], true[order[first]]
    return iou, place


def _mean_precision(
    matching: Matching, classes: np.ndarray, hit: np.ndarray, kept: np.ndarray, left_out: np.ndarray
) -> float:
    """AP50, mean over the classes with truth, for changed predictions: classes, hit, kept (n,).

    left_out: indices of true instances that do not count. A class left without truth and predictions does not count in
    the mean.
    """
    values = []
    for class_ in np.unique(matching.truth.classes):
        rows = np.flatnonzero(kept & (classes == class_))
        rows = rows[np.argsort(-matching.predictions.scores[rows], kind="stable")]
        count = np.sum(matching.truth.classes == class_) - np.sum(matching.truth.classes[left_out] == class_)
        if count:
            values.append(float(average_precision(hit[rows], ~hit[rows], count)))
        elif len(rows):
            values.append(0.0)
    return float(np.mean(values)) if values else 0.0
