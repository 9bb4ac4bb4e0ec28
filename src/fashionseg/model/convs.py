"""3x3 convolutions, and stacks of them with group normalisation (Wu and He 2018) or without any."""

from math import gcd

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import initializers
from fashionseg.model.device import accelerated

GROUPS = 32  # at most; a divisor of the channels
EPSILON = 1e-5


@keras.saving.register_keras_serializable("fashionseg")
class Conv2D(layers.Conv2D):
    """Keras' layer, always 3x3 and 'same' with stride 1. Both its gradients are convolutions again, and on a CPU
    computed as such: TensorFlow's own take twice as long for the kernel, half as long again for the features."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**{**kwargs, "filters": filters, "kernel_size": 3, "strides": 1, "padding": "same"})

    def convolution_op(self, inputs: KerasTensor, kernel: KerasTensor) -> KerasTensor:
        convolve = super().convolution_op
        if keras.backend.backend() == "jax" or accelerated():
            return convolve(inputs, kernel)  # XLA does so itself, and GPUs have better ways

        @ops.custom_gradient
        def convolution(inputs, kernel):
            def gradients(upstream):
                turned = ops.swapaxes(ops.flip(kernel, axis=(0, 1)), 2, 3)
                # For the kernel every channel is an image and every image a channel.
                images = ops.transpose(ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 1, 2, 0))
                of_kernel = ops.conv(images, ops.transpose(upstream, (1, 2, 0, 3)))
                return ops.conv(upstream, turned, padding="same"), ops.transpose(of_kernel, (1, 2, 0, 3))

            return convolve(inputs, kernel), gradients

        return convolution(inputs, ops.copy(kernel))  # of a variable itself TensorFlow would want another signature


def group_norm(channels: int) -> layers.Layer:
    """Normalises (..., H, W, channels) within each image or RoI, whatever the batch."""
    return layers.GroupNormalization(gcd(GROUPS, channels), epsilon=EPSILON)


def stack(widths: list[int], normed: bool) -> tuple[list[layers.Layer], list[layers.Layer]]:
    """Convolutions so many channels wide, each with ReLU, and their norms: none if not `normed`."""
    he = initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    activation = None if normed else "relu"
    convs = [Conv2D(w, activation=activation, kernel_initializer=he) for w in widths]
    return convs, [group_norm(width) for width in widths] if normed else []


def build(convs: list[layers.Layer], norms: list[layers.Layer], shape: tuple[int | None, ...]) -> None:
    for index, conv in enumerate(convs):
        conv.build(shape)
        shape = (*shape[:-1], conv.filters)
        if norms:
            norms[index].build(shape)


def through(convs: list[layers.Layer], norms: list[layers.Layer], features: KerasTensor) -> KerasTensor:
    for index, conv in enumerate(convs):
        features = conv(features)
        if norms:
            features = ops.relu(norms[index](features))
    return features
