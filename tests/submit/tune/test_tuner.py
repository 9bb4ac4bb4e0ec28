"""The post-processing of each strategy."""

from dataclasses import replace

import numpy as np
import pytest

from fashionseg.submit import kaggle_metric
from fashionseg.submit.forest import Forest
from fashionseg.submit.postprocess import Selector, Thresholds
from fashionseg.submit.tune import cross_validation, selector
from fashionseg.submit.tune.candidate_table import CandidateTable
from fashionseg.submit.tune.matched_images import match_images
from fashionseg.submit.tune.thresholds import SCORE_THRESHOLDS
from fashionseg.submit.tune.tuner import FORMULAS, Tuner
from submission_scenes import FILLER_CLASS, PARAMS, PLAIN, TUNE, scene


def test_the_forest_predicts_as_scikit_learn():
    images = match_images(*scene(images=20, told_by="mask_score"), PARAMS)
    tuner = some_tuner(FILLER_CLASS)
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


def random_table(random):
    """Candidates of few pictures with random overlaps among them and with the ground truth, and scores that tell a
    little."""
    image_count, count = int(random.integers(3, 12)), int(random.integers(8, 40))
    images, classes = np.sort(random.integers(0, image_count, count)), random.integers(0, 2, count)
    true_images, true_classes = np.sort(random.integers(0, image_count, 10)), random.integers(0, 2, 10)
    random.integers(0, 10, count)
    iou_levels, nearest = random.integers(0, 11, count) * (random.random(count) < 0.5), np.zeros(count, int)
    for place in range(count):
        own = np.flatnonzero((true_images == images[place]) & (true_classes == classes[place]))
        nearest[place], iou_levels[place] = (own[0], iou_levels[place]) if len(own) else (0, 0)
    same = (images[:, None] == images) & (classes[:, None] == classes) & ~np.eye(count, dtype=bool)
    suppressed, by = np.nonzero(same)
    iou = random.random(len(by))
    counts = kaggle_metric.MatchCounts(
        images=images,
        classes=classes,
        nearest=nearest,
        iou_levels=iou_levels,
        f1_levels=np.full(count, 10),
        true_images=true_images,
        true_classes=true_classes,
        image_count=image_count,
        filler_class=None,
    )
    areas, covered = random.integers(20, 400, count), np.minimum(1, iou * 1.2).astype(np.float32)
    table = CandidateTable(
        counts=counts, areas=areas, suppressed=suppressed, by=by, iou=iou.astype(np.float32), covered=covered
    )
    return table, np.clip(iou_levels / 10 * 0.7 + random.random(count) * 0.4, 0, 1).round(4)


@pytest.mark.parametrize("seed", [1402, 2733])
def test_the_selector_keeps_the_best_threshold_after_suppression(seed):
    """Where pictures may be left empty, that of one candidate a picture may be another one."""
    table, expected = random_table(np.random.default_rng(seed))
    forest = Selector(0.0, Thresholds(0.1), Forest(("x",), [0.1]))
    post = replace(PLAIN, min_area=20, may_be_empty=True, selector=forest)
    for formula in FORMULAS:
        metric = replace(TUNE, formula=formula, average="all")
        tuner = Tuner(
            params=metric,
            submission=replace(PARAMS, min_area=20),
            categories=[1, 2],
            attribute_count=0,
            attribute_pairs={},
            filler_class=None,
            seed=0,
            workers=1,
        )
        fitted = tuner._fit_selector_strategy(table, expected, post, metric)
        if fitted.max_per_image is None:
            ranked = table.ranked(expected, fitted)
            scores = [ranked.metric_score(ranked.scores - t, False, metric) for t in SCORE_THRESHOLDS]
            assert ranked.metric_score(ranked.scores - fitted.selector.threshold, False, metric) == max(scores)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("filler_class", [1, None])
def test_the_best_threshold_is_that_of_all(formula, filler_class):
    """With one candidate a picture, too, where pictures may be left empty."""
    tuner = some_tuner(filler_class)
    metric = replace(TUNE, formula=formula)
    for seed in range(40):
        table, scores = random_table(np.random.default_rng(seed))
        table = replace(table, counts=replace(table.counts, filler_class=filler_class))
        ranked = table.ranked(scores, PLAIN)
        threshold, single, _ = tuner._best_threshold(ranked, metric)
        every = [ranked.metric_score(ranked.scores - t, one, metric) for t in SCORE_THRESHOLDS for one in (True, False)]
        assert ranked.metric_score(ranked.scores - threshold, single, metric) == max(every), seed


def some_tuner(filler_class, **changes):
    return Tuner(
        params=replace(TUNE, **changes),
        submission=PARAMS,
        categories=[1, 2, 3],
        attribute_count=2,
        attribute_pairs=PLAIN.attribute_pairs,
        filler_class=filler_class,
        seed=0,
        workers=1,
    )


def test_image_by_image_where_that_scores_more():
    metric, chosen = replace(TUNE, formula="jaccard"), 0
    forest = Selector(0.0, Thresholds(0.1), Forest(("x",), [0.1]))
    post = replace(PLAIN, min_area=20, selector=forest)
    tuner = replace(some_tuner(FILLER_CLASS), submission=replace(PARAMS, min_area=20))
    for seed in range(40):
        table, expected = random_table(np.random.default_rng(seed))
        table = replace(table, counts=replace(table.counts, filler_class=FILLER_CLASS))
        fitted = tuner._fit_selector_strategy(table, expected, post, metric)
        if true_per_image := fitted.selector.true_per_image:
            chosen += 1
            assert true_per_image == round(10 / table.counts.image_count, 3)
            plain, ranked = table.ranked(expected, post), table.ranked(expected, fitted)
            every = [
                plain.metric_score(plain.scores - t, one, metric) for t in SCORE_THRESHOLDS for one in (True, False)
            ]
            assert ranked.metric_score(ranked.jaccard_gains(true_per_image), False, metric) > max(every)
    assert chosen


def test_expected_scores_are_of_images_that_the_forest_has_not_seen():
    """Where nothing tells right from wrong they are no better than chance."""
    images = match_images(*scene(images=24, told_by=None), PARAMS)
    levels = [np.full(len(image.iou), 10) for image in images]
    _, expected, tables = selector.fit_selector(images, levels, PLAIN, TUNE, seed=0, workers=1)
    right = np.concatenate([image.iou for image in images]) > 0
    assert abs(np.corrcoef(expected, right)[0, 1]) < 0.3
    bins = tables["calibration"]
    tenths = np.minimum((expected * 10).astype(int), 9)
    assert np.allclose(bins["expected"], [expected[tenths == tenth].mean() for tenth in bins.index])
