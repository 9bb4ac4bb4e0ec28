"""ReLU and ReLU6 whose gradient follows from their output, as TensorFlow's do.

JAX's follows from the input, so XLA keeps both of every activation until the backward pass, and cannot make the
activation a part of the convolution before it.
"""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("fashionseg")
def relu(features: KerasTensor) -> KerasTensor:
    """max(features, 0); no gradient at 0."""
    return _by_output(ops.relu, features)


@keras.saving.register_keras_serializable("fashionseg")
def relu6(features: KerasTensor) -> KerasTensor:
    """min(max(features, 0), 6); no gradient at 0 and 6."""
    return _by_output(ops.relu6, features)


def _by_output(function: Callable[[KerasTensor], KerasTensor], features: KerasTensor) -> KerasTensor:
    if keras.backend.backend() != "jax":
        return function(features)

    @ops.custom_gradient
    def activate(features):
        outputs = function(features)

        def gradient(upstream):
            # Not outputs > 0: for a GPU XLA makes features > 0 of it and keeps the features after all.
            passed = ops.not_equal(outputs, 0)
            if function is ops.relu6:
                passed = ops.logical_and(passed, ops.not_equal(outputs, 6))
            return ops.where(passed, upstream, ops.zeros_like(upstream))

        return outputs, gradient

    return activate(features)
