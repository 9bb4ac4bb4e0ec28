"""The section `predict` of params.yaml."""

from dataclasses import dataclass

from fashionseg.core.fields import Count, Share


@dataclass(frozen=True)
class Predict:
    batch_size: Count
    score: Share
    nms_iou: Share
    mask_threshold: Share
    attribute_score: Share
    flip: bool
    scales: list[float]
    models: list[str]

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"predict.scales should hold at least one number above 0, not {self.scales}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"predict.models should name each network once, not {self.models}")
