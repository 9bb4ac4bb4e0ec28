"""The competition's metric against its definition, one pair of thresholds after the other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from fashionseg.core import rle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Metric


def brute(submitted, truth, formula):
    """The metric by its definition. submitted, truth: lists of (bitmap, class, attributes)."""
    values = []
    for t_i in range(50, 100, 5):
        for t_f in range(50, 100, 5):
            hit, found = 0, set()
            for bitmap, class_id, attributes in submitted:
                good = False
                for place, (true, true_class, true_attributes) in enumerate(truth):
                    if class_id != true_class or (bitmap & true).sum() * 100 <= t_i * (bitmap | true).sum():
                        continue
                    if true_attributes:
                        both = 2 * len(attributes & true_attributes)
                        if both * 100 <= t_f * (len(attributes) + len(true_attributes)):
                            continue
                    good = True
                    found.add(place)
                hit += good
            count = max(len(submitted), 1)
            if formula == "precision":
                values.append(hit / count)
            else:
                values.append(hit / (count + len(truth) - len(found)))
    return np.mean(values)


def of(rows):
    masks = rle.concatenate([rle.encode(bitmap) for bitmap, _, _ in rows])
    return kaggle_metric.ImageInstances(
        masks, np.array([n for _, n, _ in rows], int), [frozenset(a) for _, _, a in rows]
    )


@st.composite
def scenes(draw):
    """Bands as true instances, and bands a little longer or shorter as submitted ones, with attributes."""
    truth, submitted = [], []
    for band in range(draw(st.integers(0, 4))):
        class_id = draw(st.integers(0, 2))
        true = np.zeros((40, 40), bool)
        true[band * 10 : band * 10 + 8, : draw(st.integers(10, 30))] = True
        attributes = draw(st.sets(st.integers(0, 5), max_size=4))
        if draw(st.booleans()):
            truth.append((true, class_id, attributes))
        instance = np.zeros((40, 40), bool)
        instance[band * 10 : band * 10 + 8, : draw(st.integers(10, 30))] = True
        if draw(st.booleans()):
            submitted.append(
                (instance, draw(st.sampled_from([class_id, class_id, 1])), draw(st.sets(st.integers(0, 5), max_size=4)))
            )
    return submitted, truth


METRIC = Metric(formula="precision", average="image", f1="set")


def scored(*scenes, filler_class=23, **changes):
    metric = replace(METRIC, **changes)
    pairs = [(of(submitted), of(truth)) for submitted, truth in scenes]
    return kaggle_metric.score(kaggle_metric.count_matches(pairs, metric, 6, filler_class), metric)


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(scenes(), min_size=1, max_size=3))
def test_score_equals_the_definition(formula, drawn):
    expected = np.mean([brute(submitted, truth, formula) for submitted, truth in drawn])
    assert scored(*drawn, formula=formula) == pytest.approx(expected)


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@settings(max_examples=20, deadline=None)
@given(drawn=st.lists(scenes(), min_size=1, max_size=3))
def test_average_class_is_the_mean_over_classes_then_images(formula, drawn):
    values = []
    for submitted, truth in drawn:
        if not submitted:  # the filler row: a shoe that is not a hit
            submitted = [(np.zeros((40, 40), bool), 23, set())]
        classes = {n for _, n, _ in submitted} | ({n for _, n, _ in truth} if formula == "jaccard" else set())
        of_class = [
            brute([row for row in submitted if row[1] == n], [row for row in truth if row[1] == n], formula)
            for n in classes
        ]
        values.append(np.mean(of_class))
    assert scored(*drawn, formula=formula, average="class") == pytest.approx(np.mean(values))


@pytest.mark.parametrize("average", ["image", "class", "all"])
@settings(max_examples=15, deadline=None)
@given(drawn=st.lists(scenes(), min_size=2, max_size=5))
def test_joined_counts_and_the_mean_of_image_scores(average, drawn):
    metric = replace(METRIC, formula="jaccard", average=average)
    pairs = [(of(submitted), of(truth)) for submitted, truth in drawn]
    joined = kaggle_metric.joined(
        [kaggle_metric.count_matches(pairs[:1], metric, 6, 23), kaggle_metric.count_matches(pairs[1:], metric, 6, 23)]
    )
    whole = kaggle_metric.count_matches(pairs, metric, 6, 23)
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(getattr(joined, name), column)
    if average != "all":
        assert kaggle_metric.image_scores(joined, metric) == pytest.approx(
            [scored(scene, **vars(metric)) for scene in drawn]
        )


def test_average_all_sums_hits_over_images():
    perfect, nothing = (np.eye(20, dtype=bool), 4, set()), (np.eye(20, dtype=bool)[::-1], 4, set())
    images = ([perfect], [perfect]), ([nothing, nothing], [perfect])
    assert scored(*images) == pytest.approx(1 / 2)
    assert scored(*images, average="all") == pytest.approx(1 / 3)
    assert scored(*images, average="all", formula="jaccard") == pytest.approx(1 / 4)


def test_perfect_and_empty_submissions():
    true = (np.eye(20, dtype=bool), 4, {1, 3})
    without = (np.eye(20, dtype=bool), 4, set())
    for formula in ("precision", "jaccard"):
        assert scored(([true], [true]), formula=formula) == 1
        assert scored(([], [true]), formula=formula) == 0
        assert (
            scored(([without], [true]), formula=formula) == 0
        )  # the truth has attributes, the submitted instance none
        assert scored(([true], [without]), formula=formula) == 1  # without true attributes only IoU counts
        assert scored(([without], [true]), formula=formula, f1="none") == 1
        assert scored(([], []), formula=formula) == 0  # the filler row


def test_a_true_instance_is_found_once():
    true = (np.eye(20, dtype=bool), 4, set())
    assert scored(([true, true], [true])) == 1 / 2


@settings(max_examples=30, deadline=None)
@given(first=st.frozensets(st.integers(0, 9)), second=st.frozensets(st.integers(0, 9)))
def test_f1_equals_scikit_learn(first, second):
    vectors = [[i in ids for i in range(10)] for ids in (second, first)]
    binary, macro = (
        f1_score(*vectors, average=kind, zero_division=1.0, **labels)
        for kind, labels in (("binary", {}), ("macro", {"labels": [False, True]}))
    )
    assert kaggle_metric.f1(first, second, "set", 10) == pytest.approx(binary)
    assert kaggle_metric.f1(first, second, "macro", 10) == pytest.approx(macro)
    assert kaggle_metric.f1(first, second, "none", 10) == 1


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@pytest.mark.parametrize("average", ["image", "class"])
@settings(max_examples=20, deadline=None)
@given(drawn=st.lists(scenes(), min_size=1, max_size=4))
def test_a_picture_that_may_be_left_empty(formula, average, drawn):
    """Without submitted instances it scores 1 if it has no true ones, and 0 if it has; the others as ever."""
    values = [scored(scene, formula=formula, average=average) if scene[0] else float(not scene[1]) for scene in drawn]
    assert scored(*drawn, formula=formula, average=average, filler_class=None) == pytest.approx(np.mean(values))


def test_average_all_without_a_filler_row_counts_true_and_submitted_instances():
    perfect = [(np.eye(20, dtype=bool), 4, set())]
    images = (perfect, perfect), ([], []), ([], perfect)
    assert scored(*images, average="all", formula="jaccard", filler_class=None) == pytest.approx(1 / 2)
    assert scored(*images, average="all", filler_class=None) == 1
    assert scored(([], perfect), average="all", filler_class=None) == 0


def test_the_filler_row_may_be_of_class_0():
    assert scored(([], []), filler_class=0) == 0


def test_the_first_submitted_takes_the_true_instance():
    true, worse = np.ones((10, 10), bool), np.ones((10, 10), bool)
    worse[:, 7:] = False  # IoU 0.7: above four of ten thresholds
    rows = (worse, 4, set()), (true, 4, set())
    assert scored((rows, [rows[1]])) == pytest.approx(0.4 / 2)
    assert scored((rows[::-1], [rows[1]])) == pytest.approx(1 / 2)


def test_the_truth_of_plain_coco_has_no_attributes():
    row = {"category_id": 4, "segmentation": rle.encode(np.ones((20, 40), bool)).to_coco()[0]}
    truth = kaggle_metric.ImageInstances.of_coco([row], 10, 20)
    assert (truth.masks.decode(0).shape, truth.attributes) == ((10, 20), [frozenset()])
