"""Previews of training batches."""

from itertools import chain, islice
from pathlib import Path

from PIL import Image

from fashionseg.core import files
from fashionseg.data.batches import Batches
from fashionseg.draw import overlay


def draw_batches(batches: Batches, count: int, folder: str | Path) -> int:
    """Writes the first `count` images of training batches, augmented and with their masks, as numbered JPEGs; returns
    how many."""
    drawn = chain.from_iterable(overlay.batch_overlays(batches[index], batches.names) for index in range(len(batches)))
    pictures = list(islice(drawn, min(count, len(batches.records))))
    with files.replacing(folder) as beside:
        beside.mkdir()
        for number, picture in enumerate(pictures, 1):
            Image.fromarray(picture).save(beside / f"{number:02}.jpg", quality=90)
    return len(pictures)
