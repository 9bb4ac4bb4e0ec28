"""Exact greedy non-maximum suppression with static shapes and no loop over boxes."""

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops

INSTANCES_IOU = 0.4  # of instances of a class, where no params say so; theirs as they come


def nms(
    boxes: KerasTensor, scores: KerasTensor, iou_threshold: float, groups: KerasTensor | None = None
) -> KerasTensor:
    """(..., N) bool: which boxes greedy NMS keeps.

    boxes (..., N, 4) and scores (..., N) must be sorted by descending score. A box is suppressed when an earlier kept
    box (of the same group, where `groups` (..., N) is given) overlaps it by more than `iou_threshold`. Boxes with a
    score <= 0 are padding: never kept, never suppressing.

    The result is the one solution of keep[j] = valid[j] and no kept i < j overlaps j. Iterating this equation decides
    boxes from the front, independent chains in parallel, and stops after the longest chain of suppressions: a handful
    of steps, where a greedy loop takes N.
    """
    valid = scores > 0
    overlaps = box_ops.iou(boxes, boxes) > iou_threshold  # (..., N, N)
    order = ops.arange(scores.shape[-1])
    suppresses = ops.logical_and(overlaps, order[:, None] < order[None, :])  # (..., N, N): row suppresses column
    if groups is not None:
        same = ops.equal(ops.expand_dims(groups, -1), ops.expand_dims(groups, -2))
        suppresses = ops.logical_and(suppresses, same)
    suppresses = ops.cast(suppresses, "float32")

    def changed(keep, before):
        return ops.any(ops.not_equal(keep, before))

    def update(keep, _):
        hits = ops.matmul(ops.cast(keep, "float32")[..., None, :], suppresses)[..., 0, :]  # (..., N)
        return ops.logical_and(valid, hits < 0.5), keep

    keep, _ = ops.while_loop(changed, update, update(valid, valid))
    return keep
