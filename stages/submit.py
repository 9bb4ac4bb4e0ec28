"""submit: Kaggle's CSV from the test predictions and the post-processing, checked line by line."""

import sys

from fashionseg import params
from fashionseg.coco import results
from fashionseg.core import documents
from fashionseg.core.stage import running
from fashionseg.submit import postprocess, submission


def main(document: str, predictions: str, post_processing: str, sample: str, path: str) -> None:
    settings = params.load("submission").submission
    test, form = documents.read(document), submission.read_sample(sample)
    post = postprocess.read(post_processing, test)
    detections = results.read(predictions, test)
    rows, dropped = submission.table(test, detections, post, form, settings)
    submission.write(path, rows, test, form, settings)
    print(f"{submission.summary(rows, dropped, test, form)}: {path}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
