"""Exact greedy non-maximum suppression with static shapes and no loop over boxes."""

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops


def nms(
    boxes: KerasTensor, scores: KerasTensor, iou_threshold: float, groups: KerasTensor | None = None
) -> KerasTensor:
    """Which boxes greedy suppression keeps: (..., N) bool.

    boxes (..., N, 4) and scores (..., N) must be sorted by falling score. A box falls when a kept box before it
    (of the same group, where `groups` (..., N) is given) overlaps it by more than `iou_threshold`. Boxes with a
    score <= 0 are padding: never kept, never suppressing.

    Greedy suppression is the one solution of keep[j] = valid[j] and no kept i < j overlaps j. Iterating that
    equation settles box after box from the front, and all independent chains at once, so it stops after the
    longest chain of suppressions, a handful of steps, where greedy code takes N.
    """
    valid = scores > 0
    overlaps = box_ops.iou(boxes, boxes) > iou_threshold  # (..., N, N)
    order = ops.arange(scores.shape[-1])
    suppresses = ops.logical_and(overlaps, order[:, None] < order[None, :])
    if groups is not None:
        same = ops.equal(ops.expand_dims(groups, -1), ops.expand_dims(groups, -2))
        suppresses = ops.logical_and(suppresses, same)
    suppresses = ops.cast(suppresses, "float32")

    def unsettled(keep, before):
        return ops.any(ops.not_equal(keep, before))

    def settle(keep, _):
        hits = ops.matmul(ops.cast(keep, "float32")[..., None, :], suppresses)[..., 0, :]  # (..., N)
        return ops.logical_and(valid, hits < 0.5), keep

    keep, _ = ops.while_loop(unsettled, settle, settle(valid, valid))
    return keep
