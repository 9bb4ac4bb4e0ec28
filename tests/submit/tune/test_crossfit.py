"""Tuning finds what pays, and says honestly what it gains."""

from dataclasses import replace

import numpy as np
import pytest
from claims_scenes import PARAMS, TUNE, document, prediction, rectangle, scene

from fashionseg.core import rle
from fashionseg.core.errors import UserError
from fashionseg.predict import masks
from fashionseg.submit import kaggle_metric, submission
from fashionseg.submit.tune import crossfit
from fashionseg.submit.tune.tuner import FORMULAS


def tune(scene, **changes):
    return crossfit.tune(*scene, replace(TUNE, **changes), PARAMS, seed=0, workers=1)


def test_a_single_claim_for_precision_and_all_that_pay_for_jaccard():
    truth, claims = [], []
    for i in range(1, 9):
        good, fair, fair_claim = rectangle(0, 0, 30, 30), rectangle(50, 50, 40, 40), rectangle(50, 50, 40, 28)
        truth += [prediction(mask, 1.0, image_id=i) for mask in (good, fair)]
        claims += [prediction(mask, score, image_id=i) for mask, score in ((good, 0.62), (fair_claim, 0.53))]
    rule, way, values, tables = tune((document(8, *truth), claims))
    assert rule.claims_per_image == 1
    assert values["score"] == 1.0
    assert way == "score"  # of equal ways the simplest
    at = tables["thresholds"].set_index("threshold")
    assert at["precision"][0.0] == pytest.approx((1 + 0.4) / 2)
    assert at["jaccard"][0.0] == pytest.approx(0.4 + 0.6 / 3)  # two of two found, or one of the two
    assert at["jaccard"][0.6] == pytest.approx(0.5)
    rule, way, values, _ = tune((document(8, *truth), claims), formula="jaccard")
    assert rule.claims_per_image is None
    assert values["score"] == pytest.approx(0.6)


def test_the_selector_finds_what_the_score_does_not_tell():
    """Scores are noise; masks are right where mask_score is high: on images not used to choose, the forest wins."""
    _, way, values, tables = tune(scene(images=24, told_by="mask_score"))
    assert way == "selector"
    assert values["selector"] > values["score"] + 0.2
    assert tables["importance"].set_index("feature")["importance"].idxmax() == "mask_score"
    ways = tables["ways"].set_index(["formula", "way"])
    assert set(ways.index) == {(f, w) for f in ("precision", "jaccard") for w in ("score", "rule", "selector")}
    assert ways["gain"]["precision", "selector"] == pytest.approx(values["selector"] - values["score"], abs=1e-4)
    assert 0 < ways["error"]["precision", "selector"] < 0.1


def test_noise_gains_nothing_on_images_not_used():
    """Where nothing tells good from bad, the value reported is that of a blind choice, not that of the best fit."""
    _, _, values, _ = tune(scene(images=24, told_by=None))
    assert max(values.values()) < 0.62  # a half of the candidates are right


def test_choosing_among_ways_that_differ_by_luck_is_worth_no_more_than_any():
    """What each way finds is noise of the same mean, so the best of three looks better than it is; `value` does not."""
    random = np.random.default_rng(0)
    reported, lucky = [], []
    for _ in range(200):
        tallies = {
            way: [tally_of(random.integers(0, 11, 6)) for _ in range(5)] for way in ("score", "rule", "selector")
        }
        way, values = crossfit._choice(tallies, TUNE)
        assert values[way] == max(values[name] for name in tallies)
        reported.append(values["value"])
        lucky.append(values[way])
    exact = np.mean([found * 10 / 100 for found in range(11)])
    assert np.mean(lucky) > exact + 0.03
    assert np.mean(reported) == pytest.approx(exact, abs=0.02)


