"""submit: Kaggle's CSV from the test predictions, checked line by line."""

import sys

from fashionseg import io, params, submission
from fashionseg.claiming import rule
from fashionseg.errors import reported


def main(document: str, predictions: str, claims: str, sample: str, path: str) -> None:
    settings = params.load("submission").submission
    test, order = io.read_json(document), submission.sample_ids(sample)
    rows = submission.table(test, io.read_json(predictions), rule.read(claims, test), order, settings)
    submission.write(path, rows, test, order, settings)
    print(f"{submission.counted(rows, test)}: {path}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
