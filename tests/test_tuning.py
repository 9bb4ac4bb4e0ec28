"""Tuning finds what pays, says honestly what it gains, and its parts are their definitions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from claims_scenes import METRIC, PARAMS, document, prediction, rectangle, scene
from fashionseg import masks, rle, submission, tuning
from fashionseg.claiming.rule import Rule, Selector, Thresholds
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


def test_choosing_among_ways_that_differ_by_luck_is_worth_no_more_than_any():
    """What each way finds is noise of the same mean, so the best of three looks better than it is; `value` does not."""
    random = np.random.default_rng(0)
    reported, lucky = [], []
    for _ in range(200):
        tallies = {
            way: [tally_of(random.integers(0, 11, 6)) for _ in range(5)] for way in ("score", "rule", "selector")
        }
        way, values = tuning._choice(tallies, TUNE)
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
    return kaggle.Tally(numbers, ones, numbers, levels, ones * kaggle.LEVELS, numbers, ones, len(levels))


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
    stock = tuning.Stock.of(images, [tuner.agreed(image, PLAIN) for image in images])
    pool = stock.pool(np.concatenate([image.found.scores for image in images]), PLAIN)
    for formula in ("precision", "jaccard"):
        metric = replace(TUNE, formula=formula)
        for floor in (0.1, 0.5, 0.8):
            rule = replace(PLAIN, scores=Thresholds(floor))
            pairs = tuning.claimed(rule, images, PARAMS)
            exact = kaggle.value(kaggle.tally(pairs, metric, 2), metric)
            assert pool.value(pool.worth - floor, False, metric) == pytest.approx(exact)


def crowd(images, random):
    """Images of candidates that overlap a lot, of two classes, and as many true instances."""
    truth, claims = [], []
    for i in range(1, images + 1):
        for _ in range(random.integers(0, 12)):
            mask = rectangle(*random.integers(0, 4, 2) * 10, *random.integers(1, 5, 2) * 10)
            score, category_id = round(float(random.uniform(0.05, 0.95)), 1), int(random.integers(1, 3))
            claims.append(prediction(mask, score, category_id, i))
            if random.random() < 0.5:
                truth.append(prediction(mask, 1.0, category_id, i))
    return document(images, *truth), claims


@pytest.mark.parametrize(
    "changes", [{}, {"nms_iou": 0.3}, {"mask_overlap": 0.5}, {"nms_iou": 0.5, "mask_overlap": 0.7, "min_area": 300}]
)
def test_a_stock_leaves_what_the_rule_would_choose(changes):
    """All images at once against the rule's own loop, image by image; also of some images, numbered anew."""
    random = np.random.default_rng(4)
    images = tuning.match(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    worths = [random.integers(0, 10, len(image.iou)) / 10 for image in images]  # many alike
    rule = replace(PLAIN, **changes)
    pool = tuning.Stock.of(images, levels).pool(np.concatenate(worths), rule)
    chosen = [rule.chosen(image.found, worth) for image, worth in zip(images, worths, strict=True)]
    np.testing.assert_array_equal(pool.tally.images, np.repeat(np.arange(30), [len(kept) for kept in chosen]))
    for column, by_image in (
        (pool.worth, worths),
        (pool.tally.agreement, levels),
        (pool.tally.overlap, [kaggle.level(image.iou) for image in images]),
        (pool.tally.classes, [image.found.classes for image in images]),
    ):
        np.testing.assert_array_equal(column, np.concatenate([v[k] for v, k in zip(by_image, chosen, strict=True)]))
    some = np.arange(30) % 3 == 1
    expected = tuning.Stock.of(images[1::3], levels[1::3]).pool(np.concatenate(worths[1::3]), rule)
    for formula in tuning.FORMULAS:
        metric = replace(TUNE, formula=formula)
        part = pool.of(some)
        assert part.value(part.worth - 0.4, False, metric) == expected.value(expected.worth - 0.4, False, metric)


@pytest.mark.parametrize("instances", [0.5, 3.0, 9.0])
def test_a_pool_claims_the_set_that_the_rule_does(instances):
    random = np.random.default_rng(5)
    images = tuning.match(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    worths = [random.random(len(image.iou)) for image in images]
    rule = replace(PLAIN, nms_iou=0.5, selector=Selector(0.0, Thresholds(0.0), None, instances))
    pool = tuning.Stock.of(images, levels).pool(np.concatenate(worths), rule)
    chosen = [rule.chosen(image.found, worth) for image, worth in zip(images, worths, strict=True)]
    expected = np.concatenate([worth[kept] for worth, kept in zip(worths, chosen, strict=True)])
    np.testing.assert_array_equal(pool.paying(instances)[pool.paying(instances) >= 0], expected)
    claimed = pool.claimed(pool.paying(instances), False)
    np.testing.assert_array_equal(claimed.images, np.repeat(np.arange(30), [len(kept) for kept in chosen]))


@pytest.mark.parametrize("average", ["image", "class", "all"])
def test_only_jaccard_by_image_knows_a_floor_for_each_image(average):
    images = tuning.match(*scene(images=30, told_by="mask_score"), PARAMS)
    tuner = tuning.Tuner(replace(TUNE, average=average), PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    rules = tuner.fit(images)[0]
    assert rules["selector", "precision"].selector.instances is None
    assert rules["selector", "jaccard"].selector.instances in ((None, 4.0) if average == "image" else (None,))


@pytest.mark.parametrize("average", ["image", "class", "all"])
@pytest.mark.parametrize("formula", tuning.FORMULAS)
def test_thresholds_by_class_against_the_whole_metric(formula, average, monkeypatch):
    """Only images with a candidate of the class are looked at again; the plain way takes all for each threshold."""
    monkeypatch.setattr(tuning, "FEW", 5)
    metric = replace(TUNE, formula=formula, average=average)
    random = np.random.default_rng(7)
    images = tuning.match(*crowd(24, random), PARAMS)
    tuner = tuning.Tuner(TUNE, PARAMS, [1, 2, 3], 2, seed=0, workers=1)
    levels = [tuner.agreed(image, PLAIN) for image in images]
    pool = tuning.Stock.of(images, levels).pool(np.concatenate([image.found.scores for image in images]), PLAIN)

    def values(thresholds):
        rule = replace(PLAIN, scores=thresholds)
        found = []
        for start in range(tuning.PARTS):
            pairs = []
            for image in images[start :: tuning.PARTS]:
                kept = rule.chosen(image.found, rule.worth(image.found))
                claims = kaggle.Instances(image.found.masks[kept], image.found.classes[kept], [frozenset()] * len(kept))
                pairs.append((claims, image.truth))
            found.append(kaggle.value(kaggle.tally(pairs, metric, 2), metric))
        return np.array(found)

    numbers, counts = np.unique(pool.tally.classes[pool.tally.overlap > 0], return_counts=True)
    best, reached = PLAIN.scores, values(PLAIN.scores)
    for number in numbers[np.argsort(-counts, kind="stable")]:
        for floor in sorted((*tuning.FLOORS, tuning.NEVER), key=lambda floor: abs(floor - best.common)):
            tried = Thresholds(best.common, {**best.own, str(number): float(floor)})
            gain = values(tried) - reached
            if (gain > -1e-12).all() and gain.sum() > 1e-12:
                best, reached = tried, reached + gain
    assert tuner._by_class(pool, PLAIN, metric) == best
    assert best.own or (formula, average) == ("precision", "all")


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


def test_a_sweep_of_masks_is_matching_anew_at_every_threshold():
    """Masks of noise: how many IoU thresholds the best candidate near each true instance exceeds."""
    random = np.random.default_rng(2)
    truth, claims = [], []
    for i in range(1, 6):
        for place in range(4):
            x, y = place % 2 * 50, place // 2 * 50
            truth.append(prediction(rectangle(x + 5, y + 5, 30, 30), 1.0, image_id=i))
            for _ in range(2):
                noise = cv2.GaussianBlur(random.random((28, 28), np.float32), (0, 0), 2) * 0.3 + 0.4
                box = [x + 4, y + 4, *random.integers(26, 36, 2).tolist()]
                seen = masks.paste(masks.unpack(masks.pack(noise)), box, 100, 100, 0.5)[0].decode(0)
                score = round(float(random.uniform(0.1, 0.9)), 3)
                claims.append({**prediction(seen, score, image_id=i), "bbox": box, "mask": masks.pack(noise)})
    scene = document(5, *truth), claims
    images = tuning.match(*scene, PARAMS)
    sweep = tuning.MaskSweep.of(scene[0], images, PARAMS, workers=1)
    assert len(sweep.scores) > 10
    for column, threshold in enumerate([None, *tuning.MASK_THRESHOLDS]):
        row = 0
        for number, (image, moved) in enumerate(
            zip(images, tuning.match(*scene, replace(PARAMS, min_area=0), 1, threshold), strict=True)
        ):
            best = {}
            for i in range(len(image.iou)):
                if image.iou[i] >= tuning.NEAR:
                    best.setdefault(int(image.true[i]), i)
            for true in sorted(best):
                truth_mask = image.truth.masks[true]
                iou = moved.found.masks[best[true]].iou(truth_mask)[0]
                assert (sweep.images[row], sweep.scores[row]) == (number, image.found.scores[best[true]])
                assert sweep.levels[row, column] == sum(iou > t for t in kaggle.THRESHOLDS)
                row += 1
        assert row == len(sweep.scores)
    few = np.array([0, 3])
    rows = np.isin(sweep.images, few)
    sums = (sweep.scores[rows, None] * sweep.levels[rows]).sum(0)
    place = sums.tolist().index(max(sums))
    assert sweep.best(few) == (None if place == 0 else tuning.MASK_THRESHOLDS[place - 1])


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
