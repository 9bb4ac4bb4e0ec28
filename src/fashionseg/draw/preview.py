"""Previews of training batches."""

from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from fashionseg.core import files, pictures
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Batches
from fashionseg.draw import overlay

COLUMNS, CELL = 4, 400  # of a sheet: pictures a row, pixels of the square that each gets


def draw_batches(batches: Batches, count: int, folder: str | Path) -> int:
    """Writes the first `count` images of training batches, augmented and with their masks, as numbered JPEGs; returns
    how many."""
    names = batches.labels.category_names
    drawn = chain.from_iterable(overlay.batch_overlays(batches[index], names) for index in range(len(batches)))
    shown = list(islice(drawn, min(count, len(batches.records))))
    with files.replacing(folder) as beside:
        beside.mkdir()
        for number, picture in enumerate(shown, 1):
            Image.fromarray(picture).save(beside / f"{number:02}.jpg", quality=90)
    return len(shown)


def sheet(folder: str | Path, path: str | Path) -> int:
    """Writes the pictures of a folder as one JPEG, in rows in the order of their names; returns how many. Raises
    UserError where it has none."""
    found = sorted(Path(folder).glob("*.jpg"))
    if not found:
        raise UserError(f"{folder} holds no .jpg; `dvc repro preview` writes them.")
    canvas = np.full((-(-len(found) // COLUMNS) * CELL, COLUMNS * CELL, 3), 255, np.uint8)
    for number, file in enumerate(found):
        picture = pictures.resized(pictures.read(file), CELL)
        y, x = number // COLUMNS * CELL, number % COLUMNS * CELL
        canvas[y : y + len(picture), x : x + picture.shape[1]] = picture
    with files.replacing(path) as beside:
        Image.fromarray(canvas).save(beside, "JPEG", quality=90)
    return len(found)
