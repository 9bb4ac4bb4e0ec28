"""Tuning finds what pays, says honestly what it gains, and its parts are their definitions."""

from dataclasses import replace

import numpy as np
import pytest

from claims_scenes import METRIC, PARAMS, document, prediction, rectangle, scene
from fashionseg import submission, tuning
from fashionseg.claiming.rule import Rule, Thresholds
from fashionseg.errors import UserError
from fashionseg.evaluation import kaggle
from fashionseg.params import Tune

TUNE = Tune(**vars(METRIC), folds=2, trees=5, leaf=5)
PLAIN = Rule(None, 1.0, 1.0, 4, Thresholds(0.5), Thresholds(0.5), None, [1, 2, 3])


def tune(scene, **changes):
    return tuning.tune(*scene, replace(TUNE, **changes), PARAMS, seed=0, workers=1)


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


def test_the_forest_is_scikit_learns():
    images = tuning.match(*scene(images=20, told_by="mask_score"), PARAMS)
    tuner = tuning.Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    rules, _ = tuner.fit(images)
    rule = rules["selector", "precision"]
    seen = {}
    tuner_fit = tuning.Pipeline.fit

    def fit(self, columns, value):
        seen["columns"], seen["model"] = columns, self
        return tuner_fit(self, columns, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning.Pipeline, "fit", fit)
        assert tuner.fit(images)[0]["selector", "precision"] == rule  # the same seed, the same forest
    classes, known = seen["columns"][:, 0].astype(int), seen["columns"][:, 1:]
    np.testing.assert_allclose(
        rule.selector.values(known, classes), seen["model"].predict(seen["columns"]), atol=1e-6, rtol=0
    )


def test_a_pool_is_worth_what_its_claims_are():
    """The sweep on whole numbers against the metric of the claims themselves."""
    images = tuning.match(*scene(images=12, told_by=None), PARAMS)
    tuner = tuning.Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    scores = [image.found.scores for image in images]
    agreed = [tuner._agreed(image, PLAIN) for image in images]
    pool = tuner._pool(images, scores, agreed, PLAIN)
    for formula in ("precision", "jaccard"):
        metric = replace(TUNE, formula=formula)
        for floor in (0.1, 0.5, 0.8):
            rule = replace(PLAIN, scores=Thresholds(floor))
            pairs = tuning.claimed(rule, images, PARAMS)
            exact = kaggle.value(kaggle.tally(pairs, metric, 2), metric)
            assert pool.value(pool.worth - floor, False, metric) == pytest.approx(exact)


def test_attribute_thresholds_are_the_best_f1s():
    """Attribute 5 of class 1 has 30 examples and its own threshold; of attribute 9 there are few."""
    truth, claims = [], []
    random = np.random.default_rng(0)
    for i in range(1, 61):
        mask, has = rectangle(0, 0, 30, 30), i % 2
        truth.append({**prediction(mask, 1.0, image_id=i), "attribute_ids": [5] * has})
        score = 0.2 + 0.1 * has + 0.05 * random.random()
        claims.append({**prediction(mask, 0.9, image_id=i), "attribute_ids": [5, 9], "attribute_scores": [score, 0.1]})
    images = tuning.match(document(60, *truth), claims, PARAMS)
    found = tuning.attribute_thresholds(images)
    assert set(found.own) == {"1/5"}
    assert 0.25 < found["1/5"] < 0.31
    assert found["2/9"] == found.common


def test_too_little_to_tune_on():
    with pytest.raises(UserError, match="1 validation image is too few"):
        tune((document(1), []))
    assert tune(scene(images=2, told_by=None))[1] in ("score", "rule")  # 16 candidates make no forest


@pytest.mark.parametrize("formula", tuning.FORMULAS)
def test_without_any_prediction_the_submission_is_legal_all_the_same(formula):
    truth = document(4, prediction(rectangle(0, 0, 9, 9), 1.0))
    rule, way, values, _ = tune((truth, []), formula=formula)
    assert (way, values["score"], rule.selector) == ("score", 0, None)
    rows = submission.table(truth, [], rule, ["1", "2", "3", "4"], PARAMS)
    assert (rows["EncodedPixels"] == "1 1").all()
    assert len(rows) == 4


def test_a_class_that_is_never_right_gets_a_threshold_of_its_own():
    """Class 2 is always wrong, whatever its score: tuned by class, it is no longer claimed."""
    truth, claims = [], []
    for i in range(1, 101):
        truth.append(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i))
        claims.append(prediction(rectangle(0, 0, 30, 30), 0.6, image_id=i))
        claims.append(prediction(rectangle(50, 50, 30, 30), 0.8, category_id=2, image_id=i))
        if i % 2:  # enough true examples of it, all found by worse masks
            truth.append(prediction(rectangle(0, 50, 30, 30), 1.0, category_id=2, image_id=i))
            claims.append(prediction(rectangle(0, 50, 30, 17), 0.1, category_id=2, image_id=i))
    rule, way, values, _ = tune((document(100, *truth), claims), trees=1, leaf=1000)
    assert way == "rule"
    assert rule.scores["2"] > rule.scores["1"] + 0.2
    assert values["rule"] == pytest.approx(1.0)
    assert values["score"] == pytest.approx(0.5)
