"""Matching and mask targets against torchvision; sampling against its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from fashionseg.model import targets
from fashionseg.model.targets import BACKGROUND, FOREGROUND, IGNORED

RPN = (0.7, 0.3, True)
HEADS = (0.5, 0.5, False)


def padded(truth, rows):
    """Truth (1, rows, 4) and valid (1, rows); the padding behind would fit an anchor, were it not for `valid`."""
    boxes = np.tile(np.float32([0, 0, 64, 64]), (1, rows, 1))
    boxes[0, : len(truth)] = truth
    return boxes, np.arange(rows)[None] < len(truth)


def matches(compiled, rule):
    """torchvision's matches, of label and nearest ground truth. Compiled as in training: a compiler that computes
    overlaps twice, differently, would break their ties."""

    def match(truth, valid, candidates):
        labels = targets.label(truth, valid, candidates, *rule)
        return ops.where(ops.equal(labels, FOREGROUND), targets.nearest(truth, valid, candidates), labels)

    return compiled(match)


@pytest.fixture(scope="module")
def match(compiled):
    return {rule: matches(compiled, rule) for rule in (RPN, HEADS)}


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("name", "rule"), [("match_rpn", RPN), ("match_heads", HEADS)])
def test_match_is_torchvisions(golden, match, name, rule, padding):
    case = golden(name)
    boxes, valid = padded(case["truth"], len(case["truth"]) + padding)
    for candidates in (case["candidates"], case["candidates"][None]):
        found = match[rule](boxes, valid, candidates)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, case["matches"][None])


@pytest.mark.parametrize(("name", "rule"), [("match_rpn", RPN), ("match_heads", HEADS)])
def test_match_in_parts_is_the_same(golden, compiled, monkeypatch, name, rule):
    """Three truths at a time of eight and two rows of padding, which do not divide them; one truth is there twice."""
    case = golden(name)
    truth = np.concatenate([case["truth"], case["truth"][:1]])
    boxes, valid = padded(truth, len(truth) + 2)
    expected = matches(compiled, rule)(boxes, valid, case["candidates"])
    monkeypatch.setattr(targets, "PART", 3)
    found = matches(compiled, rule)(boxes, valid, case["candidates"])
    np.testing.assert_array_equal(found, case["matches"][None])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("filled", [0, 1, 3, 4, 10])
def test_parts_of_padding_alone_are_left_out(compiled, monkeypatch, filled):
    """The image of the batch with more ground truth counts, and a valid slot after padding, too."""
    monkeypatch.setattr(targets, "PART", 3)
    lefts = 10 * np.arange(10)
    boxes = np.tile(np.stack([lefts, 0 * lefts, lefts + 10, 0 * lefts + 10], axis=1), (2, 1, 1)).astype(np.float32)
    valid = np.zeros((2, 10), bool)
    valid[1, :filled] = True
    if filled == 4:
        valid[1, :3] = False
    found = matches(compiled, HEADS)(boxes, valid, boxes[0])
    np.testing.assert_array_equal(found, np.where(valid, np.arange(10), BACKGROUND))


def test_images_match_their_own_ground_truth(golden, match):
    case = golden("match_rpn")
    truth = np.stack([case["truth"], case["truth"][::-1]])
    first, second = match[RPN](truth, np.ones((2, 8), bool), case["candidates"])
    np.testing.assert_array_equal(first, case["matches"])
    np.testing.assert_array_equal(second, np.where(first >= 0, 7 - first, first))


@pytest.mark.parametrize("rule", [RPN, HEADS])
def test_without_ground_truth_all_is_background(golden, match, rule):
    boxes, valid = padded(np.zeros((0, 4)), 8)
    found = match[rule](boxes, valid, golden("match_rpn")["candidates"])
    assert (found == BACKGROUND).all()


def test_match_by_hand(match):
    """Overlaps of a box of 10 x 10 with parts of itself; the better of two truths wins; padding attracts nothing."""
    truth, valid = padded(np.float32([[0, 0, 10, 10], [0, 0, 10, 8]]), 4)
    candidates = np.float32([[0, 0, 10, y] for y in (10, 8, 6.5, 3.5, 2, 0)])
    assert match[RPN](truth, valid, candidates).tolist() == [[0, 1, 1, IGNORED, BACKGROUND, BACKGROUND]]
    assert match[HEADS](truth, valid, candidates).tolist() == [[0, 1, 1, *[BACKGROUND] * 3]]
    # Alone, the second truth has its best at 8 / 20, which is in between: it counts all the same.
    apart = np.float32([[0, 0, 10, 10], [0, 0, 10, 20]])
    assert match[RPN](*padded(apart, 2), np.float32([[0, 0, 10, 8], [0, 12, 10, 20]])).tolist() == [[0, 1]]


def test_ground_truth_without_area_is_not_matched(match):
    """Every candidate is equally far from it, so that all would be the best."""
    truth, valid = padded(np.float32([[0, 0, 10, 10], [5, 5, 5, 5], [90, 90, 99, 99]]), 3)
    candidates = np.float32([[0, 0, 10, 5], [5, 5, 15, 15], [20, 20, 30, 30]])
    assert match[RPN](truth, valid, candidates).tolist() == [[0, BACKGROUND, BACKGROUND]]


ALL, COUNT, POSITIVES = 40, 12, 4


@pytest.fixture(scope="module")
def draw(compiled):
    return compiled(lambda labels, uniform: targets.sample(labels, uniform, COUNT, POSITIVES))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shares=st.tuples(*[st.floats(0, 1)] * 2))
def test_samples_are_valid(draw, seed, shares):
    """torchvision's BalancedPositiveNegativeSampler: at most POSITIVES matched ones, background for the rest."""
    random = np.random.default_rng(seed)
    foreground_share, ignored_share = shares
    labels = np.where(random.random((2, ALL)) < foreground_share, FOREGROUND, BACKGROUND)
    labels = np.where(random.random((2, ALL)) < ignored_share, IGNORED, labels).astype(np.int32)
    uniform = random.permuted(np.tile(np.arange(ALL), (2, 1)), axis=1).astype(np.float32) / ALL
    indices, foreground, used = draw(labels, uniform)
    assert indices.shape == foreground.shape == used.shape == (2, COUNT)
    for image in range(2):
        matched = np.flatnonzero(labels[image] == FOREGROUND)
        background = np.flatnonzero(labels[image] == BACKGROUND)
        positives = min(len(matched), POSITIVES)
        negatives = min(len(background), COUNT - positives)
        # Foreground first, then background, then what stays unused.
        slots = np.arange(COUNT)
        np.testing.assert_array_equal(foreground[image], slots < positives)
        np.testing.assert_array_equal(used[image], slots < positives + negatives)
        drawn = indices[image, : positives + negatives]
        assert len(set(drawn)) == len(drawn)
        # The random numbers decide: the largest are drawn.
        for pool, chosen in ((matched, drawn[:positives]), (background, drawn[positives:])):
            best = pool[np.argsort(-uniform[image, pool])][: len(chosen)]
            assert sorted(chosen) == sorted(best)


