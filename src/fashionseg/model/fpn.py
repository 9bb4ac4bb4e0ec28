"""Feature Pyramid Network (Lin et al. 2017): P2-P5 from C2-C5, and P6 by subsampling P5."""

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import initializers
from fashionseg.model.convs import Conv2D, group_norm


@keras.saving.register_keras_serializable("fashionseg")
class FeaturePyramid(layers.Layer):
    """Maps [C2, C3, C4, C5] to [P2, ..., P6], each (B, S / stride, S / stride, channels), strides 4 to 64.

    normed: group normalisation after every convolution."""

    def __init__(self, channels: int, normed: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.normed = normed
        initializer = initializers.VarianceScaling(1.0, "fan_in", "uniform")  # torchvision's
        self.lateral = [Conv2D(channels, 1, kernel_initializer=initializer) for _ in range(4)]
        self.output_convs = [Conv2D(channels, kernel_initializer=initializer) for _ in range(4)]
        self.lateral_norms, self.output_norms = ([group_norm(channels) for _ in range(4 * normed)] for _ in range(2))

    def build(self, shapes):
        for lateral, output, shape in zip(self.lateral, self.output_convs, shapes, strict=True):
            lateral.build(shape)
            output.build((*shape[:-1], self.channels))
        for norm in (*self.lateral_norms, *self.output_norms):
            norm.build((None, None, None, self.channels))

    def call(self, features: list[KerasTensor]) -> list[KerasTensor]:
        merged = _each(self.lateral, self.lateral_norms, features)  # (B, S / stride, S / stride, channels) each
        for level in (2, 1, 0):
            merged[level] = merged[level] + _upsample(merged[level + 1])
        pyramid = _each(self.output_convs, self.output_norms, merged)
        return [*pyramid, pyramid[-1][:, ::2, ::2]]


def _each(convs, norms, features):
    outputs = [conv(feature) for conv, feature in zip(convs, features, strict=True)]
    return [norm(feature) for norm, feature in zip(norms, outputs, strict=True)] if norms else outputs


def _upsample(feature):
    """Each cell four times. TensorFlow's repeat is ten times as many operations."""
    height, width, channels = feature.shape[1:]
    cells = ops.reshape(feature, (-1, height, 1, width, 1, channels))
    return ops.reshape(ops.tile(cells, (1, 1, 2, 1, 2, 1)), (-1, 2 * height, 2 * width, channels))
