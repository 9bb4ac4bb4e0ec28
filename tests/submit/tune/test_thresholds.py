"""Thresholds of single attributes and classes are what their definitions say."""

from dataclasses import replace

import numpy as np
import pytest

from claims_scenes import PARAMS, PLAIN, TUNE, crowd, document, prediction, rectangle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import NEVER, Thresholds
from fashionseg.submit.tune.matching import match
from fashionseg.submit.tune.pool import Stock
from fashionseg.submit.tune.thresholds import FLOORS, PARTS, attribute_thresholds, class_thresholds
from fashionseg.submit.tune.tuner import FORMULAS, Tuner


@pytest.mark.parametrize("claims_per_image", [None, 1])
@pytest.mark.parametrize("average", ["image", "class", "all"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_thresholds_by_class_against_the_whole_metric(formula, average, claims_per_image, monkeypatch):
    """Only what the threshold of the class can change is looked at again; the plain way takes all for each one."""
    monkeypatch.setattr("fashionseg.submit.tune.thresholds.FEW", 5)
    metric = replace(TUNE, formula=formula, average=average)
    random = np.random.default_rng(7)
    images = match(*crowd(24, random), PARAMS)
    start = replace(PLAIN, claims_per_image=claims_per_image)
    tuner = Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    levels = [tuner.agreed(image, PLAIN) for image in images]
    pool = Stock.of(images, levels).pool(np.concatenate([image.found.scores for image in images]), PLAIN)

    def values(thresholds):
        rule = replace(start, scores=thresholds)
        found = []
        for part in range(PARTS):
            pairs = []
            for image in images[part::PARTS]:
                kept = rule.chosen(image.found, rule.worth(image.found))
                claims = kaggle_metric.Instances(
                    image.found.masks[kept], image.found.classes[kept], [frozenset()] * len(kept)
                )
                pairs.append((claims, image.truth))
            found.append(kaggle_metric.value(kaggle_metric.tally(pairs, metric, 2), metric))
        return np.array(found)

    numbers, counts = np.unique(pool.tally.classes[pool.tally.overlap > 0], return_counts=True)
    best, reached = PLAIN.scores, values(PLAIN.scores)
    for number in numbers[np.argsort(-counts, kind="stable")]:
        for floor in sorted((*FLOORS, NEVER), key=lambda floor: abs(floor - best.common)):
            tried = Thresholds(best.common, {**best.own, str(number): float(floor)})
            gain = values(tried) - reached
            if (gain > -1e-12).all() and gain.sum() > 1e-12:
                best, reached = tried, reached + gain
    assert class_thresholds(pool, start, metric) == best
    none_pays = (("precision", "all", None), ("jaccard", "class", 1))
    assert best.own or (formula, average, claims_per_image) in none_pays


def test_attribute_thresholds_are_the_best_f1s():
    """Attribute 5 of class 1 has 30 examples and its own threshold; of attribute 9 there are few."""
    truth, claims = [], []
    random = np.random.default_rng(0)
    for i in range(1, 61):
        mask, has = rectangle(0, 0, 30, 30), i % 2
        truth.append({**prediction(mask, 1.0, image_id=i), "attribute_ids": [5] * has})
        score = 0.2 + 0.1 * has + 0.05 * random.random()
        claims.append({**prediction(mask, 0.9, image_id=i), "attribute_ids": [5, 9], "attribute_scores": [score, 0.1]})
    images = match(document(60, *truth), claims, PARAMS)
    found = attribute_thresholds(images)
    assert set(found.own) == {"1/5"}
    assert 0.25 < found["1/5"] < 0.31
    assert found["2/9"] == found.common
