"""The competition's metric against its definition, pair of thresholds by pair of thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg import rle
from fashionseg.evaluation import kaggle


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
    return kaggle.Instances(masks, np.array([n for _, n, _ in rows], int), [frozenset(a) for _, _, a in rows])


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


@pytest.mark.parametrize("formula", ["precision", "jaccard"])
@settings(max_examples=60, deadline=None)
@given(scene=scenes())
def test_value_is_the_definition(formula, scene):
    claims, truth = scene
    found = kaggle.hits(of(claims), of(truth))
    assert kaggle.value(found, len(truth), formula) == pytest.approx(brute(claims, truth, formula))


def test_perfect_and_nothing():
    true = (np.eye(20, dtype=bool), 4, {7, 9})
    perfect = kaggle.hits(of([true]), of([true]))
    assert kaggle.value(perfect, 1, "precision") == kaggle.value(perfect, 1, "jaccard") == 1
    nothing = kaggle.hits(of([]), of([true]))
    assert kaggle.value(nothing, 1, "precision") == kaggle.value(nothing, 1, "jaccard") == 0
    without = kaggle.hits(of([(np.eye(20, dtype=bool), 4, set())]), of([true]))
    assert kaggle.value(without, 1, "precision") == 0  # the truth has attributes, the claim none


def test_f1():
    assert kaggle.f1(frozenset({1, 2}), frozenset({2, 3, 4})) == pytest.approx(2 / 5)
    assert kaggle.f1(frozenset(), frozenset()) == 1
