"""Region Proposal Network (Ren et al. 2015) on a feature pyramid."""

from collections.abc import Sequence
from itertools import accumulate

import keras
from keras import KerasTensor, layers, ops

from fashionseg.model import anchors as anchor_ops
from fashionseg.model import boxes as box_ops
from fashionseg.model import initializers, losses, targets
from fashionseg.model.activations import relu
from fashionseg.model.cells import Cells
from fashionseg.model.convs import Conv2D
from fashionseg.model.nms import nms
from fashionseg.model.top_k import top_k

FG_IOU_THRESH, BG_IOU_THRESH = 0.7, 0.3
BATCH_SIZE_PER_IMAGE, MAX_POSITIVES = 256, 128  # anchors that enter the loss
RPN_NMS_THRESH = 0.7
RPN_MIN_SIZE = 1e-3  # pixels; thinner proposals are dropped


@keras.saving.register_keras_serializable("fashionseg")
class RegionProposals(layers.Layer):
    """`convs` 3x3 convolutions of `channels` filters and two 1x1 convolutions, shared by all levels. Anchors have a
    side of `anchor_side` pixels on P2, twice that on each next level, and `ratios` of height to width.

    proposals: boxes per level that enter NMS, and boxes per image that are kept. Anchors centred in the padding are
    neither trained on nor proposed.
    """

    def __init__(
        self,
        channels: int,
        strides: list[int],
        anchor_side: int,
        proposals: int,
        convs: int = 1,
        ratios: Sequence[float] = anchor_ops.RATIOS,
        **kwargs,
    ):
        # float32 is for the 1x1 kernels; the 3x3 convolutions follow the global dtype policy.
        super().__init__(**{"dtype": "float32", **kwargs, "autocast": False})
        self.channels = channels
        self.strides = strides
        self.anchor_side = anchor_side
        self.proposals = proposals
        self.convs = convs
        self.ratios = list(ratios)
        normal = initializers.RandomNormal(stddev=0.01)
        count = len(ratios)
        # The first one is an attribute of its own: weight files from when there was only one still load.
        self.conv, *self.more_convs = [
            Conv2D(channels, activation=relu, kernel_initializer=normal) for _ in range(convs)
        ]
        self.objectness = layers.Conv2D(count, 1, kernel_initializer=normal, dtype="float32")
        self.deltas = layers.Conv2D(4 * count, 1, kernel_initializer=normal, dtype="float32")

    def build(self, shapes):
        self.conv.build(shapes[0])
        for conv in (*self.more_convs, self.objectness, self.deltas):
            conv.build((*shapes[0][:-1], self.channels))

    def call(
        self, pyramid: list[KerasTensor], indices: KerasTensor | None = None
    ) -> tuple[list[KerasTensor], list[KerasTensor]] | tuple[KerasTensor, KerasTensor]:
        """Logits (B, A_l) and deltas (B, A_l, 4) of the anchors of each level; or logits (B, K) and deltas (B, K, 4) of
        the anchors `indices` (B, K) among all levels.

        The latter are computed from the cells that each sees alone: so is the gradient, which for all cells of a
        pyramid would cost two thirds of a training's work in the RPN.
        """
        if indices is not None:
            return self._at(pyramid, indices)
        logits, deltas = [], []
        for hidden in pyramid:
            for conv in (self.conv, *self.more_convs):
                hidden = conv(hidden)  # (B, H, W, C)
            of_cells = self._outputs(hidden)
            count = hidden.shape[1] * hidden.shape[2] * len(self.ratios)
            logits.append(ops.reshape(of_cells[0], (-1, count)))
            deltas.append(ops.reshape(of_cells[1], (-1, count, 4)))
        return logits, deltas

    def _at(self, pyramid, indices):
        cells, ratios = indices // len(self.ratios), indices % len(self.ratios)
        features, inside = _around(pyramid, cells, reach=self.convs)  # (B * K, S, S, C), (B * K, S, S, 1)
        for number, conv in enumerate((self.conv, *self.more_convs)):
            if number:  # beyond the map `conv` sees zeros
                inside = inside[:, 1:-1, 1:-1]
                features = ops.where(inside, features, ops.zeros_like(features))
            features = conv.valid(features)
        logits, deltas = self._outputs(ops.reshape(features, (-1, indices.shape[1], self.channels)))
        logits = ops.take_along_axis(logits, ratios[..., None], axis=2)[..., 0]
        return logits, ops.take_along_axis(deltas, ratios[..., None, None], axis=2)[:, :, 0]

    def _outputs(self, hidden):
        """Logits (..., ratios) and deltas (..., ratios, 4) of cells (..., C), both 1x1 convolutions as one float32
        product, which reads the features once."""
        both = self.objectness, self.deltas
        kernel = ops.concatenate([layer.kernel[0, 0] for layer in both], axis=-1)  # (C, ratios + 4 ratios)
        bias = ops.concatenate([layer.bias for layer in both], axis=-1)
        outputs = ops.matmul(ops.cast(hidden, "float32"), kernel) + bias
        count = len(self.ratios)
        return outputs[..., :count], ops.reshape(outputs[..., count:], (-1, *hidden.shape[1:-1], count, 4))

    def anchors(self, pyramid: list[KerasTensor]) -> list[KerasTensor]:
        """The anchors (A_l, 4) of each level."""
        return [
            anchor_ops.grid_anchors(
                feature.shape[1], feature.shape[2], stride, self.anchor_side * 2**level, self.ratios
            )
            for level, (feature, stride) in enumerate(zip(pyramid, self.strides, strict=True))
        ]

    def propose(
        self,
        logits: list[KerasTensor],
        deltas: list[KerasTensor],
        anchors: list[KerasTensor],
        sizes: KerasTensor,
    ) -> tuple[KerasTensor, KerasTensor]:
        """Proposals (B, P, 4) in pixels and their scores (B, P), best first; a score of 0 is padding.

        sizes (B, 2) int32: heights and widths without padding.
        """
        boxes, scores = self.before_nms(logits, deltas, anchors, sizes)
        keep = [nms(*level, RPN_NMS_THRESH) for level in zip(boxes, scores, strict=True)]
        boxes, scores, keep = (ops.concatenate(levels, axis=1) for levels in (boxes, scores, keep))
        scores = ops.where(keep, scores, 0.0)
        scores, indices = top_k(scores, min(self.proposals, scores.shape[1]))
        return ops.stop_gradient(targets.take(boxes, indices)), ops.stop_gradient(scores)

    def before_nms(
        self,
        logits: list[KerasTensor],
        deltas: list[KerasTensor],
        anchors: list[KerasTensor],
        sizes: KerasTensor,
    ) -> tuple[list[KerasTensor], list[KerasTensor]]:
        """Of each level the best boxes (B, K_l, 4) in pixels and their scores (B, K_l), best first, as `propose`."""
        starts = [0, *accumulate(level.shape[0] for level in anchors)][:-1]  # of the levels, among all A anchors
        anchors = ops.concatenate(anchors, axis=0)  # (A, 4)
        logits = ops.where(anchor_ops.inside(anchors, sizes), ops.concatenate(logits, axis=1), -float("inf"))  # score 0
        levels = ops.split(logits, starts[1:], axis=1)
        best = [top_k(level, min(self.proposals, level.shape[1])) for level in levels]
        logits = ops.concatenate([level for level, _ in best], axis=1)  # (B, K), as all from here on
        indices = [ops.cast(places, "int32") + start for (_, places), start in zip(best, starts, strict=True)]
        indices = ops.concatenate(indices, axis=1)
        deltas = targets.take(ops.concatenate(deltas, axis=1), indices)  # (B, K, 4)
        boxes = box_ops.decode(deltas, ops.take(anchors, indices, axis=0), box_ops.RPN_WEIGHTS)
        boxes = box_ops.clip(boxes, sizes)
        keep = ops.all(boxes[..., 2:] - boxes[..., :2] >= RPN_MIN_SIZE, axis=-1)
        scores = ops.where(keep, ops.sigmoid(logits), 0.0)
        starts = list(accumulate(level.shape[1] for level, _ in best))[:-1]
        return ops.split(boxes, starts, axis=1), ops.split(scores, starts, axis=1)

    def losses_of(
        self,
        pyramid: list[KerasTensor],
        anchors: list[KerasTensor],
        batch: dict[str, KerasTensor],
        uniform: KerasTensor,
    ) -> dict[str, KerasTensor]:
        """Losses `objectness` and `rpn_box_reg` over a sample of the anchors.

        batch: boxes (B, N, 4), classes (B, N), 0 for padding, sizes (B, 2) int32; uniform (B, A): random numbers for
        the sampling.
        """
        gt_boxes, gt_valid, sizes = batch["boxes"], batch["classes"] > 0, batch["sizes"]
        anchors = ops.concatenate(anchors, axis=0)  # (A, 4)
        inside = anchor_ops.inside(anchors, sizes)  # (B, A)
        candidates = ops.where(inside[..., None], anchors, 0.0)  # (B, A, 4); no box's best anchor lies in the padding
        labels = targets.label(gt_boxes, gt_valid, candidates, FG_IOU_THRESH, BG_IOU_THRESH, allow_low_quality=True)
        labels = ops.where(inside, labels, targets.IGNORED)  # (B, A)
        indices, foreground, used = targets.sample(labels, uniform, BATCH_SIZE_PER_IMAGE, MAX_POSITIVES)  # (B, K)
        sampled = ops.take(anchors, indices, axis=0)  # (B, K, 4)
        matched_boxes = targets.take(gt_boxes, targets.nearest(gt_boxes, gt_valid, sampled))
        regression_targets = box_ops.encode(matched_boxes, sampled, box_ops.RPN_WEIGHTS)
        logits, deltas = self(pyramid, indices)  # as a layer: `_at` itself would round the kernels to 16 bits
        return {
            "objectness": losses.objectness(logits, foreground, used),
            "rpn_box_reg": losses.box_reg(deltas, regression_targets, foreground, used),
        }


