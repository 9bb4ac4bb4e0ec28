"""Against Keras' own convolution."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers, ops

from fashionseg.model.convs import Conv2D, depthwise_conv


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 8, 3), (3, 4, 4, 1)])
def test_gradients_are_those_of_keras(gradients, shape, side):
    """One cell, two images that are not square, more images than channels."""
    random = np.random.default_rng(0)
    features = random.normal(size=shape).astype("float32")
    weights = random.normal(size=(*shape[:3], 6)).astype("float32")
    kernel = random.normal(size=(side, side, shape[-1], 6)).astype("float32")
    found, expected = (
        gradients(lambda x, k, conv=conv: ops.sum(conv.convolution_op(x, k) * weights), [features, kernel])
        for conv in (Conv2D(6, side), layers.Conv2D(6, side, padding="same"))
    )
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), ops.convert_to_numpy(other), rtol=1e-4, atol=1e-5)


def test_config_round_trip():
    conv = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Conv2D(4, 1, activation="relu")))
    assert isinstance(conv, Conv2D)
    assert (conv.filters, conv.kernel_size, conv.padding) == (4, (1, 1), "same")


@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 8, 3), (3, 6, 4, 1)])
def test_depthwise_gradients_are_those_of_keras(gradients, shape, stride, side):
    """One cell, two images of odd and even sides, one channel."""
    random = np.random.default_rng(0)
    features = random.normal(size=shape).astype("float32")
    kernel = random.normal(size=(side, side, shape[-1], 1)).astype("float32")
    expected = partial(ops.depthwise_conv, strides=stride, padding="same")
    weights = random.normal(size=expected(features, kernel).shape).astype("float32")
    found, expected = (
        gradients(lambda x, k, conv=conv: ops.sum(conv(x, k) * weights), [features, kernel])
        for conv in (partial(depthwise_conv, stride=stride), expected)
    )
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), ops.convert_to_numpy(other), rtol=1e-4, atol=1e-5)
