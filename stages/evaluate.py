"""evaluate: COCO AP, Fashionpedia's AP_IoU+F1, what goes wrong, and overlays on the validation images."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.core import documents, files
from fashionseg.core.errors import reported
from fashionseg.evaluate import plots
from fashionseg.evaluate.scores import report


def main(document: str, predictions: str, images: str, results: str, metrics: str) -> None:
    settings = params.load("evaluate").evaluate
    truth, found = documents.read(document), documents.read(predictions, documents.PREDICTIONS)
    values, tables, evaluations = report(truth, found, settings.attribute_score)
    with files.replacing(results) as beside:
        for name, table in tables.items():
            files.write_csv(beside / f"{name}.csv", table)
        scores = plots.image_scores(evaluations["segm"])
        chosen = tables["wrong"], settings.pictures
        drawn = plots.pictures(truth, found, Path(images), scores, *chosen, beside / "pictures")
        files.write_csv(beside / "pictures.csv", drawn)
    files.write_json(metrics, values, indent=1)
    for kind, row in values.items():
        print(kind, *(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in row.items()))
    if "attributes" not in values:
        print("no attributes in truth or predictions: AP_IoU+F1 and F1 by attribute are left out")
    print(f"scores in {metrics}, tables, curves and overlays in {results}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
