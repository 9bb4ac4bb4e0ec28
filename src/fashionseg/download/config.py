"""Where the pictures come from: the section `data` of params.yaml."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Data:
    source: Literal["demo", "local", "kaggle"]
    path: str | None
    watch: Literal["sizes", "times", "contents"]
    competition: str
