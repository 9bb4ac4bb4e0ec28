"""Repeat factors by the paper's formula, term by term, and their rounding."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import write

from fashionseg.data import repeats
from fashionseg.data.batches import Batches

CLASSES = st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=1, max_size=20)


@settings(max_examples=80, deadline=None)
@given(CLASSES, st.floats(0, 1))
def test_factors_are_the_papers(classes, threshold):
    """Gupta et al. 2019, 4.1: f(c), r(c) = max(1, sqrt(t / f(c))), r(i) = max over c in i of r(c)."""

    def of_class(name):
        share = sum(name in of_image for of_image in classes) / len(classes)
        return max(1.0, math.sqrt(threshold / share))

    expected = [max([of_class(name) for name in of_image], default=1.0) for of_image in classes]
    np.testing.assert_allclose(repeats.factors(classes, threshold), expected)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(1, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_counts_are_rounded_and_their_sum_is_fixed(wanted, seed):
    wanted = np.array(wanted)
    found = repeats.counts(wanted, np.random.default_rng(seed))
    total = math.ceil(wanted.sum() - 1e-6)
    assert found.sum() == total
    raised = wanted * total / wanted.sum()
    assert (found >= np.floor(raised - 1e-6)).all()
    assert (found <= np.ceil(raised + 1e-6)).all()


def test_mean_counts_are_the_factors():
    wanted = np.array([1.0, 1.25, 2.5, 1.0, 3.25])  # 9 in sum
    random = np.random.default_rng(0)
    mean = np.mean([repeats.counts(wanted, random) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, wanted, atol=0.04)  # five standard errors
    assert repeats.counts(np.ones(7), random).tolist() == [1] * 7


@pytest.fixture
def batches(tmp_path):
    """12 pictures of a common class, of which 2 hold a rare one."""
    mask = np.ones((8, 8), np.uint8)
    scenes = []
    for number in range(12):
        height, width = (64, 32) if number % 2 else (64, 64)
        canvas = np.zeros((height, width), np.uint8)
        canvas[10:18, 5:13] = mask
        scenes.append((height, width, [(7, canvas)] + [(3, np.roll(canvas, 20, 0))] * (number < 2)))
    return Batches(write(tmp_path, scenes), tmp_path, 64, 2, 4, shuffle=True, seed=5, repeat_threshold=1.0)


def seen(batches):
    """The pictures of an epoch, without those that fill its last batch."""
    images = [image for index in range(len(batches)) for image in batches._chosen(index)[0]]
    return images[: len(batches._order())]


def test_an_epoch_repeats_rare_classes(batches):
    """A class of a sixth of the pictures asks for sqrt(6) times, 2.45: 10 + 2 x 2.45, 15 pictures."""
    lengths, counts = set(), []
    for batches.epoch in range(60):
        lengths.add(len(batches))
        counts.append(np.bincount(seen(batches), minlength=12))
    assert lengths == {8}
    counts = np.array(counts)
    assert counts.min() == 1
    assert set(counts[:, :2].ravel()) == {2, 3}
    assert counts[:, 2:].mean() < 1.2
    assert (counts.sum(axis=1) == 15).all()
    assert len({tuple(row) for row in counts}) > 3


def test_a_repeated_image_is_augmented_differently(batches):
    batches.augmentation = type(batches.augmentation)([{"Affine": {"rotate": [-40, 40]}}], [1.0, 1.0], 0.0)
    pictures = [picture.tobytes() for batch in batches for picture in batch["images"]]
    rows = list(zip(seen(batches), pictures, strict=False))
    assert len(set(rows)) == len(rows) == 15
    assert len({image for image, _ in rows}) == 12
