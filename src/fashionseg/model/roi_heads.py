"""The heads on regions of interest: what a box holds (Fast R-CNN) and its mask (Mask R-CNN)."""

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model import losses, targets
from fashionseg.model.nms import nms
from fashionseg.model.roi_align import levels, roi_align

FOREGROUND_IOU = 0.5
POSITIVE_SHARE = 0.25  # of the sampled RoIs
BOX_SIDE, MASK_SIDE = 7, 14  # cells of an RoI's features; the mask that comes out is twice MASK_SIDE
CANDIDATES = 1000  # the best of all (RoI, class) pairs that enter the last suppression
LEAST_SIDE = 1e-2  # pixels; thinner detections are dropped
DENSE = 1024


@keras.saving.register_keras_serializable("fashionseg")
class BoxHead(layers.Layer):
    """Two dense layers on (B, R, 7, 7, C): class logits (B, R, classes + 1), deltas (B, R, classes + 1, 4)."""

    def __init__(self, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # torch.nn.Linear's
        self.dense = [layers.Dense(DENSE, "relu", kernel_initializer=uniform) for _ in range(2)]
        # The last layers begin near zero, as in Detectron: every class equally likely, every box as proposed.
        near_zero = [keras.initializers.RandomNormal(stddev=stddev) for stddev in (0.01, 0.001)]
        self.class_logits = layers.Dense(classes + 1, kernel_initializer=near_zero[0], dtype="float32")
        self.deltas = layers.Dense(4 * (classes + 1), kernel_initializer=near_zero[1], dtype="float32")

    def build(self, shape):
        self.dense[0].build((None, None, shape[-1] * BOX_SIDE**2))
        for layer in (self.dense[1], self.class_logits, self.deltas):
            layer.build((None, None, DENSE))

    def call(self, features: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        hidden = ops.reshape(features, (-1, features.shape[1], features.shape[-1] * BOX_SIDE**2))
        for layer in self.dense:
            hidden = layer(hidden)
        deltas = ops.reshape(self.deltas(hidden), (-1, features.shape[1], self.classes + 1, 4))
        return self.class_logits(hidden), deltas


@keras.saving.register_keras_serializable("fashionseg")
class MaskHead(layers.Layer):
    """Four convolutions, one doubling: mask logits (B, R, 28, 28) of features (B, R, 14, 14, C) for one class an RoI.

    The last 1x1 convolution of the paper answers for all classes; here only the filter of the RoI's own class
    (B, R) int32, 0 background, is applied, the same numbers for a fraction of the work.
    """

    def __init__(self, classes: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.channels = channels
        he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.convs = [
            layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_initializer=he) for _ in range(4)
        ]
        self.upsample = layers.Conv2DTranspose(channels, 2, 2, activation="relu", kernel_initializer=he)

    def build(self, shape):
        for conv, width in zip((*self.convs, self.upsample), (shape[-1], *[self.channels] * 4), strict=True):
            conv.build((None, MASK_SIDE, MASK_SIDE, width))
        near_zero = keras.initializers.RandomNormal(stddev=0.001)  # as in Detectron: every pixel undecided
        self.kernel = self.add_weight((self.classes + 1, self.channels), near_zero, name="kernel")
        self.bias = self.add_weight((self.classes + 1,), "zeros", name="bias")

    def call(self, features: KerasTensor, classes: KerasTensor) -> KerasTensor:
        count = features.shape[1]
        hidden = ops.reshape(features, (-1, *features.shape[2:]))
        for conv in (*self.convs, self.upsample):
            hidden = conv(hidden)
        side = 2 * MASK_SIDE
        hidden = ops.reshape(hidden, (-1, count, side * side, self.channels))
        kernels = ops.cast(ops.take(self.kernel, classes, axis=0), hidden.dtype)[..., None]
        logits = ops.cast(ops.matmul(hidden, kernels)[..., 0], "float32")
        logits = logits + ops.take(self.bias, classes, axis=0)[..., None]
        return ops.reshape(logits, (-1, count, side, side))


@keras.saving.register_keras_serializable("fashionseg")
class RoIHeads(layers.Layer):
    """Box head and mask head with their sampling, losses and final selection. Uses P2-P5 of the pyramid."""

    def __init__(self, classes: int, channels: int, strides: list[int], rois: int, detections: int, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.channels = channels
        self.strides = strides
        self.rois = rois
        self.detections = detections
        self.box_head = BoxHead(classes)
        self.mask_head = MaskHead(classes, channels)

    def build(self, shapes):
        channels = shapes[0][-1]
        self.box_head.build((None, None, BOX_SIDE, BOX_SIDE, channels))
        self.mask_head.build((None, None, MASK_SIDE, MASK_SIDE, channels))

    def align(self, pyramid: list[KerasTensor], rois: KerasTensor, side: int) -> KerasTensor:
        """RoI features (B, R, side, side, C)."""
        maps = pyramid[: len(self.strides)]
        return roi_align(maps, self.strides, rois, levels(rois, len(maps)), side)

    def call(self, pyramid: list[KerasTensor], rois: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Class logits (B, R, classes + 1) and deltas (B, R, classes + 1, 4) of rois (B, R, 4)."""
        return self.box_head(self.align(pyramid, rois, BOX_SIDE))

    def losses_of(
        self,
        pyramid: list[KerasTensor],
        proposals: KerasTensor,
        scores: KerasTensor,
        batch: dict[str, KerasTensor],
        uniform: KerasTensor,
    ) -> dict[str, KerasTensor]:
        """Losses `classifier`, `box_reg`, `mask` over a sample of the proposals and the true boxes.

        proposals (B, P, 4), scores (B, P) 0 where padding; `uniform` (B, P + N) decides the sample.
        """
        truth, classes = batch["boxes"], batch["classes"]
        valid = classes > 0
        candidates = ops.concatenate([proposals, truth], axis=1)
        present = ops.concatenate([scores > 0, valid], axis=1)
        matches = targets.match(truth, valid, candidates, FOREGROUND_IOU, FOREGROUND_IOU, allow_low_quality=False)
        matches = ops.where(present, matches, targets.IGNORED)
        positives = int(self.rois * POSITIVE_SHARE)
        indices, foreground, used = targets.sample(matches, uniform, self.rois, positives)

        rois = ops.stop_gradient(targets.take(candidates, indices))
        matched = ops.maximum(targets.take(matches, indices), 0)
        roi_classes = ops.where(foreground, targets.take(classes, matched), 0)
        matched_boxes = targets.take(truth, matched)
        logits, deltas = self(pyramid, rois)
        chosen = ops.take_along_axis(deltas, roi_classes[..., None, None], axis=2)[:, :, 0]
        goal = box_ops.encode(matched_boxes, rois, box_ops.HEAD_WEIGHTS)

        # Foreground comes first in a sample: the mask head sees these slots alone.
        foreground_rois = rois[:, :positives]
        mask_logits = self.mask_head(self.align(pyramid, foreground_rois, MASK_SIDE), roi_classes[:, :positives])
        mask_goal = targets.project_masks(
            targets.take(batch["masks"], matched[:, :positives]),
            matched_boxes[:, :positives],
            foreground_rois,
            2 * MASK_SIDE,
        )
        return {
            "classifier": losses.classifier(logits, roi_classes, used),
            "box_reg": losses.box_reg(chosen, goal, foreground, used),
            "mask": losses.mask(mask_logits, mask_goal, foreground[:, :positives]),
        }

    def detect(
        self,
        pyramid: list[KerasTensor],
        proposals: KerasTensor,
        scores: KerasTensor,
        sizes: KerasTensor,
        least_score: float,
        nms_iou: float,
    ) -> dict[str, KerasTensor]:
        """Detections, best first: boxes (B, D, 4), scores (B, D), classes (B, D) int32, masks (B, D, 28, 28).

        Class 0 is padding. Suppression is by class among the CANDIDATES best pairs of proposal and class.
        """
        logits, deltas = self(pyramid, proposals)
        probabilities = ops.softmax(logits, axis=-1)[..., 1:]
        boxes = box_ops.decode(deltas[:, :, 1:], proposals[:, :, None], box_ops.HEAD_WEIGHTS)
        boxes = ops.reshape(box_ops.clip(boxes, sizes), (-1, proposals.shape[1] * self.classes, 4))
        wide = ops.all(boxes[..., 2:] - boxes[..., :2] >= LEAST_SIDE, axis=-1)
        pairs = ops.where(scores[..., None] > 0, probabilities, 0.0)
        pairs = ops.reshape(pairs, (-1, proposals.shape[1] * self.classes))
        pairs = ops.where(ops.logical_and(wide, pairs > least_score), pairs, 0.0)

        best, indices = ops.top_k(pairs, min(CANDIDATES, pairs.shape[1]))
        boxes, classes = targets.take(boxes, indices), ops.cast(indices % self.classes, "int32") + 1
        kept = nms(boxes, best, nms_iou, classes)
        best, indices = ops.top_k(ops.where(kept, best, 0.0), self.detections)
        found = best > 0
        boxes = ops.where(found[..., None], targets.take(boxes, indices), 0.0)
        classes = ops.where(found, targets.take(classes, indices), 0)
        masks = ops.sigmoid(self.mask_head(self.align(pyramid, boxes, MASK_SIDE), classes))
        return {"boxes": boxes, "scores": best, "classes": classes, "masks": masks}
