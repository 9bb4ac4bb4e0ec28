"""The heads on regions of interest together: sampling, losses, the cascade, and which instances are detected."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model import compilation, device, losses, targets
from fashionseg.model.attribute_heads import ConvAttributes, LinearAttributes
from fashionseg.model.box_head import ROI_BOX_SIDE, BoxHead
from fashionseg.model.mask_head import MASK, ROI_MASK_SIDE, MaskHead
from fashionseg.model.nms import nms
from fashionseg.model.roi_align import RoIAlign, levels

POSITIVE_FRACTION = 0.25  # of the sampled RoIs
CANDIDATES = 1000  # best (RoI, class) pairs that enter NMS
BOX_MIN_SIZE = 1e-2  # pixels; thinner detections are dropped
BEYOND = -1e6  # pixels; beyond every feature map
# Masks and attributes of an image are computed in at most MAX_PARTS parts of at least MIN_PART slots. A part without
# instances costs nothing, but each enlarges the graph. In a training a GPU pools all of them at once, as each part's
# gradient of the whole pyramid costs more there than empty slots, and so does each part's of a large attribute head.
MAX_PARTS, MIN_PART = 8, 16


class Stage(NamedTuple):
    """Of a cascade: IoU from which a box is foreground, weights of its deltas, share in the losses."""

    fg_iou_thresh: float
    delta_weights: tuple[float, ...]
    loss_share: float


# Cai and Vasconcelos 2018: each stage gets better boxes, asks more of them and corrects them less. The first one by
# itself is Fast R-CNN; the shares are those of their code and of mmdetection.
STAGES = (
    Stage(0.5, box_ops.HEAD_WEIGHTS, 1.0),
    Stage(0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    Stage(0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)


@keras.saving.register_keras_serializable("fashionseg")
class RoIHeads(layers.Layer):
    """Box heads, mask head and attribute head with their sampling, losses and final selection, on P2-P5 of the pyramid.

    attributes: none, linear or conv; attribute_count: its outputs. box_convs: number of 3x3 convolutions in the box
    head; normed: group norm; class_agnostic_boxes: the same deltas for all classes; class_agnostic_masks: one mask
    filter for all classes; box_stages: box heads of a cascade, more than one need class_agnostic_boxes.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        strides: list[int],
        rois: int,
        detections: int,
        attributes: str,
        attribute_count: int,
        box_convs: int = 0,
        normed: bool = False,
        class_agnostic_boxes: bool = False,
        class_agnostic_masks: bool = False,
        box_stages: int = 1,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # coordinates stay float32
        self.classes = classes
        self.channels = channels
        self.strides = strides
        self.rois = rois
        self.detections = detections
        self.box_convs = box_convs
        self.normed = normed
        self.class_agnostic_boxes = class_agnostic_boxes
        self.class_agnostic_masks = class_agnostic_masks
        self.box_stages = box_stages
        # The first one is an attribute of its own: weight files from when there was only one still load.
        self.box_head, *self.later_box_heads = [
            BoxHead(classes, [channels] * box_convs, normed, class_agnostic_boxes) for _ in range(box_stages)
        ]
        self.mask_head = MaskHead(classes, channels, class_agnostic_masks, normed)
        self.attributes = attributes
        self.attribute_count = attribute_count
        self.attribute_head = {
            "none": lambda: None,
            "linear": lambda: LinearAttributes(attribute_count),
            "conv": lambda: ConvAttributes(attribute_count, channels),
        }[attributes]()

    def build(self, shapes):
        channels = shapes[0][-1]
        for head in self.box_heads:
            head.build((None, None, ROI_BOX_SIDE, ROI_BOX_SIDE, channels))
        self.mask_head.build((None, None, ROI_MASK_SIDE, ROI_MASK_SIDE, channels))
        if self.attribute_head:
            self.attribute_head.build(
                (None, None, self.box_head.dense[-1].units), (None, None, ROI_MASK_SIDE, ROI_MASK_SIDE, channels)
            )

    @property
    def box_heads(self) -> list[BoxHead]:
        return [self.box_head, *self.later_box_heads]

    def align(self, pyramid: list[KerasTensor]) -> Callable[..., list[KerasTensor]]:
        """A function of pairs of rois (B, R, 4) and a side that gives the features (B, R, side, side, C) of each."""
        count = len(self.strides)
        roi_align = RoIAlign(pyramid[:count], self.strides)
        return lambda *pairs: roi_align.pool([(rois, levels(rois, count), side) for rois, side in pairs])

    def losses_of(
        self,
        pyramid: list[KerasTensor],
        proposals: KerasTensor,
        scores: KerasTensor,
        batch: dict[str, KerasTensor],
        uniform: KerasTensor,
    ) -> dict[str, KerasTensor]:
        """Losses `classifier`, `box_reg`, `mask` and, with an attribute head, `attributes` over a sample of proposals
        and ground truth boxes.

        proposals (B, P, 4), scores (B, P) 0 where padding; uniform (B, P + N): random numbers for the sampling.
        """
        gt_boxes, gt_classes = batch["boxes"], batch["classes"]
        gt_valid = gt_classes > 0
        candidates = ops.concatenate([proposals, gt_boxes], axis=1)  # (B, P + N, 4)
        valid = ops.concatenate([scores > 0, gt_valid], axis=1)
        least = STAGES[0].fg_iou_thresh
        labels = targets.label(gt_boxes, gt_valid, candidates, least, least, allow_low_quality=False)
        labels = ops.where(valid, labels, targets.IGNORED)  # (B, P + N)
        positives = int(self.rois * POSITIVE_FRACTION)
        indices, foreground, used = targets.sample(labels, uniform, self.rois, positives)  # (B, R)

        rois = ops.stop_gradient(targets.take(candidates, indices))  # (B, R, 4)
        # Foreground comes first in a sample: only these slots go through the mask and attribute heads.
        first = slice(positives)
        matched_first = targets.nearest(gt_boxes, gt_valid, rois[:, first])
        classes = ops.where(foreground[:, first], targets.take(gt_classes, matched_first), 0)
        if device.accelerated():
            # Slots without a box lie beyond the map, where there is nothing to pool and no gradient to add up.
            of_boxes, of_masks = (
                ops.where(has[..., None], some, BEYOND)
                for has, some in ((used, rois), (foreground[:, first], rois[:, first]))
            )
            box_features, mask_features = self.align(pyramid)((of_boxes, ROI_BOX_SIDE), (of_masks, ROI_MASK_SIDE))
            values, features = self._box_losses(pyramid, box_features, rois, batch, foreground=foreground, used=used)
            mask_logits = self._masks_in_parts(mask_features, classes, foreground[:, first])
            attribute_logits = self._attribute_logits(features[:, first], mask_features)
        else:
            (box_features,) = self.align(pyramid)((rois, ROI_BOX_SIDE))
            values, features = self._box_losses(pyramid, box_features, rois, batch, foreground=foreground, used=used)
            mask_logits, attribute_logits = self._instances_in_parts(
                pyramid, rois[:, first], classes, features[:, first], foreground[:, first]
            )
        # mask_logits (B, positives, 28, 28), attribute_logits (B, positives, A)
        mask_targets = targets.project_masks(
            targets.take(batch["masks"], matched_first),
            targets.take(gt_boxes, matched_first),
            rois[:, first],
            MASK[0],
        )  # (B, positives, 28, 28)
        values["mask"] = losses.mask(mask_logits, mask_targets, foreground[:, first])
        if self.attribute_head:
            attribute_targets = targets.take(batch["attributes"], matched_first)
            values["attributes"] = losses.attributes(attribute_logits, attribute_targets, foreground[:, first])
        return values

    def _box_losses(self, pyramid, roi_features, rois, batch, foreground, used):
        """Losses `classifier` and `box_reg`, summed over the stages, and the features (B, R, F) of the last one.

        roi_features (B, R, 7, 7, C) of rois (B, R, 4); foreground and used (B, R) bool. Later stages have the same
        sample, its boxes corrected by the stage before and matched anew, as detectron2.
        """
        gt_boxes, gt_classes = batch["boxes"], batch["classes"]
        gt_valid = gt_classes > 0
        values = {"classifier": 0.0, "box_reg": 0.0}
        for number, (stage, head) in enumerate(zip(STAGES, self.box_heads, strict=False)):
            if number:
                (roi_features,) = self.align(pyramid)((rois, ROI_BOX_SIDE))
                least = stage.fg_iou_thresh
                labels = targets.label(gt_boxes, gt_valid, rois, least, least, allow_low_quality=False)
                foreground = ops.logical_and(used, ops.equal(labels, targets.FOREGROUND))
            matched = targets.nearest(gt_boxes, gt_valid, rois)
            labels = ops.where(foreground, targets.take(gt_classes, matched), 0)
            logits, deltas, features = head(roi_features)
            own = ops.take_along_axis(deltas, labels[..., None, None], axis=2)[:, :, 0]  # (B, R, 4)
            regression_targets = box_ops.encode(targets.take(gt_boxes, matched), rois, stage.delta_weights)
            values["classifier"] += stage.loss_share * losses.classifier(logits, labels, used)
            values["box_reg"] += stage.loss_share * losses.box_reg(own, regression_targets, foreground, used)
            rois = box_ops.decode(deltas[:, :, 0], rois, stage.delta_weights)  # for the next one
            rois = ops.stop_gradient(box_ops.clip(rois, batch["sizes"]))
        return values, features

    def classify(
        self, pyramid: list[KerasTensor], rois: KerasTensor, sizes: KerasTensor
    ) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
        """Probabilities (B, R, classes + 1) of rois (B, R, 4), the mean of all stages; their boxes (B, R, classes, 4)
        and features (B, R, F) by the last one. sizes (B, 2): heights and widths without padding."""
        align = self.align(pyramid)
        probabilities = 0.0
        for stage, head in zip(STAGES, self.box_heads, strict=False):
            logits, deltas, features = head(align((rois, ROI_BOX_SIDE))[0])
            probabilities += ops.softmax(logits, axis=-1) / self.box_stages
            boxes = box_ops.decode(deltas[:, :, 1:], rois[:, :, None], stage.delta_weights)
            boxes = box_ops.clip(boxes, sizes)
            rois = boxes[:, :, 0]  # for the next one
        return probabilities, boxes, features

    def detect(
        self,
        pyramid: list[KerasTensor],
        proposals: KerasTensor,
        scores: KerasTensor,
        sizes: KerasTensor,
        *,
        score_threshold: float,
        nms_iou: float,
    ) -> dict[str, KerasTensor]:
        """Detections, best first: boxes (B, D, 4), scores (B, D), classes (B, D) int32, masks (B, D, 28, 28), margins
        (B, D), the score minus that of the next best class, and, with an attribute head, attributes (B, D, A) in 0..1.

        Class 0 is padding. NMS is per class, among the CANDIDATES best pairs of proposal and class, or as many as there
        are detections if that is more.
        """
        probabilities, boxes, features = self.classify(pyramid, proposals, sizes)
        boxes = ops.reshape(boxes, (-1, proposals.shape[1] * self.classes, 4))
        keep = ops.all(boxes[..., 2:] - boxes[..., :2] >= BOX_MIN_SIZE, axis=-1)  # (B, P * classes), as pair_scores
        pair_scores = ops.where(scores[..., None] > 0, probabilities[..., 1:], 0.0)
        pair_scores = ops.reshape(pair_scores, (-1, proposals.shape[1] * self.classes))
        pair_scores = ops.where(ops.logical_and(keep, pair_scores > score_threshold), pair_scores, 0.0)

        candidates = min(max(CANDIDATES, self.detections), pair_scores.shape[1])
        scores, pair = ops.top_k(pair_scores, candidates)  # (B, candidates)
        keep = nms(targets.take(boxes, pair), scores, nms_iou, pair % self.classes)
        scores, indices = ops.top_k(ops.where(keep, scores, 0.0), min(self.detections, candidates))
        missing = (0, 0), (0, self.detections - indices.shape[1])  # where pairs are fewer than detections
        scores, pair = ops.pad(scores, missing), ops.pad(targets.take(pair, indices), missing)  # (B, D)
        valid, roi = scores > 0, pair // self.classes
        boxes = ops.where(valid[..., None], targets.take(boxes, pair), 0.0)  # (B, D, 4)
        classes = ops.where(valid, ops.cast(pair % self.classes, "int32") + 1, 0)
        others = ops.one_hot(classes, self.classes + 1) < 0.5  # (B, D, classes + 1)
        next_best = ops.max(ops.where(others, targets.take(probabilities, roi), 0.0), axis=-1)  # (B, D)
        mask_logits, attribute_logits = self._instances_in_parts(
            pyramid, boxes, classes, targets.take(features, roi), valid
        )
        detections = {
            "boxes": boxes,
            "scores": scores,
            "classes": classes,
            "masks": ops.sigmoid(mask_logits),
            "margins": ops.where(valid, scores - next_best, 0.0),
        }
        if self.attribute_head:
            detections["attributes"] = ops.sigmoid(attribute_logits)
        return detections

    def _attribute_logits(self, features, roi_features):
        """(B, R, A), A = 0 without an attribute head, from the box head's features (B, R, F) and RoI features (B, R,
        14, 14, C)."""
        if not self.attribute_head:
            return ops.zeros((*ops.shape(features)[:2], 0))
        return self.attribute_head(features, roi_features)

    def _instances_in_parts(self, pyramid, rois, classes, features, used):
        """Mask logits (B, R, 28, 28) and attribute logits (B, R, A) of rois (B, R, 4), of `classes` (B, R) and features
        (B, R, F) of the box head; those of slots that are not `used` are undefined."""
        align = self.align(pyramid)

        def instances(part):
            (roi_features,) = align((rois[:, part], ROI_MASK_SIDE))
            masks = self.mask_head(roi_features, classes[:, part])
            return [masks, self._attribute_logits(features[:, part], roi_features)]

        if not device.branches():
            return instances(slice(None))
        attributes = self.attribute_count if self.attribute_head else 0
        return _in_parts(lambda part: partial(instances, part), [MASK, (attributes,)], used)

    def _masks_in_parts(self, roi_features, classes, used):
        """Mask logits (B, R, 28, 28) of RoI features (B, R, 14, 14, C) that are pooled already."""

        def masks(part):
            # Cut up outside of the branch, or the gradient of each part has the size of all.
            of_part = compilation.rematerialized(lambda *given: [self.mask_head(*given)])
            return partial(of_part, roi_features[:, part], classes[:, part])

        return _in_parts(masks, [MASK], used)[0]


def _in_parts(
    outputs: Callable[[slice], Callable[[], Sequence[KerasTensor]]],
    shapes: Sequence[tuple[int, ...]],
    used: KerasTensor,
) -> list[KerasTensor]:
    """What the functions `outputs` of each part of the slots give, together: (B, R, *shape) for each of `shapes`.

    used (B, R) bool: these come first, and a part without them is skipped; the output of other slots is undefined.
    """
    step = max(-(-used.shape[1] // MAX_PARTS), MIN_PART)

    def zeros(part):
        return [ops.zeros((ops.shape(used)[0], used[:, part].shape[1], *shape)) for shape in shapes]

    parts = [slice(start, start + step) for start in range(0, used.shape[1], step)]
    found = [ops.cond(ops.any(used[:, part]), outputs(part), partial(zeros, part)) for part in parts]
    return [ops.concatenate(of_parts, axis=1) for of_parts in zip(*found, strict=True)]
