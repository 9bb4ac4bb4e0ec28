"""Box arithmetic. Boxes are (..., 4) float32: x1, y1, x2, y2 in pixels, continuous (x2 - x1 is the width)."""

from math import log

from keras import KerasTensor, ops

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # inverse standard deviations of the deltas, Fast R-CNN
MAX_LOG_SCALE = log(1000 / 16)  # a 16 px box may grow to 1000 px; keeps exp() finite while untrained


def areas(boxes: KerasTensor) -> KerasTensor:
    """Areas (...,) of boxes (..., 4); zero where x2 < x1 or y2 < y1."""
    x1, y1, x2, y2 = ops.unstack(boxes, axis=-1)
    return ops.maximum(x2 - x1, 0.0) * ops.maximum(y2 - y1, 0.0)


def iou(first: KerasTensor, second: KerasTensor) -> KerasTensor:
    """Intersection over union (..., N, M) of boxes (..., N, 4) and (..., M, 4); 0 where both are empty."""
    x1, y1, x2, y2 = ops.unstack(first[..., :, None, :], axis=-1)
    u1, v1, u2, v2 = ops.unstack(second[..., None, :, :], axis=-1)
    overlap = ops.maximum(ops.minimum(x2, u2) - ops.maximum(x1, u1), 0.0)
    overlap = overlap * ops.maximum(ops.minimum(y2, v2) - ops.maximum(y1, v1), 0.0)
    union = ops.expand_dims(areas(first), -1) + ops.expand_dims(areas(second), -2) - overlap
    return overlap / ops.maximum(union, 1e-9)


def clip(boxes: KerasTensor, sizes: KerasTensor) -> KerasTensor:
    """Boxes (B, ..., 4) clipped to their images; sizes (B, 2) are heights and widths in pixels."""
    sizes = ops.reshape(ops.cast(sizes, boxes.dtype), (-1, *(1,) * (len(boxes.shape) - 2), 2))
    height, width = ops.unstack(sizes, axis=-1)
    x1, y1, x2, y2 = ops.unstack(boxes, axis=-1)
    xs = [ops.clip(x, 0.0, width) for x in (x1, x2)]
    ys = [ops.clip(y, 0.0, height) for y in (y1, y2)]
    return ops.stack([xs[0], ys[0], xs[1], ys[1]], axis=-1)


def encode(boxes: KerasTensor, anchors: KerasTensor, weights: tuple[float, ...]) -> KerasTensor:
    """Deltas (..., 4) dx, dy, dw, dh such that `decode(encode(boxes, anchors, w), anchors, w) == boxes`.

    Shapes broadcast. The parametrisation of R-CNN (Girshick et al. 2014, appendix C), scaled by `weights`.
    Boxes without area (padding) give finite, meaningless deltas.
    """
    x, y, w, h = _centres(boxes)
    ax, ay, aw, ah = _centres(anchors)
    deltas = (x - ax) / aw, (y - ay) / ah, ops.log(w / aw), ops.log(h / ah)
    return ops.stack([d * weight for d, weight in zip(deltas, weights, strict=True)], axis=-1)


def decode(deltas: KerasTensor, anchors: KerasTensor, weights: tuple[float, ...]) -> KerasTensor:
    """Boxes (..., 4) from `deltas` (..., 4) of `anchors`; shapes broadcast. dw and dh are capped at MAX_LOG_SCALE."""
    dx, dy, dw, dh = (d / weight for d, weight in zip(ops.unstack(deltas, axis=-1), weights, strict=True))
    ax, ay, aw, ah = _centres(anchors)
    x, y = dx * aw + ax, dy * ah + ay
    half_w = 0.5 * aw * ops.exp(ops.minimum(dw, MAX_LOG_SCALE))
    half_h = 0.5 * ah * ops.exp(ops.minimum(dh, MAX_LOG_SCALE))
    return ops.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)


def _centres(boxes: KerasTensor) -> tuple[KerasTensor, ...]:
    """x and y of the centre, width and height, each (...,)."""
    x1, y1, x2, y2 = ops.unstack(boxes, axis=-1)
    return 0.5 * (x1 + x2), 0.5 * (y1 + y2), ops.maximum(x2 - x1, 1e-6), ops.maximum(y2 - y1, 1e-6)
