"""Small COCO documents and results of rectangles, for the tests of this folder."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

SIDE = 128  # pixels: room for masks of COCO's small, medium and large


def rectangle(image_id: int, category_id: int, box: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """An annotation or result of a rectangle x, y, width, height."""
    x, y, w, h = (int(number) for number in box)
    bitmap = np.zeros((SIDE, SIDE), np.uint8, order="F")
    bitmap[y : y + h, x : x + w] = 1
    counts = coco_mask.encode(bitmap)["counts"].decode()
    return {
        "image_id": int(image_id),
        "category_id": int(category_id),
        "segmentation": {"size": [SIDE, SIDE], "counts": counts},
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "attribute_ids": [],
        **more,
    }


def document_of(annotations: list[dict], images: int, categories: list[int], attributes: list[int]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": f"class {i}, or so", "supercategory": f"group {i % 3}"} for i in categories],
        "attributes": [{"id": i, "name": f"attribute {i}", "supercategory": f"kind {i % 3}"} for i in attributes],
    }


def random_document(
    seed: int,
    categories: list[int],
    used: list[int],
    attributes: list[int],
    images: int = 12,
    truth: int = 8,
    predicted: int = 14,
    ties: bool = True,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO document and results near its truth, many an instance.

    used: the categories that occur; truth, predicted: the most instances of an image. Attribute sets are often
    equal, and scores too where `ties`.
    """
    random = np.random.default_rng(seed)

    def box() -> np.ndarray:
        sides = random.integers(4, SIDE, 2)
        return np.concatenate([random.integers(0, SIDE - sides + 1), sides])

    def some_attributes() -> list[int]:
        return random.choice(attributes[:8], random.integers(0, 5), replace=False).tolist()

    annotations, results = [], []
    for image_id in random.permutation(np.arange(1, images + 1)):
        there = [
            rectangle(image_id, random.choice(used), box(), attribute_ids=sorted(some_attributes()))
            for _ in range(random.integers(0, truth + 1))
        ]
        annotations += there
        for _ in range(random.integers(0, predicted + 1)):
            like = there[random.integers(len(there))] if there else rectangle(image_id, used[0], box())
            category_id = random.choice(used) if random.random() < 0.2 else like["category_id"]
            x, y, w, h = like["bbox"]
            reach = random.choice([0, 3, 30])
            x, y = np.clip(np.array([x, y]) + random.integers(-reach, reach + 1, 2), 0, (SIDE - w, SIDE - h))
            chosen = {*like["attribute_ids"], *(some_attributes() if random.random() < 0.4 else [])}
            chosen = sorted(attribute for attribute in chosen if random.random() < 0.9)
            score = random.integers(1, 20) / 20 if ties else random.random()
            results.append(rectangle(image_id, category_id, (x, y, w, h), attribute_ids=chosen, score=float(score)))
    return document_of(annotations, images, categories, attributes), results
