"""train: Mask R-CNN; a killed run goes on from checkpoints/."""

import os
import sys

from fashionseg import params
from fashionseg.core.errors import reported


def main(train_document: str, val_document: str, images: str, models: str, results: str) -> None:
    config = params.load("seed", "images", "model", "augment", "train", "machine")
    os.environ.setdefault("KERAS_BACKEND", config.machine.backend)  # Keras reads both when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from fashionseg.train import trainer

    trainer.train(config, train_document, val_document, images, models, results, checkpoints="checkpoints")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
