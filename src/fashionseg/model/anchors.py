"""Anchors of the feature pyramid, laid out and rounded as torchvision's AnchorGenerator does."""

from collections.abc import Sequence

from keras import KerasTensor, ops

RATIOS = (0.5, 1.0, 2.0)  # height / width


def cell_anchors(side: float, ratios: Sequence[float] = RATIOS) -> list[list[float]]:
    """Anchors around the origin, one per ratio: x1 y1 x2 y2 in pixels, of area `side` squared.

    Corners are rounded to whole pixels (half to even), as for torchvision's COCO weights.
    """
    halves = [(side * ratio**-0.5 / 2, side * ratio**0.5 / 2) for ratio in ratios]
    return [[float(round(corner)) for corner in (-w, -h, w, h)] for w, h in halves]


def grid_anchors(height: int, width: int, stride: int, side: float, ratios: Sequence[float] = RATIOS) -> KerasTensor:
    """Anchors (height * width * len(ratios), 4) float32 of one level, ordered by row, column and ratio.

    height, width: of the feature map, whose cell (i, j) has its origin at pixel (i * stride, j * stride).
    """
    y, x = ops.meshgrid(
        ops.arange(height, dtype="float32") * stride,
        ops.arange(width, dtype="float32") * stride,
        indexing="ij",
    )
    shifts = ops.reshape(ops.stack([x, y, x, y], axis=-1), (-1, 1, 4))  # (height * width, 1, 4)
    return ops.reshape(shifts + ops.convert_to_tensor(cell_anchors(side, ratios), "float32"), (-1, 4))


def inside(anchors: KerasTensor, sizes: KerasTensor) -> KerasTensor:
    """(B, A) bool: whether the centre of each anchor (A, 4) lies in the image, not in its padding.

    sizes (B, 2) int32: heights and widths without padding.
    """
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2  # (A, 2) x, y
    return ops.all(centres < ops.cast(sizes[:, None, ::-1], "float32"), axis=-1)
