"""COCO's average precision of masks and boxes as tables: by class, by size and over recall."""

from collections import Counter

import numpy as np
import pandas as pd
from pycocotools.cocoeval import COCOeval

from fashionseg.coco.average_precision import KINDS, Document, rounded
from fashionseg.coco.results import Prediction
from fashionseg.core import documents

ALL_AREAS, MAX_DETECTIONS = 0, -1  # indices of the last two axes of COCOeval's precision
SIZES = ("small, up to 32", "medium, up to 96", "large")  # of pycocotools' areaRng, after that of all sizes


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
    names, rows = documents.names_of(document), []
    for category in document["categories"]:
        place = evaluations["segm"].params.catIds.index(category["id"])
        masks, boxes = (evaluations[kind].eval["precision"][:, :, place, ALL_AREAS, MAX_DETECTIONS] for kind in KINDS)
        rows.append(
            {
                "id": category["id"],
                "name": names[category["id"]],
                "supercategory": category.get("supercategory") or "",
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


def of_frequent(classes: pd.DataFrame, least: int) -> dict[str, float | None]:
    """From the table of `by_class`, by kind, AP over the classes with at least `least` true instances; None if there is
    none. Over all classes one of a single instance counts as much as any: on few pictures that is luck."""
    frequent = classes[classes["truth"] >= least]
    means = {kind: frequent[column].mean() for kind, column in zip(KINDS, ("AP", "box_AP"), strict=True)}
    return {kind: rounded(mean) if len(frequent) else None for kind, mean in means.items()}


def by_supercategory(classes: pd.DataFrame) -> pd.DataFrame:
    """From the table of `by_class`, one row a supercategory: sums of counts, mean AP over its classes; (none) for those
    without one."""
    sums = {"name": "count", "truth": "sum", "predictions": "sum"}
    means = {name: "mean" for name in classes.columns if "AP" in name}
    named = classes.assign(supercategory=classes["supercategory"].replace("", "(none)"))
    table = named.astype(dict.fromkeys(means, float)).groupby("supercategory", sort=False).agg(sums | means)
    return table.rename(columns={"name": "classes"}).round(5).reset_index()


def by_size(document: Document, evaluations: dict[str, COCOeval]) -> pd.DataFrame:
    """One row for each of COCO's mask sizes: side of a square of that area (pixels), truth, AP, AR100, box_AP."""
    areas = np.array([annotation["area"] for annotation in document["annotations"]])
    stats = {kind: evaluations[kind].stats for kind in KINDS}
    rows = []
    ranges = evaluations["segm"].params.areaRng[1:]
    for place, (side, (low, high)) in enumerate(zip(SIZES, ranges, strict=True)):
        rows.append(
            {
                "side": side,
                "truth": int(((areas >= low) & (areas <= high)).sum()),
                "AP": rounded(stats["segm"][3 + place]),
                "AR100": rounded(stats["segm"][9 + place]),
                "box_AP": rounded(stats["bbox"][3 + place]),
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


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return rounded(valid.mean()) if valid.size else None
