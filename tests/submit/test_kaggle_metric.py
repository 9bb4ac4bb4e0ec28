"""The competition's metric against its definition, pair of thresholds by pair of thresholds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from fashionseg.core import rle
from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Metric


def brute(claims, truth, formula):
    """claims, truth: lists of (bitmap, class, attributes); the definition in sets of pixels."""
    values = []
    for t_i in range(50, 100, 5):
        for t_f in range(50, 100, 5):
            hit, found = 0, set()
            for bitmap, number, attributes in claims:
                good = False
                for place, (true, true_number, true_attributes) in enumerate(truth):
                    if number != true_number or (bitmap & true).sum() * 100 <= t_i * (bitmap | true).sum():
                        continue
                    if true_attributes:
                        both = 2 * len(attributes & true_attributes)
                        if both * 100 <= t_f * (len(attributes) + len(true_attributes)):
                            continue
                    good = True
                    found.add(place)
                hit += good
            claimed = max(len(claims), 1)
            if formula == "precision":
                values.append(hit / claimed)
            else:
                values.append(hit / (claimed + len(truth) - len(found)))
    return np.mean(values)


def of(rows):
    masks = rle.concatenate([rle.encode(bitmap) for bitmap, _, _ in rows])
    return kaggle_metric.Instances(masks, np.array([n for _, n, _ in rows], int), [frozenset(a) for _, _, a in rows])


@st.composite
def scenes(draw):
    """Bands of true instances and claims that are those, a little longer or shorter, with some attributes."""
    truth, claims = [], []
    for band in range(draw(st.integers(0, 4))):
        number = draw(st.integers(0, 2))
        true = np.zeros((40, 40), bool)
        true[band * 10 : band * 10 + 8, : draw(st.integers(10, 30))] = True
        attributes = draw(st.sets(st.integers(0, 5), max_size=4))
        if draw(st.booleans()):
            truth.append((true, number, attributes))
        claim = np.zeros((40, 40), bool)
        claim[band * 10 : band * 10 + 8, : draw(st.integers(10, 30))] = True
        if draw(st.booleans()):
            claims.append(
                (claim, draw(st.sampled_from([number, number, 1])), draw(st.sets(st.integers(0, 5), max_size=4)))
            )
    return claims, truth


METRIC = Metric(formula="precision", average="image", f1="set")


def scored(*scenes, **changes):
    metric = replace(METRIC, **changes)
    return kaggle_metric.value(
        kaggle_metric.tally([(of(claims), of(truth)) for claims, truth in scenes], metric, 6), metric
    )


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(scenes(), min_size=1, max_size=3))
def test_value_is_the_definition(formula, drawn):
    expected = np.mean([brute(claims, truth, formula) for claims, truth in drawn])
    assert scored(*drawn, formula=formula) == pytest.approx(expected)


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@settings(max_examples=20, deadline=None)
@given(drawn=st.lists(scenes(), min_size=1, max_size=3))
def test_by_class_is_the_mean_over_classes_then_images(formula, drawn):
    values = []
    for claims, truth in drawn:
        if not claims:  # the filler row: a shoe that is no hit
            claims = [(np.zeros((40, 40), bool), 23, set())]
        classes = {n for _, n, _ in claims} | ({n for _, n, _ in truth} if formula == "jaccard" else set())
        of_class = [
            brute([row for row in claims if row[1] == n], [row for row in truth if row[1] == n], formula)
            for n in classes
        ]
        values.append(np.mean(of_class))
    assert scored(*drawn, formula=formula, average="class") == pytest.approx(np.mean(values))


@pytest.mark.parametrize("average", ["image", "class", "all"])
@settings(max_examples=15, deadline=None)
@given(drawn=st.lists(scenes(), min_size=2, max_size=5))
def test_tallies_join_and_the_value_is_the_mean_of_values(average, drawn):
    metric = replace(METRIC, formula="jaccard", average=average)
    pairs = [(of(claims), of(truth)) for claims, truth in drawn]
    joined = kaggle_metric.joined(
        [kaggle_metric.tally(pairs[:1], metric, 6), kaggle_metric.tally(pairs[1:], metric, 6)]
    )
    whole = kaggle_metric.tally(pairs, metric, 6)
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(getattr(joined, name), column)
    if average != "all":
        assert kaggle_metric.values(joined, metric) == pytest.approx([scored(scene, **vars(metric)) for scene in drawn])


def test_over_all_images_the_counts_are_summed():
    perfect, nothing = (np.eye(20, dtype=bool), 4, set()), (np.eye(20, dtype=bool)[::-1], 4, set())
    images = ([perfect], [perfect]), ([nothing, nothing], [perfect])
    assert scored(*images) == pytest.approx(1 / 2)
    assert scored(*images, average="all") == pytest.approx(1 / 3)
    assert scored(*images, average="all", formula="jaccard") == pytest.approx(1 / 4)


def test_perfect_and_nothing():
    true = (np.eye(20, dtype=bool), 4, {1, 3})
    without = (np.eye(20, dtype=bool), 4, set())
    for formula in ("precision", "jaccard"):
        assert scored(([true], [true]), formula=formula) == 1
        assert scored(([], [true]), formula=formula) == 0
        assert scored(([without], [true]), formula=formula) == 0  # the truth has attributes, the claim none
        assert scored(([true], [without]), formula=formula) == 1  # the other way round IoU alone counts
        assert scored(([without], [true]), formula=formula, f1="none") == 1
        assert scored(([], []), formula=formula) == 0  # the filler row


def test_a_true_instance_is_found_once():
    true = (np.eye(20, dtype=bool), 4, set())
    assert scored(([true, true], [true])) == 1 / 2


@settings(max_examples=30, deadline=None)
@given(first=st.frozensets(st.integers(0, 9)), second=st.frozensets(st.integers(0, 9)))
def test_f1_is_scikit_learns(first, second):
    vectors = [[i in ids for i in range(10)] for ids in (second, first)]
    binary, macro = (
        f1_score(*vectors, average=kind, zero_division=1.0, **labels)
        for kind, labels in (("binary", {}), ("macro", {"labels": [False, True]}))
    )
    assert kaggle_metric.f1(first, second, "set", 10) == pytest.approx(binary)
    assert kaggle_metric.f1(first, second, "macro", 10) == pytest.approx(macro)
    assert kaggle_metric.f1(first, second, "none", 10) == 1
