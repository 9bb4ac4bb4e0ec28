"""The sections `tune`, `submission` and `sending` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fashionseg.core.fields import Count, Range


@dataclass(frozen=True)
class Metric:
    """The part of `tune` that the competition's metric needs."""

    formula: Literal["precision", "jaccard"]
    average: Literal["image", "class", "all"]
    f1: Literal["set", "macro", "none"]


@dataclass(frozen=True)
class Tune(Metric):
    folds: Annotated[int, Range(2)]
    trees: Count
    leaf: Count


@dataclass(frozen=True)
class Submission:
    longest_side: Count | None
    square: bool
    min_area: Count
    overlap: Literal["same_class", "any"]

    def __post_init__(self):
        if self.square and self.longest_side is None:
            raise ValueError("submission.longest_side should be a number where submission.square is true, not null")


@dataclass(frozen=True)
class Sending:
    gzip: bool
