"""Mask R-CNN (He et al. 2017) with a feature pyramid, for training (`MaskRCNN`) and inference (`Detector`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import KerasTensor, ops

from fashionseg.model import backbones, initializers, sampling, targets
from fashionseg.model.config import LOSSES, Network
from fashionseg.model.fpn import FeaturePyramid
from fashionseg.model.roi_heads import RoIHeads
from fashionseg.model.rpn import RegionProposals

STRIDES = [4, 8, 16, 32, 64]  # of P2 to P6; the heads use all but P6
# model.heads: number of 3x3 convolutions of the RPN, their filters (None: fpn_channels), number of 3x3 convolutions of
# the box head, group norm in pyramid and heads. v1 and v2 are torchvision's maskrcnn_resnet50_fpn and ..._v2; an import
# folds their batch norm and Matterport's into the layers. v2_group is v2 for training without a file.
HEADS = {
    "v1": (1, None, 0, False),
    "v2": (2, None, 4, False),
    "v2_group": (2, None, 4, True),
    "matterport": (1, 512, 0, False),
}


class MaskRCNN(keras.Model):
    """`call` returns the losses of a batch, `fit` minimises their weighted sum, `detect` returns instances.

    Features may be 16-bit (config.precision); boxes, NMS, scores and losses are float32. config.seed fixes initial
    weights and sampling, the same on every backend.

    Heads v2: torchvision trains their batch norm on many GPUs. The small batches of one machine give poor statistics,
    so imported batch norm is folded into its convolution, with the same numbers at inference, and trained on as kernel
    and bias. Without an import, v2_group normalises within each image and RoI.

    A batch is a dict: images (B, H, W, 3) RGB 0..255 padded at the right and bottom, float32, or uint8 to send a
    quarter of the bytes; sizes (B, 2) int32 height and width without padding; boxes (B, N, 4) float32 x1 y1 x2 y2 in
    padded pixels; classes (B, N) int32, 0 = no instance, else index + 1; masks (B, N, M, M) uint8, each cropped to its
    box; with an attribute head attributes (B, N, A) uint8 0 or 1.
    """

    def __init__(self, config: Network):
        _configure_keras()
        super().__init__(dtype=config.precision, autocast=False)
        self.config = config
        side, channels = config.side, config.fpn_channels
        rpn_convs, rpn_width, box_convs, normed = HEADS[config.heads]
        with _policy(config.precision), initializers.seeded(config.seed, 0):
            self.backbone = backbones.build(
                config.backbone, config.weights, config.frozen_stages, side, config.frozen_norm
            )
            self.fpn = FeaturePyramid(channels, normed)
            self.rpn = RegionProposals(
                rpn_width or channels,
                STRIDES,
                config.anchor_side,
                config.proposals,
                convs=rpn_convs,
                ratios=config.anchor_ratios,
            )
            self.roi_heads = RoIHeads(
                config.classes,
                channels,
                STRIDES[:4],
                rois=config.rois,
                detections=config.detections,
                attributes=config.attributes,
                attribute_count=config.attribute_count,
                box_convs=box_convs,
                normed=normed,
                class_agnostic_boxes=config.class_agnostic_boxes,
                class_agnostic_masks=config.class_agnostic_masks,
                box_stages=config.box_stages,
            )
        self.seed_generator = keras.random.SeedGenerator(config.seed)
        names = LOSSES[:-1] if config.attributes == "none" else LOSSES
        self.trackers = [keras.metrics.Mean(name) for name in names]
        self.loss_weights: dict[str, float] = {}  # by name; 1 where missing
        widths = [feature.shape[-1] for feature in self.backbone.outputs]
        pyramid = [(None, side // stride, side // stride, channels) for stride in STRIDES]
        with initializers.seeded(config.seed, 1):  # their own stream: they start the same with any backbone
            self.fpn.build([(None, side // s, side // s, c) for s, c in zip(STRIDES, widths, strict=False)])
            self.rpn.build(pyramid)
            self.roi_heads.build(pyramid)
        self.built = True

    @property
    def square(self) -> bool:
        """Whether H and W of a batch must be config.side; else they may be any multiples of 32."""
        return self.backbone.input.shape[1] is not None

    def call(self, batch: dict[str, KerasTensor], training: bool = False) -> dict[str, KerasTensor]:
        """The losses by name, scalars. training: batch norm that is not frozen uses batch statistics."""
        pyramid, logits, deltas, anchors = self.first_stage(batch["images"], training)
        proposals, scores = self.rpn.propose(logits, deltas, anchors, batch["sizes"])
        counts = sum(level.shape[0] for level in anchors), proposals.shape[1] + batch["classes"].shape[1]
        images = ops.shape(batch["images"])[0]
        uniform = [sampling.uniform((images, n), self.seed_generator.next()) for n in counts]  # (B, A), (B, P + N)
        return {
            **self.rpn.losses_of(pyramid, anchors, batch, uniform[0]),
            **self.roi_heads.losses_of(pyramid, proposals, scores, batch, uniform[1]),
        }

    def detect(
        self, images: KerasTensor, sizes: KerasTensor, score_threshold: float, nms_iou: float
    ) -> dict[str, KerasTensor]:
        """Instances, best first: boxes (B, D, 4) in padded pixels, scores (B, D), classes (B, D) int32, 0 = none,
        masks (B, D, 28, 28) float32 probabilities within the box, margins (B, D), score minus that of the next best
        class, and with an attribute head attributes (B, D, A) float32 probabilities."""
        pyramid, logits, deltas, anchors = self.first_stage(images)
        proposals, scores = self.rpn.propose(logits, deltas, anchors, sizes)
        return self.roi_heads.detect(
            pyramid, proposals, scores, sizes, score_threshold=score_threshold, nms_iou=nms_iou
        )

    def first_stage(self, images: KerasTensor, training: bool = False) -> tuple[list[KerasTensor], ...]:
        """Feature maps, RPN logits, RPN deltas and anchors, each a list over P2 to P6."""
        pyramid = self.fpn(self.backbone(images, training=training))
        return pyramid, *self.rpn(pyramid), self.rpn.anchors(pyramid)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> KerasTensor:
        for tracker in self.trackers:
            tracker.update_state(y_pred[tracker.name])
        return sum(self.loss_weights.get(name, 1.0) * loss for name, loss in y_pred.items())


def _configure_keras() -> None:
    """Sets what the network relies on, whatever ~/.keras/keras.json holds for other projects."""
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Detector(keras.Model):
    """`predict` on batches of {images, sizes} returns the instances of `MaskRCNN.detect`, compiled on every backend.

    mask_scores: scores are of class and mask, see `with_mask_scores`.
    """

    def __init__(self, network: MaskRCNN, score_threshold: float, nms_iou: float, mask_scores: bool = False):
        super().__init__(autocast=False)
        self.network = network
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.mask_scores = mask_scores
        self.built = True

    def call(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        found = self.network.detect(batch["images"], batch["sizes"], self.score_threshold, self.nms_iou)
        return with_mask_scores(found, self.score_threshold) if self.mask_scores else found


def with_mask_scores(found: dict[str, KerasTensor], score_threshold: float) -> dict[str, KerasTensor]:
    """The instances of `MaskRCNN.detect`, their scores times those of their masks, best first and again without those
    below the threshold. Margins stay those of the class scores.

    The score of a mask is the mean probability of its pixels, those above 0.5 (Cheng et al. 2022, Mask2Former).
    """
    masks = found["masks"]  # (B, D, 28, 28)
    pixels = ops.cast(masks > 0.5, "float32")
    count = ops.sum(pixels, axis=(2, 3))  # (B, D)
    mean = ops.sum(masks * pixels, axis=(2, 3)) / ops.maximum(count, 1.0)
    scores = found["scores"] * ops.where(count > 0, mean, ops.max(masks, axis=(2, 3)))
    scores = ops.where(scores > score_threshold, scores, 0.0)
    scores, order = ops.top_k(scores, scores.shape[1])
    found = {name: targets.take(values, order) for name, values in found.items()}
    classes = ops.where(scores > 0, found["classes"], 0)
    return {**found, "scores": scores, "classes": classes}
