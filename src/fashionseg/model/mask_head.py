"""The mask head: one mask of each region of interest (Mask R-CNN, He et al. 2017)."""

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import convs, initializers
from fashionseg.model.activations import relu

ROI_MASK_SIDE = 14  # cells of an RoI's features
MASK = 2 * ROI_MASK_SIDE, 2 * ROI_MASK_SIDE  # pixels


@keras.saving.register_keras_serializable("fashionseg")
class MaskHead(layers.Layer):
    """Four convolutions and one upsampling: mask logits (B, R, 28, 28) from features (B, R, 14, 14, C) for one class
    per RoI.

    The paper's last 1x1 convolution predicts masks of all classes; here only the filter of the RoI's class, (B, R)
    int32, 0 = background, is applied: the same numbers for a fraction of the work. class_agnostic: one filter for all
    classes. normed: group norm after each of the four.
    """

    def __init__(self, classes: int, channels: int, class_agnostic: bool = False, normed: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.channels = channels
        self.class_agnostic = class_agnostic
        self.normed = normed
        self.convs, self.norms = convs.stack([channels] * 4, normed)
        he = initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.upsample = layers.Conv2DTranspose(channels, 2, 2, kernel_initializer=he)

    def build(self, shape):
        convs.build(self.convs, self.norms, (None, *shape[-3:]))
        self.upsample.build((None, ROI_MASK_SIDE, ROI_MASK_SIDE, self.channels))
        near_zero = initializers.RandomNormal(stddev=0.001)  # as in Detectron: every pixel undecided
        filters = 1 if self.class_agnostic else self.classes + 1
        self.kernel = self.add_weight((filters, self.channels), near_zero, name="kernel")
        self.bias = self.add_weight((filters,), "zeros", name="bias")

    def call(self, features: KerasTensor, classes: KerasTensor) -> KerasTensor:
        count = features.shape[1]
        hidden = ops.reshape(features, (-1, *features.shape[2:]))
        hidden = convs.apply(self.convs, self.norms, hidden)  # (B * R, 14, 14, channels)
        # The upsampling kernel is as large as its stride, so one product gives each cell its 2 x 2 pixels.
        kernel = ops.reshape(ops.transpose(self.upsample.kernel, (3, 0, 1, 2)), (self.channels, -1))
        hidden = ops.reshape(ops.matmul(hidden, kernel), (-1, count, (2 * ROI_MASK_SIDE) ** 2, self.channels))
        hidden = relu(hidden + self.upsample.bias)
        filters = ops.zeros_like(classes) if self.class_agnostic else classes
        # Not ops.take: its gradient is sparse, and there Keras' check for float16 infinities misses some.
        one_hot = ops.one_hot(filters, self.kernel.shape[0], dtype=self.compute_dtype)  # (B, R, filters)
        logits = ops.matmul(hidden, ops.matmul(one_hot, self.kernel)[..., None])[..., 0]  # (B, R, 28 * 28)
        logits = logits + ops.matmul(one_hot, self.bias[:, None])
        logits = ops.reshape(logits, (-1, ROI_MASK_SIDE, ROI_MASK_SIDE, 2, 2))
        logits = ops.reshape(ops.swapaxes(logits, 2, 3), (-1, count, 2 * ROI_MASK_SIDE, 2 * ROI_MASK_SIDE))
        return ops.cast(logits, "float32")
