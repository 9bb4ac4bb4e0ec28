"""What the tests of the model's arithmetic share."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "torchvision.npz"


@pytest.fixture(autouse=True)
def the_same_weights_in_every_run():
    """A layer that is given no seed draws one from Python's generator."""
    random.seed(0)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Gives one case of torchvision's numbers, made by tests/golden/make.py: arrays by name."""
    with np.load(GOLDEN) as file:
        arrays = dict(file)

    def case(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}/"): values for key, values in arrays.items() if key.startswith(f"{name}/")}

    return case


@pytest.fixture(scope="session")
def compiled() -> Callable[..., Any]:
    """Turns a function of arrays into its compiled form that gives NumPy arrays, as training runs it."""
    if keras.backend.backend() == "jax":
        import jax

        wrap = jax.jit
    else:
        import tensorflow as tf

        wrap = partial(tf.function, autograph=False)

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        fast = wrap(function)

        def call(*arrays: np.ndarray) -> Any:
            found = fast(*(keras.ops.convert_to_tensor(values) for values in arrays))
            return keras.tree.map_structure(keras.ops.convert_to_numpy, found)

        return call

    return make


@pytest.fixture(scope="session")
def gradients() -> Callable[..., Any]:
    """Gives the gradients of a scalar function of arrays, one for each array."""

    def of(function: Callable[..., Any], arrays: list[np.ndarray]) -> list[Any]:
        if keras.backend.backend() == "jax":
            import jax

            return jax.jit(jax.grad(lambda values: function(*values)))(arrays)
        import tensorflow as tf

        @partial(tf.function, autograph=False)  # a loop that runs eagerly takes minutes
        def slopes(tensors: list[Any]) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, tensors)]

        return slopes([tf.convert_to_tensor(values) for values in arrays])

    return of
