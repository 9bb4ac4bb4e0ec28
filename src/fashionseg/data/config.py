"""The section `augment` of params.yaml."""

from dataclasses import dataclass

from fashionseg.core.fields import Share


@dataclass(frozen=True)
class Augment:
    imgaug: list[dict]
    scale: list[float]
    copy_paste: Share

    def __post_init__(self):
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"augment.scale should be two ascending numbers above 0, not {self.scale}")


NO_AUGMENTATION = Augment([], [1.0, 1.0], 0.0)