def _around(pyramid, indices, reach):
    """The features (B * K, S, S, C) of the cells `indices` (B, K), counted over all levels, and of those up to `reach`
    cells around, zero beyond their map; and which are on it, (B * K, S, S, 1) bool."""
    cells = Cells(pyramid)
    level = sum(ops.cast(indices >= start, "int32") for start in cells.starts[1:-1])  # (B, K)
    start, height, width = (part[..., None] for part in cells.maps(level))
    side = 2 * reach + 1  # S
    offsets = ops.arange(-reach, reach + 1)
    ys = (indices[..., None] - start) // width + offsets  # (B, K, S)
    xs = (indices[..., None] - start) % width + offsets
    within = [ops.logical_and(at >= 0, at < length) for at, length in ((ys, height), (xs, width))]
    inside = ops.logical_and(within[0][..., None], within[1][:, :, None])  # (B, K, S, S)
    ys, xs = ops.clip(ys, 0, height - 1), ops.clip(xs, 0, width - 1)
    rows = start[..., None] + ys[..., None] * width[..., None] + xs[:, :, None]
    rows = rows + cells.of_images(indices)[..., None, None]
    bins = -1, indices.shape[1] * side**2, 1
    weights = ops.cast(inside, pyramid[0].dtype)
    (features,) = cells.weighted_sums([(ops.reshape(rows, bins), ops.reshape(weights, bins))])
    return ops.reshape(features, (-1, side, side, pyramid[0].shape[-1])), ops.reshape(inside, (-1, side, side, 1))