def tally_of(levels):
    """One claim an image that exceeds so many IoU thresholds, at all thresholds of attributes."""
    numbers = np.arange(len(levels))
    ones = np.ones_like(numbers)
    return kaggle_metric.Tally(numbers, ones, numbers, levels, ones * kaggle_metric.LEVELS, numbers, ones, len(levels))


def soft_scene(images, edge):
    """One garment an image, whose mask falls from 1 to 0 across the box; the truth ends where it is `edge`."""
    text = masks.pack(np.tile(np.linspace(1, 0, 28), (28, 1)))
    slope = masks.unpack(text)
    truth, claims = [], []
    for i in range(1, images + 1):
        there = masks.paste(slope, [20, 20, 56, 40], 100, 100, edge)[0].decode(0)
        truth.append(prediction(there, 1.0, image_id=i))
        seen = masks.paste(slope, [20, 20, 56, 40], 100, 100, 0.5)[0].decode(0)
        claims.append({**prediction(seen, 0.9, image_id=i), "bbox": [20, 20, 56, 40], "mask": text})
    return document(images, *truth), claims


@pytest.mark.parametrize("edge", [0.3, 0.5, 0.65])
def test_masks_end_where_they_are_worth_most(edge):
    """What is claimed at the threshold found is the truth, on images not used to find it and in the submission."""
    truth, claims = soft_scene(6, edge)
    rule, _, values, tables = tune((truth, claims))
    assert rule.mask_threshold == (None if edge == 0.5 else edge)
    assert values["score"] == 1.0
    by_threshold = tables["masks"].set_index("threshold")["value"]
    assert by_threshold[edge] == 1.0
    assert by_threshold[[0.3, 0.7]].min() < 0.6
    rows = submission.table(truth, claims, rule, [str(i) for i in range(1, 7)], PARAMS)
    expected = rle.from_coco([row["segmentation"] for row in truth["annotations"]]).to_kaggle()
    assert rows["EncodedPixels"].tolist() == expected


def test_too_little_to_tune_on():
    with pytest.raises(UserError, match="1 validation image is too few"):
        tune((document(1), []))
    assert tune(scene(images=2, told_by=None))[1] in ("score", "rule")  # 16 candidates make no forest


@pytest.mark.parametrize("formula", FORMULAS)
def test_without_any_prediction_the_submission_is_legal_all_the_same(formula):
    truth = document(4, prediction(rectangle(0, 0, 9, 9), 1.0))
    rule, way, values, _ = tune((truth, []), formula=formula)
    assert (way, values["score"], rule.selector) == ("score", 0, None)
    rows = submission.table(truth, [], rule, ["1", "2", "3", "4"], PARAMS)
    assert (rows["EncodedPixels"] == "1 1").all()
    assert len(rows) == 4


@pytest.mark.parametrize(("formula", "sometimes"), [("precision", True), ("precision", False), ("jaccard", False)])
def test_a_class_that_is_never_right_gets_a_threshold_of_its_own(formula, sometimes):
    """Class 2 is always wrong where its score is high, and `sometimes` right where it is low, by a worse mask: tuned by
    class, it is no longer claimed."""
    truth, claims = [], []
    for i in range(1, 101):
        truth.append(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i))
        claims.append(prediction(rectangle(0, 0, 30, 30), 0.6, image_id=i))
        claims.append(prediction(rectangle(50, 50, 30, 30), 0.8, category_id=2, image_id=i))
        if sometimes and i % 2:
            truth.append(prediction(rectangle(0, 50, 30, 30), 1.0, category_id=2, image_id=i))
            claims.append(prediction(rectangle(0, 50, 30, 17), 0.1, category_id=2, image_id=i))
    rule, way, values, _ = tune((document(100, *truth), claims), trees=1, leaf=1000, formula=formula)
    assert way == "rule"
    assert rule.scores["2"] > max(0.8, rule.scores["1"] + 0.2)
    assert values["rule"] == values["value"] == pytest.approx(1.0)
    assert values["score"] == pytest.approx(0.5)
