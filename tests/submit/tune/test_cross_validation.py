"""`tune` finds the best strategy, and its cross-validated score is not optimistic."""

from dataclasses import replace

import numpy as np
import pytest

from fashionseg.coco import masks
from fashionseg.core import rle
from fashionseg.core.errors import UserError
from fashionseg.submit import kaggle_metric, postprocess, submission
from fashionseg.submit.tune import cross_validation
from fashionseg.submit.tune.tuner import FORMULAS
from submission_scenes import FILLER_CLASS, PARAMS, TUNE, document, prediction, rectangle, sample_of, scene


def tune(scene, filler_class=FILLER_CLASS, **changes):
    pairs = postprocess.attribute_pairs(scene[0])
    options = {"filler_class": filler_class, "seed": 0, "workers": 1}
    return cross_validation.tune(*scene, pairs, replace(TUNE, **changes), PARAMS, **options)


def test_one_instance_for_precision_and_several_for_jaccard():
    truth, predictions = [], []
    for i in range(1, 9):
        good, fair, fair_prediction = rectangle(0, 0, 30, 30), rectangle(50, 50, 40, 40), rectangle(50, 50, 40, 28)
        truth += [prediction(mask, 1.0, image_id=i) for mask in (good, fair)]
        predictions += [prediction(mask, score, image_id=i) for mask, score in ((good, 0.62), (fair_prediction, 0.53))]
    post, strategy, scores, tables = tune((document(8, *truth), predictions))
    assert post.max_per_image == 1
    assert scores["score"] == 1.0
    assert strategy == "score"  # of equal strategies the simplest
    at = tables["thresholds"].set_index("threshold")
    assert at["precision"][0.0] == pytest.approx((1 + 0.4) / 2)
    assert at["jaccard"][0.0] == pytest.approx(0.4 + 0.6 / 3)  # two of two found, or one of the two
    assert at["jaccard"][0.6] == pytest.approx(0.5)
    post, strategy, scores, _ = tune((document(8, *truth), predictions), formula="jaccard")
    assert post.max_per_image is None
    assert scores["score"] == pytest.approx(0.6)


def test_the_selector_uses_other_features_than_the_score():
    """Scores are noise, and masks are right where mask_score is high: the forest has the best cross-validated score."""
    _, strategy, scores, tables = tune(scene(images=24, told_by="mask_score"))
    assert strategy == "selector"
    assert scores["selector"] > scores["score"] + 0.2
    assert tables["importance"].set_index("feature")["importance"].idxmax() == "mask_score"
    ways = tables["strategies"].set_index(["formula", "strategy"])
    assert set(ways.index) == {(f, w) for f in ("precision", "jaccard") for w in ("score", "rule", "selector")}
    assert ways["gain"]["precision", "selector"] == pytest.approx(scores["selector"] - scores["score"], abs=1e-4)
    assert 0 < ways["error"]["precision", "selector"] < 0.1


def test_noise_gains_nothing_in_cross_validation():
    """Without any useful feature the cross-validated score is that of a random choice, not that of the best fit."""
    _, _, scores, _ = tune(scene(images=24, told_by=None))
    assert max(scores.values()) < 0.62  # half of the candidates are right


def test_the_score_of_choosing_a_strategy_is_not_optimistic():
    """The scores of three strategies are noise with the same mean: the best of three is above it, `value` is not."""
    random = np.random.default_rng(0)
    reported, lucky = [], []
    for _ in range(200):
        fold_counts = {
            strategy: [counts_of(random.integers(0, 11, 6)) for _ in range(5)]
            for strategy in ("score", "rule", "selector")
        }
        strategy, scores = cross_validation._choose_strategy(fold_counts, TUNE)
        assert scores[strategy] == max(scores[name] for name in fold_counts)
        reported.append(scores["value"])
        lucky.append(scores[strategy])
    exact = np.mean([found * 10 / 100 for found in range(11)])
    assert np.mean(lucky) > exact + 0.03
    assert np.mean(reported) == pytest.approx(exact, abs=0.02)


def counts_of(levels):
    """One submitted instance an image, of these IoU levels and the highest F1 level."""
    numbers = np.arange(len(levels))
    ones = np.ones_like(numbers)
    return kaggle_metric.MatchCounts(
        images=numbers,
        classes=ones,
        nearest=numbers,
        iou_levels=levels,
        f1_levels=ones * kaggle_metric.THRESHOLD_COUNT,
        true_images=numbers,
        true_classes=ones,
        image_count=len(levels),
        filler_class=FILLER_CLASS,
    )


def soft_scene(images, edge):
    """One garment an image, whose soft mask falls from 1 to 0 across the box; the true mask ends where it is `edge`."""
    text = masks.pack(np.tile(np.linspace(1, 0, 28), (28, 1)))
    slope = masks.unpack(text)
    truth, predictions = [], []
    for i in range(1, images + 1):
        there = masks.paste(slope, [20, 20, 56, 40], 100, 100, edge)[0].decode(0)
        truth.append(prediction(there, 1.0, image_id=i))
        seen = masks.paste(slope, [20, 20, 56, 40], 100, 100, 0.5)[0].decode(0)
        predictions.append({**prediction(seen, 0.9, image_id=i), "bbox": [20, 20, 56, 40], "mask": text})
    return document(images, *truth), predictions


