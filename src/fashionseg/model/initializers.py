"""Initial weights drawn by NumPy: the same on every backend, and JAX does not compile each shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod, sqrt

import keras
import numpy as np
from keras import KerasTensor, ops

CUT = 2.0  # standard deviations at which a normal is truncated
CUT_STDDEV = 0.87962566103423978  # standard deviation of a standard normal truncated there

_random: ContextVar[np.random.Generator | None] = ContextVar("random", default=None)


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Layers built in this context draw from one stream in turn; others each from their own seed."""
    token = _random.set(np.random.default_rng(seed))
    try:
        yield
    finally:
        _random.reset(token)


class _ByNumPy:
    def __call__(self, shape: tuple[int, ...], dtype: str | None = None, **_) -> KerasTensor:
        return ops.convert_to_tensor(_draw(self, shape), dtype)


@keras.saving.register_keras_serializable("fashionseg")
class RandomNormal(_ByNumPy, keras.initializers.RandomNormal):
    """Keras' distribution, drawn by NumPy."""


@keras.saving.register_keras_serializable("fashionseg")
class VarianceScaling(_ByNumPy, keras.initializers.VarianceScaling):
    """Keras' distribution, drawn by NumPy."""


def redraw(network: keras.Model) -> None:
    """Draws the random weights of another library's layers again, by NumPy, from the same distributions."""
    for layer in network._flatten_layers():  # Keras has no public API for nested layers
        for name, initializer in vars(layer).items():
            if not isinstance(initializer, keras.initializers.RandomNormal | keras.initializers.VarianceScaling):
                continue
            # Keras' depthwise_initializer belongs to the variable `kernel`.
            variable = getattr(layer, name.removesuffix("_initializer").replace("depthwise", "kernel"), None)
            if variable is not None:
                variable.assign(_draw(initializer, tuple(variable.shape)))


def _draw(initializer: keras.initializers.Initializer, shape: tuple[int, ...]) -> np.ndarray:
    random = _random.get() or np.random.default_rng(initializer.seed)
    if isinstance(initializer, keras.initializers.RandomNormal):
        return initializer.mean + initializer.stddev * random.standard_normal(shape, np.float32)
    variance = initializer.scale / max(1.0, _fan(initializer.mode, shape))
    if initializer.distribution == "uniform":
        return sqrt(3 * variance) * (2 * random.random(shape, np.float32) - 1)
    values = random.standard_normal(shape, np.float32)
    if initializer.distribution == "untruncated_normal":
        return sqrt(variance) * values
    while (beyond := np.abs(values) > CUT).any():
        values[beyond] = random.standard_normal(int(beyond.sum()), np.float32)
    return sqrt(variance) / CUT_STDDEV * values


def _fan(mode: str, shape: tuple[int, ...]) -> float:
    """Fan-in, fan-out or their mean, as `mode` says, of a kernel (..., inputs, outputs)."""
    cells = prod(shape[:-2])
    inputs, outputs = (shape[0] if len(shape) == 1 else cells * shape[axis] for axis in (-2, -1))
    return {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[mode]