def test_samples_are_uniform(draw):
    """Each of 20 matched ones equally often: 2000 draws of 4, so 400 +- 5 standard deviations of 18."""
    labels = np.where(np.arange(ALL) < 20, FOREGROUND, BACKGROUND).astype(np.int32)
    random = np.random.default_rng(12)
    times = np.zeros(ALL, int)
    for _ in range(1000):
        indices, foreground, _used = draw(np.stack([labels] * 2), random.random((2, ALL), np.float32))
        np.add.at(times, indices[foreground], 1)
    assert times[:20].sum() == 2000 * POSITIVES
    assert abs(times[:20] - 400).max() < 90


def test_nothing_to_sample(draw):
    uniform = np.full((2, ALL), 0.5, np.float32)
    _indices, foreground, used = draw(np.full((2, ALL), IGNORED, np.int32), uniform)
    assert not foreground.any()
    assert not used.any()
    _indices, foreground, used = draw(np.full((2, ALL), BACKGROUND, np.int32), np.zeros((2, ALL), np.float32))
    assert not foreground.any()
    assert used.all()


def test_take_is_per_image(compiled):
    values = np.arange(2 * 5 * 3).reshape(2, 5, 3)
    indices = np.array([[4, 0, 0, 2], [1, 3, 4, 4]])
    expected = np.stack([values[0][indices[0]], values[1][indices[1]]])
    np.testing.assert_array_equal(compiled(targets.take)(values, indices), expected)
    np.testing.assert_array_equal(compiled(targets.take)(values[..., 0], indices), expected[..., 0])


@pytest.fixture(scope="module")
def project(compiled):
    return compiled(lambda masks, boxes, rois: targets.project_masks(masks, boxes, rois, 28))


def cropped_golden(case):
    """Each region's own mask (R, 56, 56), cropped to its box, and that box (R, 4)."""
    shape = tuple(case["shape"])
    masks = np.unpackbits(case["masks"], count=np.prod(shape)).reshape(shape)
    boxes = case["truth"][case["matched"]]
    crops = [
        masks[i, y : y + 56, x : x + 56] for i, (x, y, _, _) in zip(case["matched"], boxes.astype(int), strict=True)
    ]
    return np.stack(crops), boxes


