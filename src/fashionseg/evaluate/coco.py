"""COCO's average precision of masks and boxes by pycocotools: overall, by class, by size and over recall."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashionseg.predict.results import COCO_KEYS, Prediction, check_predictions

Document = dict[str, Any]

KINDS = ("segm", "bbox")
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR100": 8}  # indices of COCOeval.stats
ALL_AREAS, MAX_DETECTIONS = 0, -1  # indices of the last two axes of COCOeval's precision
SIZES = {"small, up to 32": (0, 32**2), "medium, up to 96": (32**2, 96**2), "large": (96**2, 1e10)}  # pixels of area


def evaluate(document: Document, predictions: list[Prediction]) -> dict[str, COCOeval]:
    """pycocotools' evaluation of masks (`segm`) and of boxes (`bbox`), accumulated and summarised.

    document: COCO with the truth; predictions: COCO results. Raises UserError as `results.check_predictions`.
    """
    check_predictions(predictions, document, COCO_KEYS)
    return {kind: _evaluated(document, predictions, kind) for kind in KINDS}


def summary(evaluation: COCOeval) -> dict[str, float | None]:
    """AP, AP50, AP75, APs, APm, APl and AR100 as COCO defines them; None without truth of that size."""
    return {name: _rounded(evaluation.stats[place]) for name, place in STATS.items()}


def by_class(
    document: Document,
    evaluations: dict[str, COCOeval],
    predictions: list[Prediction],
    iou_f1: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row a category that occurs in truth or predictions.

    id, name, supercategory, truth and predictions (counts), AP, AP50, box_AP; AP_IoU_F1 where iou_f1 (K,) is given.
    """
    true = Counter(annotation["category_id"] for annotation in document["annotations"])
    predicted = Counter(prediction["category_id"] for prediction in predictions)
    rows = []
    for category in document["categories"]:
        place = evaluations["segm"].params.catIds.index(category["id"])
        masks, boxes = (evaluations[kind].eval["precision"][:, :, place, ALL_AREAS, MAX_DETECTIONS] for kind in KINDS)
        rows.append(
            {
                "id": category["id"],
                "name": category["name"].partition(",")[0],
                "supercategory": category.get("supercategory", ""),
                "truth": true[category["id"]],
                "predictions": predicted[category["id"]],
                "AP": _mean(masks),
                "AP50": _mean(masks[0]),
                "box_AP": _mean(boxes),
            }
        )
    table = pd.DataFrame(rows)
    if iou_f1 is not None:
        table["AP_IoU_F1"] = iou_f1.round(5)
    return table[(table["truth"] > 0) | (table["predictions"] > 0)]


def by_supercategory(classes: pd.DataFrame) -> pd.DataFrame:
    """From the table of `by_class`, one row a supercategory: sums of counts, mean AP over its classes."""
    sums = {"name": "count", "truth": "sum", "predictions": "sum"}
    means = {name: "mean" for name in classes.columns if "AP" in name}
    table = classes.astype(dict.fromkeys(means, float)).groupby("supercategory", sort=False).agg(sums | means)
    return table.rename(columns={"name": "classes"}).round(5).reset_index()


def by_size(document: Document, evaluations: dict[str, COCOeval]) -> pd.DataFrame:
    """One row for each of COCO's mask sizes: side of a square of that area (pixels), truth, AP, AR100, box_AP."""
    areas = np.array([annotation["area"] for annotation in document["annotations"]])
    stats = {kind: evaluations[kind].stats for kind in KINDS}
    rows = []
    for place, (side, (low, high)) in enumerate(SIZES.items()):
        rows.append(
            {
                "side": side,
                "truth": int(((areas >= low) & (areas <= high)).sum()),
                "AP": _rounded(stats["segm"][3 + place]),
                "AR100": _rounded(stats["segm"][9 + place]),
                "box_AP": _rounded(stats["bbox"][3 + place]),
            }
        )
    return pd.DataFrame(rows)


def precision_recall(evaluation: COCOeval) -> pd.DataFrame:
    """Precision at 101 recalls, mean over the classes: at IoU 0.50, at IoU 0.75, and mean over IoU 0.50:0.95."""
    precision = evaluation.eval["precision"][:, :, :, ALL_AREAS, MAX_DETECTIONS]
    curves = {"IoU 0.50": precision[:1], "IoU 0.75": precision[5:6], "IoU 0.50:0.95": precision}
    return pd.DataFrame(
        {
            "recall": evaluation.params.recThrs,
            **{name: [_mean(curve[:, recall]) for recall in range(curve.shape[1])] for name, curve in curves.items()},
        }
    )


def _evaluated(document: Document, predictions: list[Prediction], kind: str) -> COCOeval:
    with _silence():
        truth = _coco(document)
        if predictions:
            # For a result with a box, loadRes takes the area of the box, for masks too.
            kept = [{k: v for k, v in p.items() if kind == "bbox" or k != "bbox"} for p in predictions]
            results = truth.loadRes(kept)
        else:
            results = _coco({**document, "annotations": [], "crowds": []})  # loadRes fails for an empty list
        evaluation = COCOeval(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _coco(document: Document) -> COCO:
    coco = COCO()
    coco.dataset = {**document, "annotations": [*document["annotations"], *document.get("crowds", [])]}
    coco.createIndex()
    return coco


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return _rounded(valid.mean()) if valid.size else None


def _rounded(value: float) -> float | None:
    return round(float(value), 5) if value > -1 else None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
