"""evaluate: COCO AP, curves and overlays on the validation images."""

import sys
from pathlib import Path

from fashionseg import io, params
from fashionseg.errors import reported
from fashionseg.evaluation import coco, plots


def main(document: str, predictions: str, images: str, results: str, metrics: str) -> None:
    settings = params.load("evaluate").evaluate
    truth, found = io.read_json(document), io.read_json(predictions)
    evaluations = coco.evaluate(truth, found)
    summaries = {kind: coco.summary(evaluation) for kind, evaluation in evaluations.items()}
    with io.replacing(results) as beside:
        io.write_csv(beside / "ap_by_class.csv", coco.by_class(truth, evaluations, found))
        io.write_csv(beside / "precision_recall.csv", coco.precision_recall(evaluations["segm"]))
        scores = plots.image_scores(evaluations["segm"])
        plots.pictures(truth, found, Path(images), scores, settings.pictures, beside / "pictures")
    io.write_json(metrics, summaries, indent=1)
    for kind, values in summaries.items():
        print(kind, *(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items()))
    print(f"scores in {metrics}, curves and overlays in {results}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