def test_mask_targets_are_torchvisions(golden, project):
    """Where a mask's grid is the picture's, cropping it to its box loses nothing."""
    case = golden("project")
    crops, boxes = cropped_golden(case)
    halves = [np.stack([values[:5], values[5:]]) for values in (crops, boxes, case["rois"])]  # two images
    found = project(*halves).reshape(10, 28, 28)
    assert 0.2 < case["targets"].mean() < 0.8
    np.testing.assert_allclose(found, case["targets"], atol=1e-4)


def test_mask_targets_do_not_depend_on_scale_or_place(golden, project):
    case = golden("project")
    crops, boxes = cropped_golden(case)
    moved = [values * np.float32([3, 0.5] * 2) + np.float32([100, 7] * 2) for values in (boxes, case["rois"])]
    found = project(crops[None], moved[0][None], moved[1][None])[0]
    np.testing.assert_allclose(found, case["targets"], atol=1e-3)


def test_the_box_itself_gives_the_mask_at_half_its_size(project):
    mask = np.random.default_rng(13).integers(0, 2, (1, 1, 56, 56)).astype(np.uint8)
    box = np.float32([[[11.5, 3, 40, 77.25]]])
    expected = mask.reshape(28, 2, 28, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(project(mask, box, box)[0, 0], expected, atol=1e-4)


def test_mask_targets_of_ellipses(project):
    """What is right is known for every point: bins two cells of the mask away from the outline are exact, the rest is
    right on the average."""
    random = np.random.default_rng(14)
    sides = random.uniform(14, 200, (2, 6, 2))
    corners = random.uniform(0, 100, (2, 6, 2))
    shift, growth = random.uniform(-0.2, 0.2, (2, 6, 2)), random.uniform(0.6, 1.3, (2, 6, 2))
    low = corners + shift * sides
    boxes = np.concatenate([corners, corners + sides], axis=2).astype(np.float32)
    rois = np.concatenate([low, low + growth * sides], axis=2).astype(np.float32)
    cells = (np.arange(56) + 0.5) / 28 - 1
    ellipse = (cells[:, None] ** 2 + cells**2 <= 1).astype(np.uint8)
    found = project(np.tile(ellipse, (2, 6, 1, 1)), boxes, rois)

    points = (np.arange(28 * 8) + 0.5) / (28 * 8)  # eight by eight a bin
    x, y = ((shift[..., k, None] + growth[..., k, None] * points) * 2 - 1 for k in (0, 1))
    radius = np.hypot(y[..., :, None], x[..., None, :]).reshape(2, 6, 28, 8, 28, 8)
    expected = (radius <= 1).mean(axis=(3, 5))
    far = np.abs(radius - 1).min(axis=(3, 5)) > 2 / 28
    assert 0.5 < far.mean() < 0.95
    np.testing.assert_allclose(found[far], expected[far], atol=1e-4)
    assert np.abs(found - expected).mean() < 0.02
    assert np.abs((found - expected).mean(axis=(2, 3))).max() < 0.005  # neither shift nor growth


def test_mask_targets_beside_the_box_are_background(project):
    full = np.ones((1, 3, 56, 56), np.uint8)
    boxes = np.tile(np.float32([20, 20, 76, 76]), (1, 3, 1))
    rois = np.float32([[[100, 20, 140, 60], [48, 20, 104, 76], [20, 20, 20, 20]]])
    beside, half, nothing = project(full, boxes, rois)[0]
    assert not beside.any()
    np.testing.assert_allclose(half, np.tile(np.arange(28) < 14, (28, 1)), atol=1e-4)
    assert np.isfinite(nothing).all()


def test_mask_targets_of_padding_are_finite(project):
    none = np.zeros((1, 1, 4), np.float32)
    masks = np.ones((1, 1, 56, 56), np.uint8)
    for boxes, rois in [(none, none), (none, none + np.float32([2, 3, 30, 40]))]:
        assert np.isfinite(project(masks, boxes, rois)).all()


def test_an_iou_equal_to_a_threshold(compiled):
    truth, candidates = np.float32([[[0, 0, 10, 10]]]), np.float32([[0, 0, 10, y] for y in (10, 7, 5, 3)])
    found = [matches(compiled, rule)(truth, np.ones((1, 1), bool), candidates).tolist() for rule in (RPN, HEADS)]
    assert found == [[[0, 0, IGNORED, IGNORED]], [[0, 0, 0, BACKGROUND]]]


def test_fewer_candidates_than_a_sample():
    found = targets.sample(np.int32([[0, -1, -2]]), np.float32([[0.1, 0.2, 0.3]]), 12, 4)
    indices, foreground, used = (ops.convert_to_numpy(values).tolist() for values in found)
    assert (indices, foreground, used) == ([[0, 1, 2]], [[True, False, False]], [[True, True, False]])
