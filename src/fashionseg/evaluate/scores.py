"""All metrics and tables of the validation images, from truth and predictions."""

from typing import Any

import pandas as pd

from fashionseg.coco import average_precision
from fashionseg.evaluate import ap_tables, attributes, mistakes
from fashionseg.evaluate.matching import match

Metrics = dict[str, dict[str, float | None]]


def compute_scores(
    document: dict[str, Any], predictions: list[dict[str, Any]], attribute_score: float
) -> tuple[Metrics, dict[str, pd.DataFrame], dict[str, Any]]:
    """Metrics, tables by file name, and pycocotools' evaluations.

    document: COCO with the truth; predictions: COCO results, whose attributes count if their score is at least
    `attribute_score`. Without attributes the metrics `iou_f1` and `attributes` are left out and their plotted tables
    are empty.
    """
    evaluations = average_precision.evaluate(document, predictions)
    matching = match(document, predictions, attribute_score)
    metrics = {kind: average_precision.summary(evaluation) for kind, evaluation in evaluations.items()}
    tables, iou_f1, attribute_table = {}, None, attributes.by_attribute(matching, document)
    if attributes.measurable(document, predictions):
        scores = attributes.evaluate(matching, attributes.with_attributes(document))
        iou_f1 = attributes.by_class(scores)
        metrics["iou_f1"] = attributes.summary(scores)
        metrics["attributes"] = {"macro_f1": attributes.macro_f1(attribute_table)}
        tables["iou_f1"] = pd.DataFrame(attributes.aggregates(scores)).round(5).rename_axis("name").reset_index()
    else:
        attribute_table = attribute_table.head(0)
    classes = ap_tables.by_class(document, evaluations, predictions, iou_f1)
    for kind, ap in ap_tables.of_frequent(classes, attributes.FREQUENT).items():
        metrics[kind]["AP_frequent"] = ap
    tables |= {
        "precision_recall": ap_tables.precision_recall(evaluations["segm"]),
        "ap_by_class": classes,
        "ap_by_supercategory": ap_tables.by_supercategory(classes),
        "ap_by_size": ap_tables.by_size(document, evaluations),
        "attributes": attribute_table,
        "attribute_groups": attributes.by_supercategory(attribute_table),
        "confusion": mistakes.confusion(matching, document),
        "errors": mistakes.breakdown(matching),
        "wrong": mistakes.confident_mistakes(matching, document),
    }
    return metrics, tables, evaluations
