"""Value ranges of params.yaml, as annotations in the dataclasses of its sections."""

from math import inf
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    least: float
    most: float = inf


Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Amount = Annotated[float, Range(0)]
