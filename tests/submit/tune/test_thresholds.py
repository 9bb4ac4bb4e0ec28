"""Thresholds of attributes and classes equal their definitions."""

from dataclasses import replace

import numpy as np
import pytest

from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import NEVER, Thresholds
from fashionseg.submit.tune.candidate_table import CandidateTable
from fashionseg.submit.tune.matched_images import match_images
from fashionseg.submit.tune.thresholds import PARTS, SCORE_THRESHOLDS, attribute_thresholds, class_thresholds
from fashionseg.submit.tune.tuner import FORMULAS, Tuner
from submission_scenes import FILLER_CLASS, PARAMS, PLAIN, TUNE, crowd, document, prediction, rectangle


@pytest.mark.parametrize("max_per_image", [None, 1])
@pytest.mark.parametrize("average", ["image", "class", "all"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_class_thresholds_equal_the_full_search(formula, average, max_per_image, monkeypatch):
    """`class_thresholds` scores only what the class can change; this test scores all images for each threshold."""
    monkeypatch.setattr("fashionseg.submit.tune.thresholds.MIN_EXAMPLES", 5)
    metric = replace(TUNE, formula=formula, average=average)
    random = np.random.default_rng(7)
    images = match_images(*crowd(24, random), PARAMS)
    start = replace(PLAIN, max_per_image=max_per_image)
    tuner = Tuner(
        params=TUNE,
        submission=PARAMS,
        categories=[1, 2, 3],
        attribute_count=2,
        attribute_pairs=PLAIN.attribute_pairs,
        filler_class=FILLER_CLASS,
        seed=0,
        workers=1,
    )
    levels = [tuner.f1_levels(image, PLAIN) for image in images]
    ranked = CandidateTable.of(images, levels, FILLER_CLASS).ranked(
        np.concatenate([image.candidates.scores for image in images]), PLAIN
    )

    def values(thresholds):
        post = replace(start, score_thresholds=thresholds)
        found = []
        for part in range(PARTS):
            pairs = []
            for image in images[part::PARTS]:
                kept = post.select(image.candidates, post.gains(image.candidates))
                submitted = kaggle_metric.ImageInstances(
                    image.candidates.masks[kept], image.candidates.classes[kept], [frozenset()] * len(kept)
                )
                pairs.append((submitted, image.truth))
            found.append(kaggle_metric.score(kaggle_metric.count_matches(pairs, metric, 2, FILLER_CLASS), metric))
        return np.array(found)

    numbers, counts = np.unique(ranked.counts.classes[ranked.counts.iou_levels > 0], return_counts=True)
    best, reached = PLAIN.score_thresholds, values(PLAIN.score_thresholds)
    for number in numbers[np.argsort(-counts, kind="stable")]:
        for threshold in sorted((*SCORE_THRESHOLDS, NEVER), key=lambda threshold: abs(threshold - best.common)):
            tried = Thresholds(best.common, {**best.own, str(number): float(threshold)})
            gain = values(tried) - reached
            if (gain > -1e-12).all() and gain.sum() > 1e-12:
                best, reached = tried, reached + gain
    assert class_thresholds(ranked, start, metric) == best
    none_gains = (("precision", "all", None), ("jaccard", "class", 1))
    assert best.own or (formula, average, max_per_image) in none_gains


def test_attribute_thresholds_have_the_best_f1():
    """Attribute 5 of class 1 has 30 examples and gets its own threshold; attribute 9 has none."""
    truth, predictions = [], []
    random = np.random.default_rng(0)
    for i in range(1, 61):
        mask, has = rectangle(0, 0, 30, 30), i % 2
        truth.append({**prediction(mask, 1.0, image_id=i), "attribute_ids": [5] * has})
        score = 0.2 + 0.1 * has + 0.05 * random.random()
        predictions.append(
            {**prediction(mask, 0.9, image_id=i), "attribute_ids": [5, 9], "attribute_scores": [score, 0.1]}
        )
    images = match_images(document(60, *truth), predictions, PARAMS)
    thresholds = attribute_thresholds(images, PLAIN.attribute_pairs)
    assert set(thresholds.own) == {"1/5"}
    assert 0.25 < thresholds["1/5"] < 0.31
    assert thresholds["2/9"] == thresholds.common
    assert attribute_thresholds(images, {"2": [5]})["1/5"] < 0.02  # class 1 never had it in training


def test_attribute_thresholds_are_halfway_and_of_candidates_on_a_garment():
    truth, predictions = [], []
    for i in range(1, 61):
        mask, has = rectangle(0, 0, 30, 30), i % 2
        truth.append({**prediction(mask, 1.0, image_id=i), "attribute_ids": [5] * has})
        beside = [] if has else [(rectangle(50, 50, 30, 30), 0.305)]
        for place, score in ((mask, 0.2 + 0.1 * has + 0.0005 * i), *beside):
            found = {"attribute_ids": [5], "attribute_scores": [score]}
            predictions.append({**prediction(place, 0.9, image_id=i), **found})
    images = match_images(document(60, *truth), predictions, PARAMS)
    found = attribute_thresholds(images, PLAIN.attribute_pairs)
    assert found.common == found["1/5"] == pytest.approx((0.23 + 0.3005) / 2, abs=1e-3)
