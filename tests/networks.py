"""Networks as tests build them: by keyword, with what they seldom change left out."""

from typing import Any

from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import MaskRCNN

USUAL = {
    "weights_unused": [],
    "frozen_norm": True,
    "heads": "v1",
    "class_agnostic_boxes": False,
    "class_agnostic_masks": False,
    "box_stages": 1,
    "anchor_ratios": [0.5, 1.0, 2.0],
}


def mask_rcnn(**values: Any) -> MaskRCNN:
    return MaskRCNN(Network(**{**USUAL, **values}))
