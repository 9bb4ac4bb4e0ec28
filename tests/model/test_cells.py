"""Against sums and their gradients written out with NumPy."""

import numpy as np
import pytest
from keras import ops

from fashionseg.model import cells, compilation
from fashionseg.model.cells import Cells

SHAPES = (4, 6), (3, 2)  # height and width of two levels, two images, three channels


def example():
    """A pyramid, its table, and two requests of 5 and 1 bins of 3 cells each, one of them twice in a bin."""
    random = np.random.default_rng(3)
    pyramid = [random.normal(0, 1, (2, *shape, 3)).astype(np.float32) for shape in SHAPES]
    table = np.concatenate([np.concatenate([level[image].reshape(-1, 3) for level in pyramid]) for image in (0, 1)])
    requests = []
    for bins in (5, 1):
        index = random.integers(0, len(table), (2, bins, 3), np.int32)
        index[0, 0, 1] = index[0, 0, 0]
        requests.append((index, random.random((2, bins, 3), np.float32)))
    return pyramid, table, requests


@pytest.mark.parametrize("levels", [[[0, 1], [1, 0]], [[1], [1]]])
def test_maps_lie_where_the_table_has_them(levels):
    pyramid, table, _ = example()
    of_pyramid = Cells(pyramid)
    np.testing.assert_array_equal(ops.convert_to_numpy(of_pyramid.table), table)
    levels = np.array(levels, np.int32)
    start, height, width = map(ops.convert_to_numpy, of_pyramid.maps(levels))
    first = ops.convert_to_numpy(of_pyramid.of_images(levels)) + start
    for image, region in np.ndindex(levels.shape):
        level = pyramid[levels[image, region]][image]
        assert (height[image, region], width[image, region]) == level.shape[:2]
        np.testing.assert_array_equal(table[first[image, region]], level[0, 0])
        np.testing.assert_array_equal(table[first[image, region] + width[image, region]], level[1, 0])


@pytest.mark.parametrize("how", ["as it is", "in one part", "bin by bin", "fused as for a GPU"])
def test_sums_and_their_one_gradient(compiled, gradients, monkeypatch, how):
    if how != "as it is":
        monkeypatch.setattr(compilation, "compiles", lambda: False)
    if how == "bin by bin":
        monkeypatch.setattr(cells, "PART_BYTES", 1)
    monkeypatch.setattr(compilation, "fuses", lambda: how == "fused as for a GPU")
    pyramid, table, requests = example()
    upstreams = [np.random.default_rng(4).normal(0, 1, (2, index.shape[1], 3)) for index, _ in requests]
    found = compiled(lambda *maps: Cells(maps).weighted_sums(requests))(*pyramid)
    expected = np.zeros_like(table)
    for (index, weights), upstream, sums in zip(requests, upstreams, found, strict=True):
        np.testing.assert_allclose(sums, (table[index] * weights[..., None]).sum(axis=2), rtol=1e-5)
        np.add.at(expected, index, weights[..., None] * upstream[:, :, None])

    def weighted(*maps):
        sums = Cells(maps).weighted_sums(requests)
        return sum(ops.sum(of * upstream.astype("float32")) for of, upstream in zip(sums, upstreams, strict=True))

    for level, gradient in enumerate(gradients(weighted, pyramid)):
        start = 0 if level == 0 else np.prod(SHAPES[0])
        rows = expected.reshape(2, -1, 3)[:, start : start + np.prod(SHAPES[level])]
        np.testing.assert_allclose(ops.convert_to_numpy(gradient).reshape(rows.shape), rows, rtol=1e-4, atol=1e-6)


def test_rows_without_weight_are_not_added(monkeypatch):
    monkeypatch.setattr(compilation, "fuses", lambda: True)
    index, weights = np.array([[[1, 2]]], np.int32), np.float32([[[0.5, 0.0]]])
    found = cells._gradient(np.zeros((3, 1), np.float32), index, weights, np.float32([[[np.inf]]]))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), [[0], [np.inf], [0]])  # 0 times inf would be NaN
