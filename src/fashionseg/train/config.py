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
    drop_epochs: list[int]
    weight_decay: Amount
