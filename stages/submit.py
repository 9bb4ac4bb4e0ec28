"""submit: Kaggle's CSV from the test predictions, checked line by line."""

import sys

from fashionseg import claims, io, params, submission
from fashionseg.errors import UserError, reported


def main(document: str, predictions: str, rule: str, sample: str, path: str) -> None:
    settings = params.load("submission").submission
    test, order = io.read_json(document), submission.sample_ids(sample)
    rows = submission.table(test, io.read_json(predictions), claims.read_rule(rule), order, settings)
    io.write_csv(path, rows)
    if faults := submission.check(path, test, order, settings):
        raise UserError(f"{path} has {len(faults)} faults, the first: {faults[0]}.")
    print(f"{submission.counted(rows, test)}: {path}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
