"""First weights have Keras' distributions, drawn by NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from fashionseg.model import initializers

SHAPE = 3, 3, 16, 96
KINDS = [("RandomNormal", {"mean": 0.5, "stddev": 0.3})] + [
    ("VarianceScaling", {"scale": 2.0, "mode": mode, "distribution": distribution})
    for mode in ("fan_in", "fan_out", "fan_avg")
    for distribution in ("uniform", "truncated_normal", "untruncated_normal")
]


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_distributions_are_those_of_keras(kind, config):
    """Quantiles of 13,824 numbers each; the middle one differs by 0.04 standard deviations at most in 1 of 10^5."""
    theirs = ops.convert_to_numpy(getattr(keras.initializers, kind)(**config, seed=1)(SHAPE))
    mine = ops.convert_to_numpy(getattr(initializers, kind)(**config, seed=1)(SHAPE))
    assert mine.dtype == np.float32
    quantiles = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    expected = np.quantile(theirs, quantiles)
    np.testing.assert_allclose(np.quantile(mine, quantiles), expected, atol=0.15 * theirs.std())
    assert mine.std() == pytest.approx(theirs.std(), rel=0.05)
    if config.get("distribution") != "untruncated_normal" and kind == "VarianceScaling":
        assert abs(mine).max() == pytest.approx(abs(theirs).max(), rel=0.02)


@pytest.mark.parametrize("shape", [(7,), (5, 9), (3, 3, 2, 4), (3, 3, 1, 6)])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_fans_are_those_of_keras(monkeypatch, shape, mode):
    limits = []
    uniform = keras.src.backend.random.uniform
    monkeypatch.setattr(
        keras.src.backend.random,
        "uniform",
        lambda *a, maxval, **k: limits.append(maxval) or uniform(*a, maxval=maxval, **k),
    )
    keras.initializers.VarianceScaling(1.0, mode, "uniform")(shape)
    assert limits == [pytest.approx((3 / max(1, initializers._fan(mode, shape))) ** 0.5)]


def test_layers_draw_different_numbers_from_one_stream():
    def layers(*seed):
        with initializers.seeded(*seed):
            shared = initializers.RandomNormal(stddev=1.0)
            return [ops.convert_to_numpy(shared((4, 4))) for _ in range(2)]

    first, same, other = layers(3, 0), layers(3, 0), layers(3, 1)
    np.testing.assert_array_equal(first, same)
    assert (first[0] != first[1]).all()
    assert (first[0] != other[0]).all()
