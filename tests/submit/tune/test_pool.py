"""Tables of whole numbers against the rule's own loop, image by image."""

from dataclasses import replace

import numpy as np
import pytest
from claims_scenes import PARAMS, PLAIN, TUNE, crowd

from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import Selector, Thresholds
from fashionseg.submit.tune.matching import match
from fashionseg.submit.tune.pool import Stock
from fashionseg.submit.tune.tuner import FORMULAS


@pytest.mark.parametrize(
    "changes", [{}, {"nms_iou": 0.3}, {"mask_overlap": 0.5}, {"nms_iou": 0.5, "mask_overlap": 0.7, "min_area": 300}]
)
def test_a_stock_leaves_what_the_rule_would_choose(changes):
    """All images at once against the rule's own loop, image by image; also of some images, numbered anew."""
    random = np.random.default_rng(4)
    images = match(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    worths = [random.integers(0, 10, len(image.iou)) / 10 for image in images]  # many alike
    rule = replace(PLAIN, **changes)
    pool = Stock.of(images, levels).pool(np.concatenate(worths), rule)
    chosen = [rule.chosen(image.found, worth) for image, worth in zip(images, worths, strict=True)]
    np.testing.assert_array_equal(pool.tally.images, np.repeat(np.arange(30), [len(kept) for kept in chosen]))
    for column, by_image in (
        (pool.worth, worths),
        (pool.tally.agreement, levels),
        (pool.tally.overlap, [kaggle_metric.level(image.iou) for image in images]),
        (pool.tally.classes, [image.found.classes for image in images]),
    ):
        np.testing.assert_array_equal(column, np.concatenate([v[k] for v, k in zip(by_image, chosen, strict=True)]))
    some = np.arange(30) % 3 == 1
    expected = Stock.of(images[1::3], levels[1::3]).pool(np.concatenate(worths[1::3]), rule)
    for formula in FORMULAS:
        metric = replace(TUNE, formula=formula)
        part = pool.of_images(some)
        assert part.value(part.worth - 0.4, False, metric) == expected.value(expected.worth - 0.4, False, metric)


@pytest.mark.parametrize("instances", [0.5, 3.0, 9.0])
def test_a_pool_claims_the_set_that_the_rule_does(instances):
    random = np.random.default_rng(5)
    images = match(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    worths = [random.random(len(image.iou)) for image in images]
    rule = replace(PLAIN, nms_iou=0.5, selector=Selector(0.0, Thresholds(0.0), None, instances))
    pool = Stock.of(images, levels).pool(np.concatenate(worths), rule)
    chosen = [rule.chosen(image.found, worth) for image, worth in zip(images, worths, strict=True)]
    expected = np.concatenate([worth[kept] for worth, kept in zip(worths, chosen, strict=True)])
    np.testing.assert_array_equal(pool.paying(instances)[pool.paying(instances) >= 0], expected)
    claimed = pool.claimed(pool.paying(instances), False)
    np.testing.assert_array_equal(claimed.images, np.repeat(np.arange(30), [len(kept) for kept in chosen]))
