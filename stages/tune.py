"""tune: chooses the post-processing of predictions on the validation images."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.coco import results
from fashionseg.core import documents, files
from fashionseg.core.stage import running
from fashionseg.submit import postprocess, submission
from fashionseg.submit.tune.cross_validation import tune


def main(
    training: str, document: str, sample: str, predictions: str, post_processing: str, tables: str, metrics: str
) -> None:
    settings = params.load("tune", "submission", "seed", "machine")
    pairs = postprocess.attribute_pairs(documents.read(training))  # first: the document is large and not kept
    truth = documents.read(document)
    found = results.read(predictions, truth)
    options = {
        "filler_class": submission.read_sample(sample).filler_class,
        "seed": settings.seed,
        "workers": settings.machine.workers,
    }
    tuned = tune(truth, found, pairs, settings.tune, settings.submission, **options)
    notes = {"formula": settings.tune.formula, "strategy": tuned.strategy, "values": tuned.scores}
    postprocess.write(post_processing, tuned.post, notes)
    for name, table in tuned.tables.items():
        files.write_csv(Path(tables) / f"{name}.csv", table)
    files.write_json(metrics, tuned.scores, indent=1)
    print(tuned.tables["strategies"].round(4).to_string(index=False))
    score = f"cross-validated score {tuned.scores['value']:.4f}"
    print(f"{settings.tune.formula}: strategy {tuned.strategy}, {score}: {post_processing}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
