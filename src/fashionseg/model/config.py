"""The network: the section `model` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fashionseg.core.fields import Count, Range


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
    class_agnostic_masks: bool
    anchor_ratios: list[float]

    def __post_init__(self):
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise ValueError(f"model.anchor_ratios should hold at least one number above 0, not {self.anchor_ratios}")
