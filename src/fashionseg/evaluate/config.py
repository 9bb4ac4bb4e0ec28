"""The section `evaluate` of params.yaml."""

from dataclasses import dataclass

from fashionseg.core.fields import Count, Share


@dataclass(frozen=True)
class Evaluate:
    pictures: Count
    attribute_score: Share
