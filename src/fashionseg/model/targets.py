"""Targets of anchors and RoIs: matching to the ground truth, sampling with static shapes, mask targets."""

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model.roi_align import RoIAlign
from fashionseg.model.top_k import top_k

FOREGROUND, BACKGROUND, IGNORED = 0, -1, -2
PART = 8  # boxes of ground truth that candidates are compared with at once; parts of padding alone are left out


def label(
    gt_boxes: KerasTensor,
    gt_valid: KerasTensor,
    candidates: KerasTensor,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    allow_low_quality: bool,
) -> KerasTensor:
    """(B, M) int32: FOREGROUND, BACKGROUND, or IGNORED between the thresholds, by the highest IoU with ground truth.

    gt_boxes (B, N, 4); gt_valid (B, N) bool, False for padding; candidates (B, M, 4) or (M, 4). With
    `allow_low_quality` the best candidates of each ground truth are foreground, however little they overlap (Faster
    R-CNN, section 3.1.2; ties included, as in torchvision's Matcher). Ground truth without area has none.
    """
    count, candidate_count = gt_boxes.shape[1], candidates.shape[-2]
    step = min(count, PART)
    missing = -count % step
    gt_boxes = ops.pad(gt_boxes, ((0, 0), (0, missing), (0, 0)))
    gt_valid = ops.pad(gt_valid, ((0, 0), (0, missing)))

    def compare(part, state):
        best_iou, low_quality = state  # (B, M) each
        rows = part * step + ops.arange(step)
        ious = _ious(ops.take(gt_boxes, rows, axis=1), ops.take(gt_valid, rows, axis=1), candidates)  # (B, step, M)
        if allow_low_quality:
            highest = ops.max(ious, axis=2, keepdims=True)  # (B, step, 1), over all candidates
            ties = ops.logical_and(ops.equal(ious, highest), highest > 0)
            low_quality = ops.logical_or(low_quality, ops.any(ties, axis=1))
        return ops.maximum(best_iou, ops.max(ious, axis=1)), low_quality

    shape = ops.shape(gt_boxes)[0], candidate_count
    filled = ops.max(ops.where(gt_valid, ops.arange(1, count + missing + 1), 0))  # slots, up to the last valid one
    parts = (filled + step - 1) // step
    best_iou, low_quality = ops.fori_loop(0, parts, compare, (ops.full(shape, -1.0), ops.zeros(shape, "bool")))
    labels = ops.where(best_iou < bg_iou_thresh, BACKGROUND, IGNORED)
    return ops.where(ops.logical_or(best_iou >= fg_iou_thresh, low_quality), FOREGROUND, labels)


def nearest(gt_boxes: KerasTensor, gt_valid: KerasTensor, candidates: KerasTensor) -> KerasTensor:
    """(B, M) int32: index of the ground truth with the highest IoU, the first of equal ones, for each candidate; see
    `label`."""
    return ops.cast(ops.argmax(_ious(gt_boxes, gt_valid, candidates), axis=1), "int32")


def _ious(gt_boxes, gt_valid, candidates):
    """(B, N, M); -1 with padding."""
    return ops.where(gt_valid[..., None], box_ops.iou(gt_boxes, candidates), -1.0)


def sample(
    labels: KerasTensor, uniform: KerasTensor, count: int, positives: int
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Samples `count` of the candidates, at most `positives` of them foreground, the rest background.

    labels (B, M) from `label`; uniform (B, M) random numbers in [0, 1), the largest of which are sampled. Returns
    indices (B, count) int32, foreground (B, count) bool and used (B, count) bool. Foreground comes first, so slots from
    `positives` on are background in every image. Slots stay unused where candidates are too few. count is at most M.
    """
    count, positives = min(count, labels.shape[1]), min(positives, labels.shape[1])
    foreground = ops.equal(labels, FOREGROUND)
    priority = ops.where(foreground, uniform, -1.0)  # (B, M)
    threshold = top_k(priority, positives)[0][:, -1:]  # (B, 1): the lowest that is sampled, -1 where all are
    drawn = ops.logical_and(foreground, priority >= threshold)
    background = ops.equal(labels, BACKGROUND)
    priority = ops.where(drawn, 2.0 + uniform, ops.where(background, uniform, -1.0))
    priority, indices = top_k(priority, count)  # (B, count)
    return ops.cast(indices, "int32"), priority >= 2.0, priority >= 0.0


def take(values: KerasTensor, indices: KerasTensor) -> KerasTensor:
    """Rows (B, K, ...) of `values` (B, M, ...) at `indices` (B, K), in a fifth of the time of ops.take_along_axis on
    TensorFlow."""
    shape = values.shape
    flat = ops.reshape(values, (-1, *shape[2:]))
    offsets = ops.arange(ops.shape(values)[0], dtype="int32")[:, None] * shape[1]
    return ops.take(flat, ops.cast(indices, "int32") + offsets, axis=0)


def project_masks(masks: KerasTensor, boxes: KerasTensor, rois: KerasTensor, side: int) -> KerasTensor:
    """Targets (B, K, side, side) float32 in 0..1 of the mask head.

    masks (B, K, M, M), each cropped to its box in boxes (B, K, 4); rois (B, K, 4). RoIAlign of the mask, as
    torchvision's project_masks_on_boxes; outside its box a mask is background.
    """
    count, cells = masks.shape[1], masks.shape[2]
    grids = ops.pad(ops.cast(masks, "float32"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    grids = ops.reshape(grids, (-1, cells + 2, cells + 2, 1))  # (B * K, M + 2, M + 2, 1)
    scale = cells / ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)  # (B, K, 2) cells a pixel
    origin = ops.tile(boxes[..., :2], (1, 1, 2))  # (B, K, 4) x1, y1, x1, y1
    grid_rois = ops.reshape((rois - origin) * ops.tile(scale, (1, 1, 2)) + 1.0, (-1, 1, 4))  # (B * K, 1, 4) in cells
    level = ops.zeros_like(grid_rois[..., 0], dtype="int32")
    projected = RoIAlign([grids], [1], aligned=True)(grid_rois, level, side)  # (B * K, 1, side, side, 1)
    return ops.reshape(projected, (-1, count, side, side))
