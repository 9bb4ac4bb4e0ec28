"""submit: Kaggle's CSV from the test predictions, checked line by line."""

import sys

from fashionseg import params
from fashionseg.core import documents
from fashionseg.core.errors import reported
from fashionseg.submit import postprocess, submission


def main(document: str, predictions: str, claims: str, sample: str, path: str) -> None:
    settings = params.load("submission").submission
    test, order = documents.read(document), submission.sample_ids(sample)
    found = documents.read(predictions, documents.PREDICTIONS)
    rows = submission.table(test, found, postprocess.read(claims, test), order, settings)
    submission.write(path, rows, test, order, settings)
    print(f"{submission.counted(rows, test)}: {path}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
