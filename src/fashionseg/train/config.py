"""The section `train` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fashionseg.core.fields import Amount, Count, Index, Range


@dataclass(frozen=True)
class Train:
    epochs: Count
    batch_size: Count
    rois: Annotated[int, Range(4)]  # a quarter of them is foreground
    instances: Count
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Amount
    warmup_steps: Index
    drops: list[float]
    weight_decay: Amount
    log_steps: Count
    resume: str | None

    def __post_init__(self):
        if self.drops != sorted(set(self.drops)) or not all(0 < share < 1 for share in self.drops):
            raise ValueError(
                f"train.drops should be ascending shares of the training, above 0 and below 1, not {self.drops}"
            )
