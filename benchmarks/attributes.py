"""AP_IoU+F1 by the authors' package `fashionpedia` and by this project: the same values, in one run.

Run as `python benchmarks/attributes.py`. The masks are boxes on small images, since both spend the same time on the IoU
of masks; the benchmark is about the rest.
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fashionpedia.fp import Fashionpedia
from fashionpedia.fp_eval import FPEval
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from fashionseg.evaluate import attributes, matching

IMAGES = 150
TRUE, PREDICTED = 7, 25  # instances an image: as in the competition, and a usual number of predictions
ATTRIBUTES = 294
SIDE = 256  # pixels
TARGET = 20  # times as fast


def documents() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO document and results; every second prediction is a true instance, moved a little."""
    random = np.random.default_rng(0)

    def instance(image_id: int, category_id: int, box: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
        x, y, w, h = box.tolist()
        bitmap = np.zeros((SIDE, SIDE), np.uint8, order="F")
        bitmap[y : y + h, x : x + w] = 1
        code = coco_mask.encode(bitmap)
        return {
            "image_id": image_id,
            "category_id": int(category_id),
            "segmentation": {"size": [SIDE, SIDE], "counts": code["counts"].decode()},
            "area": w * h,
            "iscrowd": 0,
            "attribute_ids": np.flatnonzero(chosen).tolist(),
        }

    annotations, results = [], []
    for image_id in range(1, IMAGES + 1):
        classes = random.integers(0, 46, TRUE)
        boxes = np.concatenate([random.integers(0, SIDE // 2, (TRUE, 2)), random.integers(9, SIDE // 2, (TRUE, 2))], 1)
        chosen = random.random((TRUE, ATTRIBUTES)) < 4 / ATTRIBUTES
        annotations += map(instance, [image_id] * TRUE, classes, boxes, chosen)
        for number in range(PREDICTED):
            like = random.integers(TRUE)
            class_ = classes[like] if number % 2 else random.integers(46)
            box = np.maximum(boxes[like] + random.integers(-5, 6, 4), 1)
            flipped = chosen[like] ^ (random.random(ATTRIBUTES) < 1 / ATTRIBUTES)
            results.append({**instance(image_id, class_, box, flipped), "score": round(random.random(), 6)})
    document = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, IMAGES + 1)],
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(46)],
        "attributes": [{"id": i, "name": str(i)} for i in range(ATTRIBUTES)],
    }
    return document, results


def by_package(document: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    truth = Fashionpedia()
    truth.dataset = document
    truth.createIndex()
    evaluation = FPEval(truth, truth.loadRes([dict(result) for result in results]), "segm")
    evaluation.run()
    return evaluation.results


def by_ours(document: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    matched = matching.match(document, results)
    scores = attributes.evaluate(matched, attributes.with_attributes(document))
    return attributes.aggregates(scores)["IoU and F1"]


def timed(work: Callable[..., dict[str, float]], *arguments: Any) -> tuple[float, dict[str, float]]:
    """Seconds of CPU time, and the result."""
    began = time.process_time()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        result = work(*arguments)
    return time.process_time() - began, result


def main() -> None:
    np.float = float  # noqa: NPY001  the package uses it, NumPy no longer has it
    inputs = documents()
    slow, theirs = timed(by_package, *inputs)
    rounds = [timed(by_ours, *inputs) for _ in range(5)]
    fast, ours = min(seconds for seconds, _ in rounds), rounds[0][1]
    for name, value in ours.items():
        assert np.isclose(value, theirs[name], rtol=0, atol=1e-9), f"{name}: {theirs[name]} there, {value} here"
    table = Table(
        "", "package", "ours", "times as fast", "target", title=f"{IMAGES} images, {PREDICTED} predictions each"
    )
    table.add_row("AP_IoU+F1, seconds", f"{slow:.2f}", f"{fast:.3f}", f"{slow / fast:.1f}", str(TARGET))
    Console().print(table)


if __name__ == "__main__":
    main()
