"""The only mapping between ids of the label file, which may have gaps, and class and attribute indices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Labels:
    """Ids and names in the order of the label file. In the network class 0 is the background, class 1 the first
    category, and attribute 0 the first attribute."""

    category_ids: list[int]
    attribute_ids: list[int]
    category_names: list[str]
    attribute_names: list[str]

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Labels":
        """From a COCO document or models/mask_rcnn.json; plain COCO has no attributes."""
        kinds = document["categories"], document.get("attributes", [])
        return cls(*([label[key] for label in kind] for key in ("id", "name") for kind in kinds))

    def classes(self, category_ids: Sequence[int]) -> np.ndarray:
        """The network's classes (n,) int32 of n category ids."""
        class_of = {category_id: index for index, category_id in enumerate(self.category_ids, 1)}
        return np.array([class_of[category_id] for category_id in category_ids], np.int32)

    def multi_hot(self, attribute_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """(n, A) uint8, 1 where an instance has the attribute; attribute_ids: the ids of each of n instances."""
        index_of = {attribute_id: index for index, attribute_id in enumerate(self.attribute_ids)}
        hot = np.zeros((len(attribute_ids), len(index_of)), np.uint8)
        for row, ids in zip(hot, attribute_ids, strict=True):
            row[[index_of[attribute_id] for attribute_id in ids]] = 1
        return hot
