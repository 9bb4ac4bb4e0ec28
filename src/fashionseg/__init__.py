"""A trained network in three lines:

from fashionseg import load
model = load("models")
results = model("photo.jpg")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashionseg.deploy.model import Model


def load(folder: str | Path = "models", *, score: float = 0.5, attribute_score: float = 0.5) -> Model:
    """The trained network of a folder with mask_rcnn.json and mask_rcnn.weights.h5, ready for pictures.

    It finds instances of at least `score`, with attributes of at least `attribute_score`, both 0..1. Runs on the
    backend that Keras runs on already, on that of KERAS_BACKEND, or on the one that is installed. Raises UserError
    where there is no trained network. Keras is imported here and not before, since workers import this package, too.
    """
    from fashionseg.core import backend

    backend.choose(backend.available())
    from fashionseg.deploy.model import Model

    return Model(Path(folder), score, attribute_score)
