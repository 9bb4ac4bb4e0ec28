"""The section `predict` of params.yaml."""

from dataclasses import dataclass

from fashionseg.core.fields import Count, Share

VIEW_STEP = 32  # pixels: a view's side is a multiple of the largest stride of a backbone
VIEW_SIDES = 64, 8192  # pixels: the least and the greatest


@dataclass(frozen=True)
class Predict:
    batch_size: Count
    score: Share
    nms_iou: Share
    mask_scores: bool
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

    def sides(self, side: int) -> list[int]:
        """Sides of the views, pixels, of a network for images of `side`; ValueError where one is too small, too large
        or there twice."""
        least, greatest = VIEW_SIDES
        sides = [round(min(side * scale, 1e9) / VIEW_STEP) * VIEW_STEP for scale in self.scales]
        for place, (scale, of_view) in enumerate(zip(self.scales, sides, strict=True)):
            if not least <= of_view <= greatest:
                raise ValueError(
                    f"predict.scales: {scale} gives images of {of_view:.6g} px; {least} to {greatest} are possible"
                )
            if of_view in sides[:place]:
                raise ValueError(f"predict.scales: {scale} gives {of_view} px, as another scale does; leave one out")
        return sides
