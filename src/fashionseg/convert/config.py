"""The sections `split` and `images` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated

from fashionseg.core.fields import Index, Range


@dataclass(frozen=True)
class Split:
    folds: Annotated[int, Range(2)]
    fold: Index

    def __post_init__(self):
        if self.fold >= self.folds:
            raise ValueError(f"split.fold should be 0 to split.folds - 1, not {self.fold} of {self.folds}")


@dataclass(frozen=True)
class Images:
    side: int

    def __post_init__(self):
        if not 64 <= self.side <= 8192 or self.side % 32:
            raise ValueError(f"images.side should be a multiple of 32 from 64 to 8192, not {self.side}")
