"""preview: training pictures as the network sees them, augmented, with their masks."""

import sys

from fashionseg import params
from fashionseg.core import backend, documents
from fashionseg.core.stage import running

PICTURES = 16


def main(document: str, raw: str, images: str, folder: str) -> None:
    config = params.load("seed", "images", "augment", "train", "machine")
    backend.choose(config.machine.backend)
    from fashionseg.data.batches import Batches
    from fashionseg.draw import preview

    batches = Batches(
        documents.read(document),
        images,
        side=config.images.side,
        batch_size=config.train.batch_size,
        instances=config.train.instances,
        augmentation=config.augment,
        seed=config.seed,
        shuffle=True,
        repeat_threshold=config.train.repeat_threshold,
        raw=raw,
    )
    print(f"{preview.draw_batches(batches, PICTURES, folder)} training pictures as the network sees them: {folder}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
