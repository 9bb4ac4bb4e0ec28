"""The section `augment` of params.yaml."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Augment:
    policy: Literal["none", "standard"]
