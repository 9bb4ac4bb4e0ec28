"""Attribute heads, one sigmoid per attribute: those of the Fashionpedia paper and of the 2020 winner."""

from math import log

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import convs, initializers
from fashionseg.model.activations import relu

PRIOR = 0.01  # initial probability of each attribute, so that absent ones do not dominate the loss (RetinaNet)
DENSE = 1024  # units


@keras.saving.register_keras_serializable("fashionseg")
class LinearAttributes(layers.Layer):
    """Logits (B, R, count): one dense layer on the box head's features (B, R, F), as in Jia et al. 2020. The RoI
    features (B, R, 14, 14, C) are not used."""

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.logits = _logits(count)

    @property
    def parts(self) -> dict[str, layers.Layer]:
        return {"logits": self.logits}

    def build(self, box_shape, roi_shape):
        self.logits.build(box_shape)

    def call(self, box_features: KerasTensor, roi_features: KerasTensor) -> KerasTensor:
        return self.logits(box_features)


@keras.saving.register_keras_serializable("fashionseg")
class ConvAttributes(layers.Layer):
    """Logits (B, R, count) from the mask head's input (B, R, 14, 14, C): four convolutions of `channels` filters, a
    dense layer of 1024 units and one of `count`, as the 2020 winner's."""

    def __init__(self, count: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.channels = channels
        self.convs, _ = convs.stack([channels] * 4, normed=False)
        glorot = initializers.VarianceScaling(1.0, "fan_avg", "uniform")
        self.dense = layers.Dense(DENSE, relu, kernel_initializer=glorot)
        self.logits = _logits(count)

    @property
    def parts(self) -> dict[str, layers.Layer]:
        convolutions = {f"conv.{index}": layer for index, layer in enumerate(self.convs)}
        return {**convolutions, "dense": self.dense, "logits": self.logits}

    def build(self, box_shape, roi_shape):
        *_, height, width, channels = roi_shape
        convs.build(self.convs, [], (None, height, width, channels))
        self.dense.build((None, None, height * width * self.channels))
        self.logits.build((None, None, DENSE))

    def call(self, box_features: KerasTensor, roi_features: KerasTensor) -> KerasTensor:
        _, rois, height, width, _ = roi_features.shape
        hidden = ops.reshape(roi_features, (-1, *roi_features.shape[2:]))
        hidden = convs.apply(self.convs, [], hidden)  # (B * R, 14, 14, channels)
        return self.logits(self.dense(ops.reshape(hidden, (-1, rois, height * width * self.channels))))


def _logits(count):
    near_zero = initializers.RandomNormal(stddev=0.01)
    prior = keras.initializers.Constant(-log((1 - PRIOR) / PRIOR))
    return layers.Dense(count, kernel_initializer=near_zero, bias_initializer=prior, dtype="float32")
