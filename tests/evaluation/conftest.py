"""Small COCO documents to evaluate."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

CATEGORIES = [{"id": 3, "name": "vest"}, {"id": 7, "name": "shoe, boot"}, {"id": 9, "name": "cape"}]


def instance(image_id: int, category_id: int, box: tuple[int, ...], side: int = 64, **more: Any) -> dict[str, Any]:
    """An annotation or result of a rectangle x, y, width, height in a square picture."""
    x, y, w, h = box
    bitmap = np.zeros((side, side), np.uint8, order="F")
    bitmap[y : y + h, x : x + w] = 1
    code = coco_mask.encode(bitmap)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": {"size": [side, side], "counts": code["counts"].decode()},
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "attribute_ids": [],
        **more,
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """Two pictures with three instances, and a third without any."""
    annotations = [instance(1, 3, (4, 4, 40, 40)), instance(1, 7, (50, 50, 10, 10)), instance(2, 7, (8, 8, 20, 30))]
    return {
        "images": [{"id": i, "file_name": f"train/{i}.jpg", "height": 64, "width": 64} for i in (1, 2, 3)],
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)],
        "categories": CATEGORIES,
        "attributes": [{"id": 5, "name": "lined"}, {"id": 115, "name": "mini"}],
    }


@pytest.fixture
def perfect(document) -> list[dict[str, Any]]:
    return [{**annotation, "score": 0.9} for annotation in document["annotations"]]
