"""Against torchvision's AnchorGenerator, which rounds to whole pixels."""

import numpy as np
import pytest
from keras import ops

from fashionseg.model import anchors


@pytest.fixture(scope="module")
def case(golden):
    return golden("anchors")


def test_cells_are_torchvisions(case):
    for side, expected in zip(case["odd_sides"], case["cells"], strict=True):
        np.testing.assert_array_equal(anchors.cell_anchors(int(side)), expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128)])
def test_grids_are_torchvisions(case, compiled, height, width):
    levels = list(zip(case["strides"].tolist(), case["sides"].tolist(), strict=True))
    grids = compiled(lambda: [anchors.grid_anchors(height // s, width // s, s, side) for s, side in levels])()
    assert [len(grid) for grid in grids] == [3 * (height // s) * (width // s) for s in case["strides"]]
    np.testing.assert_array_equal(np.concatenate(grids), case[f"grid_{height}_{width}"])


def test_order_by_hand():
    """Rows, then columns, then ratios; the first is twice as wide as high."""
    grid = ops.convert_to_numpy(anchors.grid_anchors(2, 3, 10, 20))
    assert grid.dtype == np.float32
    np.testing.assert_array_equal(grid[:3, 2:], [[14, 7], [10, 10], [7, 14]])
    centres = (grid[:, :2] + grid[:, 2:]) / 2
    np.testing.assert_array_equal(centres[::3], [[0, 0], [10, 0], [20, 0], [0, 10], [10, 10], [20, 10]])
