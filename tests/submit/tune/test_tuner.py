"""The post-processing of each strategy."""

from dataclasses import replace

import numpy as np
import pytest

from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import Thresholds
from fashionseg.submit.tune import cross_validation, selector
from fashionseg.submit.tune.candidate_table import CandidateTable
from fashionseg.submit.tune.matched_images import match_images
from fashionseg.submit.tune.tuner import Tuner
from submission_scenes import FILLER_CLASS, PARAMS, PLAIN, TUNE, scene


def test_the_forest_predicts_as_scikit_learn():
    images = match_images(*scene(images=20, told_by="mask_score"), PARAMS)
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
    fitted, _ = tuner.fit(images)
    post = fitted["selector", "precision"]
    seen = {}
    tuner_fit = selector.Pipeline.fit

    def fit(self, columns, value):
        seen["columns"], seen["model"] = columns, self
        return tuner_fit(self, columns, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selector.Pipeline, "fit", fit)
        assert tuner.fit(images)[0]["selector", "precision"] == post  # the same seed, the same forest
    classes, columns = seen["columns"][:, 0].astype(int), seen["columns"][:, 1:]
    np.testing.assert_allclose(
        post.selector.expected_scores(columns, classes), seen["model"].predict(seen["columns"]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("filler_class", [FILLER_CLASS, None])
def test_metric_of_the_table_equals_that_of_the_masks(filler_class):
    """The score of `RankedCandidates` is that of the masks which are submitted."""
    images = match_images(*scene(images=12, told_by=None), PARAMS)
    tuner = Tuner(
        params=TUNE,
        submission=PARAMS,
        categories=[1, 2, 3],
        attribute_count=2,
        attribute_pairs=PLAIN.attribute_pairs,
        filler_class=filler_class,
        seed=0,
        workers=1,
    )
    table = CandidateTable.of(images, [tuner.f1_levels(image, PLAIN) for image in images], filler_class)
    ranked = table.ranked(np.concatenate([image.candidates.scores for image in images]), PLAIN)
    for formula in ("precision", "jaccard"):
        metric = replace(TUNE, formula=formula)
        for threshold in (0.1, 0.5, 0.8):
            for single in (False, True):
                post = replace(
                    PLAIN,
                    score_thresholds=Thresholds(threshold),
                    max_per_image=1 if single else None,
                    may_be_empty=filler_class is None,
                )
                pairs = cross_validation.submitted_and_true(post, images, PARAMS)
                exact = kaggle_metric.score(kaggle_metric.count_matches(pairs, metric, 2, filler_class), metric)
                assert ranked.metric_score(ranked.scores - threshold, single, metric) == pytest.approx(exact)


@pytest.mark.parametrize("average", ["image", "class", "all"])
def test_only_jaccard_by_image_decides_image_by_image(average):
    images = match_images(*scene(images=30, told_by="mask_score"), PARAMS)
    tuner = Tuner(
        params=replace(TUNE, average=average),
        submission=PARAMS,
        categories=[1, 2, 3],
        attribute_count=2,
        attribute_pairs=PLAIN.attribute_pairs,
        filler_class=FILLER_CLASS,
        seed=0,
        workers=1,
    )
    fitted = tuner.fit(images)[0]
    assert fitted["selector", "precision"].selector.true_per_image is None
    assert fitted["selector", "jaccard"].selector.true_per_image in ((None, 4.0) if average == "image" else (None,))
