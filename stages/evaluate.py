"""evaluate: COCO AP, Fashionpedia's AP_IoU+F1, errors by kind, and overlays, on the validation images."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.coco import results
from fashionseg.core import documents, files
from fashionseg.core.stage import running
from fashionseg.evaluate import overlays
from fashionseg.evaluate.scores import compute_scores


def main(document: str, predictions: str, images: str, folder: str, metrics: str) -> None:
    settings = params.load("evaluate").evaluate
    truth = documents.read(document)
    detections = results.read(predictions, truth, results.COCO_KEYS)
    values, tables, evaluations = compute_scores(truth, detections, settings.attribute_score)
    with files.replacing(folder) as beside:
        for name, table in tables.items():
            files.write_csv(beside / f"{name}.csv", table)
        found, wrong = overlays.image_scores(evaluations["segm"]), tables["wrong"]
        drawn = overlays.draw_overlays(
            truth, detections, Path(images), beside / "pictures", scores=found, wrong=wrong, count=settings.pictures
        )
        files.write_csv(beside / "pictures.csv", drawn)
    files.write_json(metrics, values, indent=1)
    for kind, row in values.items():
        print(kind, *(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in row.items()))
    if "attributes" not in values:
        print("no attributes in truth or in predictions: AP_IoU+F1 and F1 by attribute are left out")
    print(f"scores in {metrics}, tables, curves and overlays in {folder}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