@pytest.mark.parametrize("edge", [0.3, 0.5, 0.65])
def test_the_best_mask_threshold_is_found(edge):
    """Masks at that threshold equal the true ones, in cross-validation and in the submission."""
    truth, predictions = soft_scene(6, edge)
    post, _, scores, tables = tune((truth, predictions))
    assert post.mask_threshold == (None if edge == 0.5 else edge)
    assert scores["score"] == 1.0
    by_threshold = tables["masks"].set_index("threshold")["value"]
    assert by_threshold[edge] == 1.0
    assert by_threshold[[0.3, 0.7]].min() < 0.6
    rows, _ = submission.table(truth, predictions, post, sample_of(6), PARAMS)
    expected = rle.from_coco([row["segmentation"] for row in truth["annotations"]]).to_kaggle()
    assert rows["EncodedPixels"].tolist() == expected


def test_too_few_images_or_candidates():
    with pytest.raises(UserError, match="1 validation image is too few"):
        tune((document(1), []))
    assert tune(scene(images=2, told_by=None))[1] in ("score", "rule")  # 16 candidates are too few for a forest
    truth = document(6, *(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i) for i in range(1, 7)))
    crowded = [prediction(rectangle(i, 0, 30, 30), 0.9 - i / 100, image_id=1) for i in range(60)]
    one_more = prediction(rectangle(0, 0, 30, 30), 0.9, image_id=2)
    assert tune((truth, [*crowded, one_more]))[1] in ("score", "rule")  # one candidate beside those of a picture


@pytest.mark.parametrize("formula", FORMULAS)
def test_without_predictions_the_submission_is_valid(formula):
    truth = document(4, prediction(rectangle(0, 0, 9, 9), 1.0))
    post, strategy, scores, _ = tune((truth, []), formula=formula)
    assert (strategy, scores["score"], post.selector) == ("score", 0, None)
    rows, _ = submission.table(truth, [], post, sample_of(4), PARAMS)
    assert (rows["EncodedPixels"] == "1 1").all()
    assert len(rows) == 4


@pytest.mark.parametrize(("formula", "sometimes"), [("precision", True), ("precision", False), ("jaccard", False)])
def test_a_class_of_false_positives_gets_its_own_threshold(formula, sometimes):
    """Class 2 is wrong where its score is high, and `sometimes` right, with a worse mask, where its score is low.
    With a threshold by class it is no longer submitted."""
    truth, predictions = [], []
    for i in range(1, 101):
        truth.append(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i))
        predictions.append(prediction(rectangle(0, 0, 30, 30), 0.6, image_id=i))
        predictions.append(prediction(rectangle(50, 50, 30, 30), 0.8, category_id=2, image_id=i))
        if sometimes and i % 2:
            truth.append(prediction(rectangle(0, 50, 30, 30), 1.0, category_id=2, image_id=i))
            predictions.append(prediction(rectangle(0, 50, 30, 17), 0.1, category_id=2, image_id=i))
    post, strategy, scores, _ = tune((document(100, *truth), predictions), trees=1, leaf=1000, formula=formula)
    assert strategy == "rule"
    assert post.score_thresholds["2"] > max(0.8, post.score_thresholds["1"] + 0.2)
    assert scores["rule"] == scores["value"] == pytest.approx(1.0)
    assert scores["score"] == pytest.approx(0.5)


@pytest.mark.parametrize("formula", FORMULAS)
def test_pictures_without_instances_are_left_empty_where_they_may_be(formula):
    """Two in three have none, and a false positive of low score; without empty rows each gets one all the same."""
    truth, predictions = [], []
    for i in range(1, 31):
        if i % 3 == 0:
            truth.append(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i))
        predictions.append(prediction(rectangle(0, 0, 30, 30), 0.2 + 0.6 * (i % 3 == 0), image_id=i))
    scene = document(30, *truth), predictions
    post, _, scores, _ = tune(scene, None, formula=formula, leaf=1000)
    assert scores["value"] == 1
    sample = sample_of(30, EncodedPixels="")
    assert sample.filler_class is None
    rows, _ = submission.table(*scene, post, sample, PARAMS)
    assert rows["EncodedPixels"].ne("").tolist() == [i % 3 == 0 for i in range(1, 31)]
    assert tune(scene, formula=formula, leaf=1000)[2]["value"] == pytest.approx(1 / 3, abs=1e-5)


def test_small_false_positives_go_by_their_area():
    truth, predictions = [], []
    for i in range(1, 9):
        truth.append(prediction(rectangle(0, 0, 30, 30), 1.0, image_id=i))
        predictions.append(prediction(rectangle(0, 0, 30, 30), 0.5, image_id=i))
        predictions.append(prediction(rectangle(50, 50, 5, 5), 0.9, image_id=i))
    post, strategy, scores, _ = tune((document(8, *truth), predictions), leaf=1000)
    assert (strategy, post.min_area, scores["value"]) == ("rule", 32, 1)


def test_second_masks_of_a_garment_are_suppressed():
    """Where a second one scores more than the next garment, no threshold tells them apart."""
    truth, predictions = [], []
    for i in range(1, 9):
        for place, score in ((0, 0.9), (50, 0.6)):
            whole = rectangle(place, place, 30, 30)
            truth.append(prediction(whole, 1.0, image_id=i))
            predictions.append(prediction(whole, score, image_id=i))
        predictions.append(prediction(rectangle(0, 0, 40, 35), 0.8, image_id=i))
    post, strategy, scores, _ = tune((document(8, *truth), predictions), leaf=1000, formula="jaccard")
    assert (strategy, scores["value"]) == ("rule", 1)
    assert post.nms_iou < 0.7 or post.mask_overlap < 1
