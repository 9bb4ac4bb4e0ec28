"""What anchors and RoIs should answer: matching to the truth, and sampling with static shapes."""

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model.roi_align import RoIAlign
from fashionseg.model.top_k import top_k

BACKGROUND, IGNORED = -1, -2
PAIRS = 2**21  # overlaps of an image in memory at once: of all anchors with all truth they would be 80 MB


def match(
    truth: KerasTensor,
    valid: KerasTensor,
    candidates: KerasTensor,
    foreground_iou: float,
    background_iou: float,
    allow_low_quality: bool,
) -> KerasTensor:
    """Index (B, M) int32 of the truth each candidate belongs to, or BACKGROUND, or IGNORED between the thresholds.

    truth (B, N, 4) with valid (B, N) bool for rows that are no padding; candidates (B, M, 4) or (M, 4).
    With `allow_low_quality` the best candidates of each truth belong to their own best truth however low the
    overlap (Faster R-CNN, section 3.1.2; ties included, as torchvision's Matcher), if there is any: all candidates
    are equally far from a truth without area.
    """
    count, step = truth.shape[1], max(1, PAIRS // candidates.shape[-2])
    parts = -(-count // step)
    missing = parts * step - count
    truth, valid = ops.pad(truth, ((0, 0), (0, missing), (0, 0))), ops.pad(valid, ((0, 0), (0, missing)))

    def compare(part, state):
        best, nearest, is_best = state  # (B, M) each
        rows = part * step + ops.arange(step)
        overlaps = box_ops.iou(ops.take(truth, rows, axis=1), candidates)  # (B, step, M)
        overlaps = ops.where(ops.take(valid, rows, axis=1)[..., None], overlaps, -1.0)
        best_here = ops.max(overlaps, axis=1)
        nearest_here = part * step + ops.cast(ops.argmax(overlaps, axis=1), "int32")
        nearest = ops.where(best_here > best, nearest_here, nearest)  # of equals the first, as argmax has it
        if allow_low_quality:
            best_of_truth = ops.max(overlaps, axis=2, keepdims=True)  # (B, step, 1)
            ties = ops.logical_and(ops.equal(overlaps, best_of_truth), best_of_truth > 0)
            is_best = ops.logical_or(is_best, ops.any(ties, axis=1))
        return ops.maximum(best, best_here), nearest, is_best

    shape = ops.shape(truth)[0], candidates.shape[-2]
    state = ops.full(shape, -1.0), ops.zeros(shape, "int32"), ops.zeros(shape, "bool")
    best, nearest, is_best = compare(0, state) if parts == 1 else ops.fori_loop(0, parts, compare, state)
    matches = ops.where(best >= foreground_iou, nearest, IGNORED)
    matches = ops.where(best < background_iou, BACKGROUND, matches)
    return ops.where(is_best, nearest, matches)


def sample(
    matches: KerasTensor, uniform: KerasTensor, count: int, positives: int
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Draws `count` of the candidates, at most `positives` matched ones among them, the rest background.

    matches (B, M) as of `match`; uniform (B, M) random numbers in [0, 1) that decide. Returns indices (B, count)
    int32, foreground (B, count) bool and used (B, count) bool; the matched ones come first, so that the slots
    from `positives` on are background in every image. Where there are too few candidates, slots stay unused; of M
    candidates no more than M are drawn.
    """
    count, positives = min(count, matches.shape[1]), min(positives, matches.shape[1])
    foreground = matches >= 0
    priority = ops.where(foreground, uniform, -1.0)
    least = top_k(priority, positives)[0][:, -1:]  # the weakest that is drawn, or -1 where all are
    drawn = ops.logical_and(foreground, priority >= least)
    key = ops.where(drawn, 2.0 + uniform, ops.where(ops.equal(matches, BACKGROUND), uniform, -1.0))
    best, indices = top_k(key, count)
    return ops.cast(indices, "int32"), best >= 2.0, best >= 0.0


def take(values: KerasTensor, indices: KerasTensor) -> KerasTensor:
    """Rows (B, K, ...) of `values` (B, M, ...) at `indices` (B, K)."""
    shape = values.shape
    flat = ops.reshape(values, (-1, *shape[2:]))
    offsets = ops.arange(ops.shape(values)[0], dtype="int32")[:, None] * shape[1]
    return ops.take(flat, ops.cast(indices, "int32") + offsets, axis=0)


def project_masks(masks: KerasTensor, boxes: KerasTensor, rois: KerasTensor, side: int) -> KerasTensor:
    """What the mask head should answer: (B, K, side, side) float32 in 0..1.

    masks (B, K, M, M), each the truth within its own box of boxes (B, K, 4); rois (B, K, 4). As torchvision's
    project_masks_on_boxes, RoIAlign of the mask, here on masks cropped to their boxes: outside it is background.
    """
    count, cells = masks.shape[1], masks.shape[2]
    grids = ops.pad(ops.cast(masks, "float32"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    grids = ops.reshape(grids, (-1, cells + 2, cells + 2, 1))
    scale = cells / ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    origin = ops.tile(boxes[..., :2], (1, 1, 2))
    inner = ops.reshape((rois - origin) * ops.tile(scale, (1, 1, 2)) + 1.0, (-1, 1, 4))
    level = ops.zeros_like(inner[..., 0], dtype="int32")
    projected = RoIAlign([grids], [1], aligned=True)(inner, level, side)
    return ops.reshape(projected, (-1, count, side, side))
