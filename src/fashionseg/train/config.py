"""The section `train` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fashionseg.core.fields import Amount, Count, Index, Range, Share
from fashionseg.model.config import LOSSES

NOTHING = {"ema": "the average never moves", "heads_only": "the backbone never learns; model.frozen_stages is for that"}


@dataclass(frozen=True)
class Train:
    epochs: Count
    batch_size: Count
    rois: Annotated[int, Range(4)]  # a quarter of them is foreground
    instances: Count
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Amount
    warmup_steps: Index
    schedule: Literal["steps", "cosine"]
    drops: list[float]
    accumulate: Count
    ema: Share
    backbone_rate: Amount
    heads_only: Share
    loss_weights: dict[str, Amount]
    weight_decay: Amount
    repeat_threshold: Share
    validate_epochs: Index
    validate_images: Count
    patience: Index
    log_steps: Count
    resume: str | None

    def __post_init__(self):
        if self.drops != sorted(set(self.drops)) or not all(0 < share < 1 for share in self.drops):
            raise ValueError(
                f"train.drops should be ascending shares of the training, above 0 and below 1, not {self.drops}"
            )
        for key in ("ema", "heads_only"):
            if getattr(self, key) == 1:
                raise ValueError(f"train.{key} should be below 1, else {NOTHING[key]}")
        if unknown := sorted(self.loss_weights.keys() - set(LOSSES)):
            raise ValueError(f"train.loss_weights has {', '.join(unknown)}; losses are {', '.join(LOSSES)}")
        if self.patience and not self.validate_epochs:
            raise ValueError(
                f"train.patience is {self.patience}, but with train.validate_epochs = 0 there is no AP to stop by; "
                "set train.patience to 0, too"
            )
