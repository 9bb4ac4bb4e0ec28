"""A trained network, small and with random weights, in a folder and ready for use."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import fashionseg
from fashionseg.core import files
from fashionseg.deploy.model import Model
from fashionseg.model import box_head, efficientnet_lite
from networks import USUAL, mask_rcnn

RECIPE = USUAL | {
    "backbone": "efficientnet_lite0", "weights": "random", "frozen_stages": 0, "side": 64, "classes": 2,
    "fpn_channels": 8, "anchor_side": 16, "proposals": 8, "detections": 4, "attributes": "linear",
    "attribute_count": 3, "precision": "float32", "rois": 8, "seed": 0,
}  # fmt: skip
LABELS = {
    "categories": [{"id": 40, "name": "vest"}, {"id": 41, "name": "cape"}],
    "attributes": [{"id": 7, "name": "maxi"}, {"id": 9, "name": "mini"}, {"id": 30, "name": "striped"}],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Path]:
    """A folder as training leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite, "LITE_BLOCKS", [(1, *row[1:]) for row in efficientnet_lite.LITE_BLOCKS])
        patch.setattr(box_head, "DENSE", 32)
        folder = tmp_path_factory.mktemp("models")
        mask_rcnn(**RECIPE).save_weights(folder / "mask_rcnn.weights.h5")
        files.write_json(folder / "mask_rcnn.json", {"network": RECIPE, **LABELS})
        yield folder


@pytest.fixture(scope="module")
def model(trained) -> Model:
    return fashionseg.load(trained, score=0.1, attribute_score=0.0)


@pytest.fixture
def image() -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (80, 60), interpolation=cv2.INTER_LINEAR)
