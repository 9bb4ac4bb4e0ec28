"""submit: Kaggle's CSV from the test predictions and the post-processing, checked line by line."""

import sys

from fashionseg import params
from fashionseg.core import documents
from fashionseg.core.errors import reported
from fashionseg.submit import postprocess, submission


def main(document: str, predictions: str, post_processing: str, sample: str, path: str) -> None:
    settings = params.load("submission").submission
    test, order = documents.read(document), submission.sample_ids(sample)
    post = postprocess.read(post_processing, test)
    detections = documents.read(predictions, documents.PREDICTIONS)
    rows, dropped = submission.table(test, detections, post, order, settings)
    submission.write(path, rows, test, order, settings)
    print(f"{submission.summary(rows, dropped, test)}: {path}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
