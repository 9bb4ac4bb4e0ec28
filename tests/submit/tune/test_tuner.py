"""The rule of each way: its parts are their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from claims_scenes import PARAMS, PLAIN, TUNE, scene

from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import Thresholds
from fashionseg.submit.tune import crossfit, selector
from fashionseg.submit.tune.matching import match
from fashionseg.submit.tune.pool import Stock
from fashionseg.submit.tune.tuner import Tuner


def test_the_forest_is_scikit_learns():
    images = match(*scene(images=20, told_by="mask_score"), PARAMS)
    tuner = Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    rules, _ = tuner.fit(images)
    rule = rules["selector", "precision"]
    seen = {}
    tuner_fit = selector.Pipeline.fit

    def fit(self, columns, value):
        seen["columns"], seen["model"] = columns, self
        return tuner_fit(self, columns, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selector.Pipeline, "fit", fit)
        assert tuner.fit(images)[0]["selector", "precision"] == rule  # the same seed, the same forest
    classes, known = seen["columns"][:, 0].astype(int), seen["columns"][:, 1:]
    np.testing.assert_allclose(
        rule.selector.values(known, classes), seen["model"].predict(seen["columns"]), atol=1e-6, rtol=0
    )


def test_a_pool_is_worth_what_its_claims_are():
    """The sweep on whole numbers against the metric of the claims themselves."""
    images = match(*scene(images=12, told_by=None), PARAMS)
    tuner = Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    stock = Stock.of(images, [tuner.agreed(image, PLAIN) for image in images])
    pool = stock.pool(np.concatenate([image.found.scores for image in images]), PLAIN)
    for formula in ("precision", "jaccard"):
        metric = replace(TUNE, formula=formula)
        for floor in (0.1, 0.5, 0.8):
            rule = replace(PLAIN, scores=Thresholds(floor))
            pairs = crossfit.claimed(rule, images, PARAMS)
            exact = kaggle_metric.value(kaggle_metric.tally(pairs, metric, 2), metric)
            assert pool.value(pool.worth - floor, False, metric) == pytest.approx(exact)


@pytest.mark.parametrize("average", ["image", "class", "all"])
def test_only_jaccard_by_image_knows_a_floor_for_each_image(average):
    images = match(*scene(images=30, told_by="mask_score"), PARAMS)
    tuner = Tuner(replace(TUNE, average=average), PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    rules = tuner.fit(images)[0]
    assert rules["selector", "precision"].selector.instances is None
    assert rules["selector", "jaccard"].selector.instances in ((None, 4.0) if average == "image" else (None,))
