"""Against torchvision's roi_align, MultiScaleRoIAlign and LevelMapper; gradients against finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from fashionseg.model import cells, compilation, roi_align
from fashionseg.model.roi_align import RoIAlign, levels

STRIDES = [4, 8, 16, 32]


def channels_last(features):
    return np.moveaxis(features, 1, -1).astype(np.float32)


@pytest.fixture(scope="module")
def case(golden):
    values = golden("roi_align")
    return {**values, "map": channels_last(values["features"]), "levels": np.zeros((2, 8), np.int32)}


def assert_pooled(found, expected):
    """Found (B, R, side, side, C), expected as torchvision has it, (B * R, C, side, side)."""
    np.testing.assert_allclose(found.reshape(-1, *found.shape[2:]), channels_last(expected), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("side", [2, 7])
def test_one_level(case, compiled, side, aligned):
    """Regions within the map, across its edges, beyond it, huge, smaller than a cell, and empty."""
    pool = compiled(lambda m, rois, levels: RoIAlign([m], [8], aligned=aligned)(rois, levels, side))
    expected = case[f"pooled_{side}_{'aligned' if aligned else 'plain'}"]
    assert_pooled(pool(case["map"], case["rois"], case["levels"]), expected)


def test_three_samples_per_axis(case, compiled, monkeypatch):
    monkeypatch.setattr(roi_align, "SAMPLES", 3)
    pool = compiled(lambda m, rois, levels: RoIAlign([m], [8])(rois, levels, 2))
    assert_pooled(pool(case["map"], case["rois"], case["levels"]), case["pooled_3_samples"])


@pytest.mark.parametrize(
    "part_bytes", [None, cells.PART_BYTES, 1, 4096], ids=["as it is", "in one part", "bin by bin", "parts"]
)
def test_every_level_of_a_pyramid(golden, compiled, monkeypatch, part_bytes):
    if part_bytes:
        monkeypatch.setattr(compilation, "compiles", lambda: False)
        monkeypatch.setattr(cells, "PART_BYTES", part_bytes)
    case = golden("pyramid")
    maps = [channels_last(case[f"P{level}"]) for level in range(2, 6)]
    chosen = ops.convert_to_numpy(levels(case["rois"], 4))
    assert set(chosen.ravel()) == {0, 1, 2, 3}
    pool = compiled(lambda rois, levels, *maps: RoIAlign(maps, STRIDES)(rois, levels, 3))
    assert_pooled(pool(case["rois"], chosen, *maps), case["pooled"])


def test_levels_are_torchvisions(golden):
    """Sides just below, at and above each step; nothing at all, and more than the pyramid holds."""
    case = golden("levels")
    found = ops.convert_to_numpy(levels(case["rois"], 4))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found + 2, case["level"])
    np.testing.assert_array_equal(ops.convert_to_numpy(levels(case["rois"], 2)) + 2, np.clip(case["level"], 2, 3))


MAPS = (6, 8), (3, 4)  # (height, width) of two levels, strides 4 and 8
SIDE = 3


@pytest.fixture(scope="module")
def small(compiled):
    return {
        aligned: compiled(
            lambda rois, levels, *maps, aligned=aligned: RoIAlign(maps, [4, 8], aligned=aligned)(rois, levels, SIDE)
        )
        for aligned in (False, True)
    }


def random_rois(random):
    corners = random.uniform(-6, 34, (2, 2, 2, 2))
    return np.sort(corners, axis=2).reshape(2, 2, 4).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), aligned=st.booleans(), slopes=st.tuples(*[st.floats(-5, 5)] * 3))
def test_a_plane_stays_a_plane(small, seed, aligned, slopes):
    """Bilinear sampling of a + b x + c y is exact: a bin holds the plane's value at its centre."""
    a, b, c = slopes
    maps = []
    for (height, width), stride in zip(MAPS, (4, 8), strict=True):
        y, x = np.mgrid[:height, :width] + (0.5 if aligned else 0.0)
        plane = a + b * x * stride + c * y * stride
        maps.append(np.stack([plane[..., None], 2 * plane[..., None]]).astype(np.float32))  # twice in the second image
    random = np.random.default_rng(seed)
    corners = random.uniform(4.1, 6, (2, 2, 2))  # between the first and the last cell of both maps
    rois = np.concatenate([corners, corners + random.uniform(8.1, 9.9, (2, 2, 2))], axis=-1).astype(np.float32)
    found = small[aligned](rois, np.array([[0, 1], [1, 0]], np.int32), *maps)[..., 0]
    bins = (np.arange(SIDE) + 0.5) / SIDE
    x = rois[..., 0, None] + (rois[..., 2] - rois[..., 0])[..., None] * bins
    y = rois[..., 1, None] + (rois[..., 3] - rois[..., 1])[..., None] * bins
    expected = (a + b * x[..., None, :] + c * y[..., :, None]) * np.array([1, 2])[:, None, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_channels_and_images_do_not_mix(small):
    maps = [np.zeros((2, *shape, 3), np.float32) for shape in MAPS]
    for pyramid_map in maps:
        pyramid_map[1, ..., 2] = 5
    rois = np.tile(np.float32([4, 4, 20, 16]), (2, 2, 1))
    found = small[False](rois, np.array([[0, 1], [0, 1]], np.int32), *maps)
    assert not found[0].any()
    assert not found[1, ..., :2].any()
    np.testing.assert_allclose(found[1, ..., 2], 5, rtol=1e-6)


@pytest.mark.parametrize("how", ["compiled by itself", "not", "fused as for a GPU"])
@pytest.mark.parametrize("aligned", [False, True])
def test_gradients_are_finite_differences(small, gradients, monkeypatch, aligned, how):
    """The result is linear in the maps, so that a difference over a whole unit is exact."""
    if how != "compiled by itself":
        monkeypatch.setattr(compilation, "compiles", lambda: False)
    if how == "fused as for a GPU":
        monkeypatch.setattr(compilation, "fuses", lambda: True)
    random = np.random.default_rng(11)
    maps = [random.normal(0, 1, (2, *shape, 1)).astype(np.float32) for shape in MAPS]
    rois, chosen = random_rois(random), np.array([[0, 1], [1, 0]], np.int32)
    weights = random.normal(0, 1, (2, 2, SIDE, SIDE, 1)).astype(np.float32)

    def pooled(*maps):
        return ops.sum(RoIAlign(maps, [4, 8], aligned=aligned)(rois, chosen, SIDE) * weights)

    found = [ops.convert_to_numpy(gradient) for gradient in gradients(pooled, maps)]
    assert any(gradient.any() for gradient in found)
    base = small[aligned](rois, chosen, *maps)
    for level, gradient in enumerate(found):
        for place in np.ndindex(*gradient.shape):
            moved = [one.copy() for one in maps]
            moved[level][place] += 1
            difference = ((small[aligned](rois, chosen, *moved) - base) * weights).sum()
            assert gradient[place] == pytest.approx(difference, abs=2e-5), (level, place)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_merged_weights_count_each_cell_once(seed):
    random = np.random.default_rng(seed)
    places, weights = random.integers(0, 5, (3, 6), np.int32), random.random((3, 6), np.float32)
    found = ops.convert_to_numpy(roi_align._merged(ops.convert_to_tensor(places), ops.convert_to_tensor(weights)))
    for row in range(3):
        expected = {cell: weights[row, places[row] == cell].sum() for cell in set(places[row])}
        kept = np.flatnonzero(found[row])
        assert sorted(places[row, kept]) == sorted(expected)
        np.testing.assert_allclose(found[row, kept], [expected[cell] for cell in places[row, kept]], rtol=1e-6)


@pytest.mark.parametrize(("extent", "most"), [(14, 9), (28, 16)])
def test_a_gpu_adds_each_cell_of_a_bin_once(monkeypatch, extent, most):
    """With two samples a cell or more a bin has three rows and columns of cells at most, not four; beyond the map it
    has none."""
    monkeypatch.setattr(compilation, "fuses", lambda: True)
    rois = np.float32([[[0.3, 0.3, 0.3 + extent, 0.3 + extent], [-1e6, -1e6, -1e6, -1e6]]])
    align = RoIAlign([np.zeros((1, 64, 64, 1), np.float32)], [1])
    _, weights = align._bins(rois, np.zeros((1, 2), np.int32), 14 if extent == 14 else 7)
    rows = np.count_nonzero(ops.convert_to_numpy(weights).reshape(2, -1, 16), axis=2)
    assert rows[0].max() == most
    assert not rows[1].any()


def test_pooling_two_requests_equals_two_calls(compiled, gradients):
    """Results and the gradient that they add up to."""
    random = np.random.default_rng(12)
    maps = [random.normal(0, 1, (2, *shape, 1)).astype(np.float32) for shape in MAPS]
    rois, chosen = random_rois(random), np.array([[0, 1], [1, 0]], np.int32)
    requests = (rois, chosen, 3), (rois[:, :1], chosen[:, :1], 2)
    weights = [random.normal(0, 1, (2, count, side, side, 1)).astype(np.float32) for count, side in ((2, 3), (1, 2))]

    def together(*maps):
        return RoIAlign(maps, [4, 8]).pool(requests)

    def apart(*maps):
        return [RoIAlign(maps, [4, 8])(*request) for request in requests]

    for found, expected in zip(compiled(together)(*maps), compiled(apart)(*maps), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    found, expected = (
        gradients(lambda *maps, f=f: sum(ops.sum(p * w) for p, w in zip(f(*maps), weights, strict=True)), maps)
        for f in (together, apart)
    )
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), ops.convert_to_numpy(other), atol=1e-5)


def test_half_precision_stays_half(case, compiled):
    pool = compiled(lambda m, rois, levels: RoIAlign([m], [8])(rois, levels, 2))
    found = pool((case["map"] / 255).astype(np.float16), case["rois"], case["levels"])
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, channels_last(case["pooled_2_plain"]).reshape(found.shape) / 255, atol=4e-3)
