"""Against sorting by hand, on a processor and as a GPU does it."""

import numpy as np
import pytest

from fashionseg.model import device, top_k


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_largest_come_first_and_ties_by_index(compiled, monkeypatch, accelerated, k):
    """Blocks of 16 that do not divide the rows; few different numbers, a row of equal ones, one of hardly any."""
    monkeypatch.setattr(device, "accelerated", lambda: accelerated)
    monkeypatch.setattr(top_k, "BLOCK", 16)
    values = np.random.default_rng(0).integers(-3, 4, (4, 150)).astype(np.float32)
    values[1], values[2] = -1.0, -np.inf
    values[2, [20, 149]] = 5.0
    largest, indices = compiled(lambda values: top_k.top_k(values, k))(values)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(largest, np.take_along_axis(values, expected, axis=1))
