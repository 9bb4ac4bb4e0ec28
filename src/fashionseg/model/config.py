"""The section `model` of params.yaml, and the full configuration of a network."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from fashionseg.core.fields import Count, Range

LOSSES = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask", "attributes")  # the last with its head only


@dataclass(frozen=True)
class Model:
    backbone: str
    weights: str
    weights_unused: list[str]
    fpn_channels: Count
    frozen_stages: Annotated[int, Range(0, 4)]
    frozen_norm: bool
    anchor_side: Count
    proposals: Count
    detections: Count
    attributes: Literal["none", "linear", "conv"]
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    heads: Literal["v1", "v2", "v2_group", "matterport"]
    class_agnostic_boxes: bool
    class_agnostic_masks: bool
    box_stages: Annotated[int, Range(1, 3)]
    anchor_ratios: list[float]

    def __post_init__(self):
        if self.box_stages > 1 and not self.class_agnostic_boxes:
            raise ValueError(
                f"model.box_stages is {self.box_stages}, and more than one need model.class_agnostic_boxes=true: "
                "a stage has one box to correct, not one for each class"
            )
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise ValueError(f"model.anchor_ratios should hold at least one number above 0, not {self.anchor_ratios}")


@dataclass(frozen=True)
class Network(Model):
    """The section `model` with values from the data and other sections; saved as models/mask_rcnn.json.

    backbone: a name, or the description that rebuilds one without its files; side: the longer one of the images, in
    pixels; classes: without the background; attribute_count: outputs of the attribute head; rois: sampled per image for
    the heads; seed: of initial weights and sampling.
    """

    backbone: str | dict[str, Any]
    _: KW_ONLY
    side: int
    classes: int
    attribute_count: int
    rois: int
    seed: int
