"""Against Keras' own ReLU and ReLU6, and by what is compiled of them."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from fashionseg.model import activations

OWN = [(activations.relu, ops.relu), (activations.relu6, ops.relu6)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("own", "other"), OWN)
def test_values_and_gradients_are_those_of_keras(gradients, own, other, dtype):
    points = np.float32([-np.inf, -7, -1e-30, 1e-30, 0.5, 5.9, 6.1, 7])
    weights = np.arange(1, 9, dtype="float32")

    def cast(function):
        return lambda x: ops.cast(function(ops.cast(x, dtype)), "float32")

    found, expected = cast(own), cast(other)
    np.testing.assert_array_equal(found(points), expected(points))
    (slopes,), (wanted,) = (gradients(lambda x, f=f: ops.sum(f(x) * weights), [points]) for f in (found, expected))
    np.testing.assert_array_equal(slopes, wanted)


@pytest.mark.parametrize("own", [own for own, _ in OWN])
def test_there_is_no_gradient_where_the_slope_changes(gradients, own):
    (slopes,) = gradients(lambda x: ops.sum(own(x)), [np.float32([0, -0.0, 3, 6, 9])])
    assert np.asarray(slopes).tolist() == [0, 0, 1, *([1, 1] if own is activations.relu else [0, 0])]


@pytest.mark.parametrize("own", [own for own, _ in OWN])
def test_config_round_trip(own):
    layer = keras.layers.Activation(own)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).activation is own


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="on TensorFlow they are Keras' own")
@pytest.mark.parametrize(("own", "other"), OWN)
def test_the_compiled_gradient_needs_no_input(own, other):
    """What it compares with 0 and 6 is the output."""
    import jax

    def compared(function):
        """The instructions that give what the compiled gradient compares."""

        def both(features, upstream):
            outputs, gradient = jax.vjp(function, features)
            return outputs, gradient(upstream)

        text = jax.jit(both).lower(*np.zeros((2, 8, 8), np.float32)).compile().as_text()
        opcodes = dict(re.findall(r"(%[\w.-]+) = \S+ ([\w-]+)\(", text))
        return {opcodes[name] for name in re.findall(r" compare\((%[\w.-]+)", text)}

    assert compared(own) in ({"maximum"}, {"clamp"})
    assert compared(other) == {"parameter"}
