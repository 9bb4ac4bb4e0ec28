"""The ids of the label file, which have gaps, and the network's own numbers for them: the only map between the two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Labels:
    """Ids in the order of the label file. The network's class 0 is the background, the first category its class 1;
    its attribute 0 is the first attribute."""

    category_ids: list[int]
    attribute_ids: list[int]

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Labels":
        """Those of a COCO document, or of models/mask_rcnn.json; plain COCO has no attributes."""
        return cls(
            [category["id"] for category in document["categories"]],
            [attribute["id"] for attribute in document.get("attributes", [])],
        )

    def classes(self, category_ids: Sequence[int]) -> np.ndarray:
        """The network's classes (n,) int32 of categories."""
        numbers = {category_id: number for number, category_id in enumerate(self.category_ids, 1)}
        return np.array([numbers[category_id] for category_id in category_ids], np.int32)

    def multi_hot(self, attribute_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """(n, A) uint8, 1 where an instance has the attribute, for the ids that each of n instances has."""
        places = {attribute_id: place for place, attribute_id in enumerate(self.attribute_ids)}
        hot = np.zeros((len(attribute_ids), len(places)), np.uint8)
        for row, ids in zip(hot, attribute_ids, strict=True):
            row[[places[attribute_id] for attribute_id in ids]] = 1
        return hot
