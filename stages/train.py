"""train: Mask R-CNN; a killed run, a queued one, too, goes on from the project's checkpoints/."""

import sys

from fashionseg import params
from fashionseg.core import backend, paths
from fashionseg.core.stage import running


def main(train_document: str, val_document: str, raw: str, images: str, models: str, results: str) -> None:
    config = params.load("seed", "images", "model", "augment", "train", "machine")
    backend.choose(config.machine.backend, config.model.fpn_channels)
    from fashionseg.train import trainer

    checkpoints = paths.project() / "checkpoints"
    trainer.train(
        config, train_document, val_document, images, raw=raw, models=models, results=results, checkpoints=checkpoints
    )


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
