"""AP_IoU+F1 against the package of its authors, F1 against scikit-learn, both on random documents."""

import contextlib
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fashionseg.evaluation import attributes, matching

SIDE = 128  # pixels: room for masks of COCO's small, medium and large
GROUPS = {"o": range(13), "a": range(13, 27), "p": range(27, 46)}  # FPEval's supercategories
CLASSES = [0, 1, 5, 14, 20, 30, 31, 45]  # of all three groups, with attributes and without


def random_document(seed: int, images: int, truth: int, found: int, attribute_count: int = 294):
    """COCO document and results: rectangles near each other, scores and attribute sets that often tie."""
    random = np.random.default_rng(seed)
    ids = np.sort(random.choice(np.arange(2 * attribute_count), attribute_count, replace=False)).tolist()

    def box():
        w, h = random.integers(4, SIDE, 2)
        return random.integers(0, SIDE - w + 1), random.integers(0, SIDE - h + 1), w, h

    def row(image_id, category_id, x, y, w, h, chosen):
        bitmap = np.zeros((SIDE, SIDE), np.uint8, order="F")
        bitmap[y : y + h, x : x + w] = 1
        code = coco_mask.encode(bitmap)
        return {
            "image_id": image_id,
            "category_id": int(category_id),
            "segmentation": {"size": [SIDE, SIDE], "counts": code["counts"].decode()},
            "area": int(w * h),
            "iscrowd": 0,
            "attribute_ids": sorted(chosen),
        }

    def some_attributes():
        return random.choice(ids[:8], random.integers(0, 5), replace=False).tolist()

    annotations, results = [], []
    for image_id in random.permutation(np.arange(1, images + 1)).tolist():
        there = [
            (random.choice(CLASSES[: random.integers(2, 9)]), *box(), some_attributes())
            for _ in range(random.integers(0, truth + 1))
        ]
        annotations += [row(image_id, *instance) for instance in there]
        for _ in range(random.integers(0, found + 1)):
            category_id, x, y, w, h, chosen = (
                there[random.integers(len(there))] if there else (0, *box(), some_attributes())
            )
            if random.random() < 0.2:
                category_id = random.choice(CLASSES)
            moved = random.integers(-6, 7, 2)
            x, y = np.clip((x + moved[0], y + moved[1]), 0, (SIDE - w, SIDE - h))
            chosen = {*chosen, *some_attributes()} if random.random() < 0.4 else chosen
            result = row(image_id, category_id, x, y, w, h, [a for a in chosen if random.random() < 0.9])
            results.append({**result, "score": int(random.integers(1, 20)) / 20})
    document = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(46)],
        "attributes": [{"id": i, "name": f"attribute {i}"} for i in ids],
    }
    return document, results


def reference(document, results):
    """FPEval, as the package's readme runs it. It uses np.float, which NumPy no longer has."""
    from fashionpedia.fp import Fashionpedia
    from fashionpedia.fp_eval import FPEval

    np.float = float
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        truth = Fashionpedia()
        truth.dataset = document
        truth.createIndex()
        evaluation = FPEval(truth, truth.loadRes([dict(result) for result in results]), "segm")
        evaluation.run()
        evaluation.summarize_class()
    del np.float
    return evaluation


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_reference(seed):
    document, results = random_document(seed, images=12, truth=8, found=14)
    theirs = reference(document, results)
    compared = matching.compare(document, results)
    ours = attributes.evaluate(compared, attributes.with_attributes(document))
    table = attributes.aggregates(ours)
    for mode, values in zip(table, (theirs.results, theirs.resultDet, theirs.resultF1), strict=True):
        for name, value in values.items():
            if name in ("APo", "APa", "APp"):
                group = np.isin(np.arange(46), GROUPS[name[2]])
                value_here = attributes.aggregates(ours, group)[mode]["AP"]
            else:
                value_here = table[mode][name]
            assert value_here == pytest.approx(value if value > -1 else np.nan, abs=1e-9, nan_ok=True), (mode, name)
