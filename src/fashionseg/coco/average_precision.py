"""COCO's average precision by pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashionseg.coco.results import Prediction

Document = dict[str, Any]

KINDS = ("segm", "bbox")
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR100": 8}  # indices of COCOeval.stats

CATEGORIES = 8  # evaluated at a time
CATEGORY_AXES = {"precision": 2, "recall": 1, "scores": 2}  # of the arrays in COCOeval.eval


def evaluate(document: Document, predictions: list[Prediction]) -> dict[str, COCOeval]:
    """pycocotools' evaluation of masks (`segm`) and boxes (`bbox`), accumulated and summarised.

    document: COCO with ground truth; predictions: COCO results.
    """
    return {kind: evaluate_kind(document, predictions, kind) for kind in KINDS}


def summary(evaluation: COCOeval) -> dict[str, float | None]:
    """AP, AP50, AP75, APs, APm, APl and AR100 as COCO defines them; None without ground truth of that size."""
    return {name: rounded(evaluation.stats[index]) for name, index in STATS.items()}


def evaluate_kind(document: Document, predictions: list[Prediction], kind: str) -> COCOeval:
    """As `evaluate`, for one kind.

    Some categories at a time: the results of single images, a million for a fold of the competition, would take
    gigabytes. `evalImgs` holds those of all sizes alone, without the empty ones; `eval` precision, recall and scores.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(document)
        if predictions:
            # loadRes takes the area of a result's box where there is one, also for masks.
            kept = [{k: v for k, v in p.items() if kind == "bbox" or k != "bbox"} for p in predictions]
            results = truth.loadRes(kept)
        else:
            results = _coco({**document, "annotations": [], "crowds": []})  # loadRes fails for an empty list
        evaluation = COCOeval(truth, results, kind)
        params = evaluation.params
        categories, parts, of_images = params.catIds, [], []
        for start in range(0, len(categories), CATEGORIES):
            params.catIds = categories[start : start + CATEGORIES]
            evaluation.evaluate()
            evaluation.accumulate()
            parts.append(evaluation.eval)
            of_images += [one for one in evaluation.evalImgs if one and one["aRng"] == params.areaRng[0]]
        params.catIds, evaluation.evalImgs = categories, of_images
        evaluation.eval = {
            name: np.concatenate([part[name] for part in parts], axis) for name, axis in CATEGORY_AXES.items()
        }
        evaluation.summarize()
    for name in ("cocoGt", "cocoDt", "_gts", "_dts", "ious"):  # nobody reads these copies of all predictions
        setattr(evaluation, name, None)
    return evaluation


def _coco(document: Document) -> COCO:
    coco = COCO()
    coco.dataset = {**document, "annotations": [*document["annotations"], *document.get("crowds", [])]}
    coco.createIndex()
    return coco


def rounded(value: float) -> float | None:
    """Rounded to five digits; None for -1, COCO's value for undefined."""
    return round(float(value), 5) if value > -1 else None
