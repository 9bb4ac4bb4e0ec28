"""A trained network that is called with pictures, as `fashionseg.load` gives it."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path

import numpy as np

from fashionseg.core import documents, paths, pictures
from fashionseg.core.errors import UserError
from fashionseg.deploy.result import Result, pixels
from fashionseg.predict.config import Predict
from fashionseg.predict.inference import Predictor

Source = str | Path | np.ndarray


class Model:
    """Calling it on a picture file, a folder, a glob, an image (H, W, 3) uint8 RGB, or a list of these gives a list of
    `Result`, one a picture. Files are turned upright as their EXIF tag says. Raises UserError where one is broken.

    labels: `categories` and `attributes` with id and name, as in a COCO document. device: what it runs on.
    """

    def __init__(self, folder: Path, score: float, attribute_score: float):
        for name, value in (("score", score), ("attribute_score", attribute_score)):
            if not 0 <= value <= 1:
                raise UserError(f"{name} should be a number from 0 to 1, not {value}.")
        settings = Predict(
            batch_size=1,
            score=score,
            nms_iou=0.4,
            mask_scores=True,
            mask_threshold=0.5,
            attribute_score=attribute_score,
            flip=False,
            scales=[1.0],
            models=[],
        )
        self.predictor = Predictor([folder], settings)
        self.labels = documents.read(folder / paths.DESCRIPTION, documents.LABELS)

    def __call__(self, source: Source | Iterable[Source]) -> list[Result]:
        sources = [source] if isinstance(source, Source) else source
        return [
            self.result(picture)
            for one in sources
            for picture in ([one] if isinstance(one, np.ndarray) else find([one]))
        ]

    def result(self, picture: Path | np.ndarray) -> Result:
        """What it finds on one picture file or image."""
        image = pixels(picture)
        return Result(picture, image.shape[:2], self.predictor(image), self.labels)


def find(sources: Iterable[str | Path]) -> list[Path]:
    """The picture files that files, folders and globs name, in this order; a file that is missing stays named.

    Raises UserError for a folder or a glob without pictures, and for a name that is empty, as an unset variable.
    """
    names, found = list(sources), []
    if "" in names:
        raise UserError("a picture's name is empty; name a file, a folder or a glob.")
    for source in map(Path, names):
        if source.is_dir():
            paths = pictures.find(source)
            others = sorted({entry for entry in source.iterdir() if entry.name[0] != "."} - {*paths})
            if paths and others:
                print(f"{source}: {len(others)} others than pictures are passed over, the first {others[0].name!a}")
        elif not source.exists() and set(str(source)) & set("*?["):
            paths = [path for path in map(Path, sorted(glob(str(source), recursive=True))) if path.is_file()]
        else:
            paths = [source]
        if not paths:
            raise UserError(f"{source} holds no picture; formats are {', '.join(sorted(pictures.SUFFIXES))}.")
        found += paths
    return found
