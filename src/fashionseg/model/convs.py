"""Convolutions, and stacks of them with or without group normalisation (Wu and He 2018)."""

from functools import partial
from math import gcd

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import compilation, device, initializers
from fashionseg.model.activations import relu

GROUPS = 32  # at most, and a divisor of the channels
EPSILON = 1e-5


@keras.saving.register_keras_serializable("fashionseg")
class Conv2D(layers.Conv2D):
    """Keras' layer with an odd square kernel, padding 'same' and stride 1, whose kernel gradient is fast on CPUs.

    Keras' gradient is a convolution with a kernel as large as the image: on a CPU XLA takes up to ten times as long for
    it as for the matrix products here. TensorFlow and GPUs use Keras' gradient.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int] = 3, **kwargs):
        super().__init__(**{**kwargs, "filters": filters, "kernel_size": kernel_size, "strides": 1, "padding": "same"})

    def convolution_op(self, inputs: KerasTensor, kernel: KerasTensor) -> KerasTensor:
        convolve = super().convolution_op
        if device.accelerated() or keras.backend.backend() != "jax":
            return convolve(inputs, kernel)

        @ops.custom_gradient
        def convolution(inputs, kernel):
            def gradients(upstream):
                flipped = ops.swapaxes(ops.flip(kernel, axis=(0, 1)), 2, 3)
                return ops.conv(upstream, flipped, padding="same"), _kernel_gradient(inputs, upstream, kernel.shape)

            return convolve(inputs, kernel), gradients

        return convolution(inputs, kernel)

    def valid(self, inputs: KerasTensor) -> KerasTensor:
        """The same without padding: inputs (B, H, W, C) become smaller by kernel_size - 1."""
        kernel, bias = (ops.cast(weight, self.compute_dtype) for weight in (self.kernel, self.bias))
        return self.activation(ops.conv(inputs, kernel, padding="valid") + bias)


def _kernel_gradient(inputs, upstream, shape):
    """Gradient of a kernel of `shape` (K, K, C, F), one matrix product for each of its K x K positions.

    inputs (B, H, W, C); upstream (B, H, W, F), the gradient of the output.
    """
    side = shape[0]
    height, width = inputs.shape[1:3]
    margin = side // 2
    padded = ops.pad(inputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    shifted = [padded[:, y : y + height, x : x + width] for y in range(side) for x in range(side)]
    return ops.reshape(ops.stack([ops.einsum("bhwc,bhwf->cf", cells, upstream) for cells in shifted]), shape)


def depthwise_conv(inputs: KerasTensor, kernel: KerasTensor, stride: int) -> KerasTensor:
    """'Same' convolution of each channel of inputs (B, H, W, C) by itself, kernel (K, K, C, 1), K odd and 3 or more;
    its kernel gradient is fast on CPUs.

    There Keras' takes two to four times as long on TensorFlow if K is 5, nine to fifty times on JAX. GPUs use Keras'.
    """
    if device.accelerated():
        return ops.depthwise_conv(inputs, kernel, stride, "same")

    @ops.custom_gradient
    def with_gradient(outputs, inputs, kernel):  # all as arguments: JAX allows no tensor from outside
        def gradients(upstream):
            return upstream, None, _depthwise_kernel_gradient(inputs, upstream, kernel.shape, stride)

        return outputs, gradients

    outputs = ops.depthwise_conv(inputs, ops.stop_gradient(kernel), stride, "same")
    return with_gradient(outputs, ops.stop_gradient(inputs), kernel)


def _depthwise_kernel_gradient(inputs, upstream, shape, stride):
    """Gradient of a kernel of `shape` (K, K, C, 1): inputs (B, H, W, C); upstream, the gradient of the output."""
    side = shape[0]
    reach = [stride * (length - 1) for length in upstream.shape[1:3]]  # from the first cell to the last one
    missing = [max(cells + side - length, 0) for cells, length in zip(reach, inputs.shape[1:3], strict=True)]
    inputs = ops.pad(inputs, ((0, 0), *((cells // 2, cells - cells // 2) for cells in missing), (0, 0)))

    def windows(size, step):
        """For every `step`-th place of a kernel of this size, row by row, the cells that it sees."""
        ys, xs = ([slice(y, y + cells + size) for y in range(0, side - size + 1, step)] for cells in reach)
        return [[inputs[:, y, x] for x in xs] for y in ys]

    if keras.backend.backend() != "jax":  # fast for K = 3: others are put together from pieces, two cells apart
        operation = partial(compilation.depthwise_kernel_gradient, upstream=upstream, side=3, stride=stride)
        return _overlapping([_overlapping(list(map(operation, row)), 1) for row in windows(3, 2)], 0)
    sums = [ops.sum(cells[:, ::stride, ::stride] * upstream, axis=(0, 1, 2)) for row in windows(1, 1) for cells in row]
    return ops.reshape(ops.stack(sums), shape)


def _overlapping(pieces, axis):
    """Put together along `axis`, where each but the first begins with the last row of the one before."""
    first, *others = pieces
    return ops.concatenate([first, *(ops.split(piece, [1], axis)[1] for piece in others)], axis)


def group_norm(channels: int) -> layers.Layer:
    """Normalises (..., H, W, channels) within each image or RoI, independent of the batch."""
    return layers.GroupNormalization(gcd(GROUPS, channels), epsilon=EPSILON)


def stack(filters: list[int], normed: bool) -> tuple[list[layers.Layer], list[layers.Layer]]:
    """3x3 convolutions of these numbers of filters, each with ReLU, and their group norms; no norms if not `normed`."""
    he = initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    activation = None if normed else relu
    convs = [Conv2D(count, activation=activation, kernel_initializer=he) for count in filters]
    return convs, [group_norm(count) for count in filters] if normed else []


def build(convs: list[layers.Layer], norms: list[layers.Layer], shape: tuple[int | None, ...]) -> None:
    for index, conv in enumerate(convs):
        conv.build(shape)
        shape = (*shape[:-1], conv.filters)
        if norms:
            norms[index].build(shape)


def apply(convs: list[layers.Layer], norms: list[layers.Layer], features: KerasTensor) -> KerasTensor:
    for index, conv in enumerate(convs):
        features = conv(features)
        if norms:
            features = relu(norms[index](features))
    return features


def scale_and_shift(
    gain: KerasTensor, offset: KerasTensor, mean: KerasTensor, variance: KerasTensor, epsilon: float
) -> tuple[KerasTensor, KerasTensor]:
    """What batch normalisation with stored statistics multiplies by and adds, (C,) each."""
    scale = gain / (variance + epsilon) ** 0.5
    return scale, offset - mean * scale
