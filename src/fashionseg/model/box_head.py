"""The box head: class and box of each region of interest (Fast R-CNN, Girshick 2015)."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import convs, initializers
from fashionseg.model.activations import relu

ROI_BOX_SIDE = 7  # cells of an RoI's features
DENSE = 1024  # units


@keras.saving.register_keras_serializable("fashionseg")
class BoxHead(layers.Layer):
    """Two dense layers on (B, R, 7, 7, C): class logits (B, R, classes + 1), deltas (B, R, classes + 1, 4), and their
    input, features (B, R, 1024).

    conv_widths: filters of 3x3 convolutions that replace the first dense layer; normed: with group norm;
    class_agnostic: the same deltas for all classes.
    """

    def __init__(
        self,
        classes: int,
        conv_widths: Sequence[int] = (),
        normed: bool = False,
        class_agnostic: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.classes = classes
        self.class_agnostic = class_agnostic
        self.conv_widths = list(conv_widths)
        self.normed = normed
        self.convs, self.norms = convs.stack(self.conv_widths, normed)
        uniform = initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # torch.nn.Linear's
        self.dense = [layers.Dense(DENSE, relu, kernel_initializer=uniform) for _ in range(1 if conv_widths else 2)]
        # The last layers start near zero, as in Detectron: every class equally likely, every box as proposed.
        near_zero = [initializers.RandomNormal(stddev=stddev) for stddev in (0.01, 0.001)]
        self.class_logits = layers.Dense(classes + 1, kernel_initializer=near_zero[0], dtype="float32")
        self.deltas = layers.Dense(
            4 * (1 if class_agnostic else classes + 1), kernel_initializer=near_zero[1], dtype="float32"
        )

    def build(self, shape):
        convs.build(self.convs, self.norms, (None, *shape[-3:]))
        width = [shape[-1], *self.conv_widths][-1]
        self.dense[0].build((None, None, width * ROI_BOX_SIDE**2))
        for layer in (*self.dense[1:], self.class_logits, self.deltas):
            layer.build((None, None, DENSE))

    def call(self, features: KerasTensor) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
        hidden = ops.reshape(features, (-1, *features.shape[2:]))
        hidden = convs.apply(self.convs, self.norms, hidden)  # (B * R, 7, 7, C)
        hidden = ops.reshape(hidden, (-1, features.shape[1], hidden.shape[-1] * ROI_BOX_SIDE**2))
        for layer in self.dense:
            hidden = layer(hidden)  # (B, R, 1024)
        deltas = ops.reshape(self.deltas(hidden), (-1, features.shape[1], self.deltas.units // 4, 4))
        deltas = ops.repeat(deltas, self.classes + 1, axis=2) if self.class_agnostic else deltas
        return self.class_logits(hidden), deltas, hidden
