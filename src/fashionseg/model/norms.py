"""Stacks of 3x3 convolutions, with group normalisation (Wu and He 2018) or without any."""

from math import gcd

from keras import KerasTensor, initializers, layers, ops

GROUPS = 32  # at most; a divisor of the channels
EPSILON = 1e-5


def group_norm(channels: int) -> layers.Layer:
    """Normalises (..., H, W, channels) within each image or RoI, whatever the batch."""
    return layers.GroupNormalization(gcd(GROUPS, channels), epsilon=EPSILON)


def stack(widths: list[int], normed: bool) -> tuple[list[layers.Layer], list[layers.Layer]]:
    """Convolutions so many channels wide, each with ReLU, and their norms: none if not `normed`."""
    he = initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    activation = None if normed else "relu"
    convs = [layers.Conv2D(w, 3, padding="same", activation=activation, kernel_initializer=he) for w in widths]
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
