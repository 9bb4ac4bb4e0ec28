"""What goes wrong: which class is taken for which, and what each kind of error costs."""

from typing import Any

import numpy as np
import pandas as pd

from fashionseg.evaluate.matching import IOU, SHOWN_SCORE, Matching, average_precision

BACKGROUND_IOU = 0.1  # TIDE's: up to here a prediction touches no instance worth the name
MISSED, INVENTED = "(missed)", "(invented)"  # the brackets sort them before the classes


def confusion(matching: Matching, document: dict[str, Any]) -> pd.DataFrame:
    """How often (`count`) instances of the class `truth` are predicted as `predicted`, the most frequent pair first.

    Of the predictions of SHOWN_SCORE or more each first takes an instance of its own class (`Matching.matched`); those
    left then take what is left of any class, from IoU 0.5 on and best score first. What remains is missed or invented.
    """
    names = np.array([category["name"].partition(",")[0] for category in document["categories"]], object)
    shown = matching.predictions.scores >= SHOWN_SCORE
    matched = np.where(shown, matching.matched, -1)
    left = np.where(np.isin(np.arange(len(matching.truth)), matched), -1, matching.truth.images)
    idle = np.where(shown & (matched < 0), matching.predictions.images, -1)
    matched = np.maximum(matched, matching.greedy(idle, left))
    found = np.flatnonzero(matched >= 0)
    predicted = np.full(len(matching.truth), MISSED, object)
    predicted[matched[found]] = names[matching.predictions.classes[found]]
    invented = names[matching.predictions.classes[shown & (matched < 0)]]
    pairs = pd.DataFrame(
        {
            "truth": [*names[matching.truth.classes], *[INVENTED] * len(invented)],
            "predicted": [*predicted, *invented],
        }
    )
    return pairs.value_counts().reset_index()


def breakdown(matching: Matching) -> pd.DataFrame:
    """Six kinds of error at IoU 0.5: `error`, `count` and `dAP`, what AP50 would gain if just this kind were mended.

    class: on an instance of another class; location: on one of its own, but at IoU 0.1 to 0.5; both; duplicate: the
    instance was found already; background: on nothing; missed: an instance that no error of the first two kinds
    stands for. A class or location error is mended by making the best prediction for an instance that was not found a
    hit and by dropping the others, a missed instance by not asking for it, the rest by dropping it. Source: Bolya et
    al., TIDE (2020), and its package `tidecv`; but as in COCO the classes without truth have no part in the mean.
    """
    predictions, truth, hit = matching.predictions, matching.truth, matching.matched >= 0
    used = np.isin(np.arange(len(truth)), matching.matched)
    prediction, true = matching.pairs
    own_class = predictions.classes[prediction] == truth.classes[true]
    own_iou, own = _best(matching, own_class)
    other_iou, other = _best(matching, ~own_class)
    any_iou, _ = _best(matching, np.ones_like(own_class))
    near = (own_iou >= BACKGROUND_IOU) & (own_iou <= IOU)
    kinds = np.select(
        [hit, near, other_iou >= IOU, own_iou >= IOU, any_iou <= BACKGROUND_IOU],
        ["", "location", "class", "duplicate", "background"],
        "both",
    )
    meant = np.select([kinds == "location", kinds == "class"], [own, other], -1)
    hopeful = np.flatnonzero(np.isin(meant, np.flatnonzero(~used)))
    mended, first = np.unique(meant[hopeful], return_index=True)  # the best prediction of an image comes first
    saved = np.isin(np.arange(len(predictions)), hopeful[first])
    classes = predictions.classes.copy()
    classes[saved] = truth.classes[meant[saved]]
    missed = np.setdiff1d(np.flatnonzero(~used), mended)

    everything, nothing = np.ones_like(hit), np.zeros(0, int)
    before = _mean_precision(matching, predictions.classes, hit, everything, nothing)
    rows = []
    for kind in ("class", "location", "both", "duplicate", "background"):
        now = saved & (kinds == kind)
        kept = (kinds != kind) | now
        after = _mean_precision(matching, np.where(now, classes, predictions.classes), hit | now, kept, nothing)
        rows.append((kind, int((kinds == kind).sum()), after))
    rows.append(("missed", len(missed), _mean_precision(matching, predictions.classes, hit, everything, missed)))
    table = pd.DataFrame(rows, columns=["error", "count", "dAP"])
    return table.assign(dAP=(table["dAP"] - before).clip(lower=0).round(5))


def confident(matching: Matching, document: dict[str, Any]) -> pd.DataFrame:
    """Predictions of SHOWN_SCORE or more that overlap no true instance of their class by IoU 0.5, best score first.

    prediction: its place in `predictions` as `compare` got them, sorted by image id and falling score; image_id, name,
    score; IoU: the largest with its own class; other, other_IoU: the true instance of another class that it overlaps
    most, "" and 0 where there is none.
    """
    predictions, truth = matching.predictions, matching.truth
    prediction, true = matching.pairs
    own_class = predictions.classes[prediction] == truth.classes[true]
    own_iou, _ = _best(matching, own_class)
    other_iou, other = _best(matching, ~own_class)
    wrong = np.flatnonzero((predictions.scores >= SHOWN_SCORE) & (own_iou < IOU))
    wrong = wrong[np.argsort(-predictions.scores[wrong], kind="stable")]
    names = np.array([*(category["name"].partition(",")[0] for category in document["categories"]), ""], object)
    classes = np.append(truth.classes, -1)[other[wrong]]  # -1, no other instance, has the empty name at the end
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
    """IoU (n,) and place (n,) of the true instance that each prediction overlaps most; 0 and -1 without overlap.

    among (p,) bool: the pairs to choose from.
    """
    prediction, true = matching.pairs
    among = np.flatnonzero(among & (matching.iou > 0))
    order = among[np.lexsort((true[among], -matching.iou[among], prediction[among]))]
    having, first = np.unique(prediction[order], return_index=True)
    iou, place = np.zeros(len(matching.predictions)), np.full(len(matching.predictions), -1)
    iou[having], place[having] = matching.iou[order[first]], true[order[first]]
    return iou, place


def _mean_precision(
    matching: Matching, classes: np.ndarray, hit: np.ndarray, kept: np.ndarray, unasked: np.ndarray
) -> float:
    """AP50, mean over the classes with truth, of predictions changed in class, hit (n,) and kept (n,).

    unasked: places of true instances that are not counted. A class of which neither these nor predictions are left
    has no part in the mean.
    """
    values = []
    for class_ in np.unique(matching.truth.classes):
        rows = np.flatnonzero(kept & (classes == class_))
        rows = rows[np.argsort(-matching.predictions.scores[rows], kind="stable")]
        count = np.sum(matching.truth.classes == class_) - np.sum(matching.truth.classes[unasked] == class_)
        if count:
            values.append(float(average_precision(hit[rows], ~hit[rows], count)))
        elif len(rows):
            values.append(0.0)
    return float(np.mean(values)) if values else 0.0
