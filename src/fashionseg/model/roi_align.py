"""RoIAlign (He et al. 2017) over a feature pyramid: one gather for all levels, exact bilinear sampling."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # an RoI of ImageNet's training size goes to P4 (Lin et al. 2017)


def levels(rois: KerasTensor, count: int, first: int = 2) -> KerasTensor:
    """Index (...,) int32 from 0 of the pyramid level for each RoI (..., 4): Lin et al. 2017, equation 1.

    The pyramid holds `count` levels from P<first> on; RoIs beyond it go to the nearest.
    """
    side = ops.sqrt(box_ops.areas(rois))
    level = ops.floor(CANONICAL_LEVEL + ops.log2(ops.maximum(side, 1e-6) / CANONICAL_SIDE) + 1e-6)
    return ops.cast(ops.clip(level - first, 0, count - 1), "int32")


def roi_align(
    pyramid: Sequence[KerasTensor],
    strides: Sequence[int],
    rois: KerasTensor,
    roi_levels: KerasTensor,
    side: int,
    samples: int = 2,
    aligned: bool = False,
) -> KerasTensor:
    """Features (B, R, side, side, C) of each RoI, float as the pyramid.

    pyramid: maps (B, H_l, W_l, C) of the given strides; rois (B, R, 4) x1 y1 x2 y2 in image pixels; roi_levels
    (B, R) int32 index into the pyramid. Every bin is the mean of samples x samples bilinear samples.
    `aligned=False` is the original definition (as in torchvision's and Detectron's weights), True shifts by
    half a cell. Points more than one cell outside the map give zero, as in torchvision.
    """
    batch, channels = ops.shape(pyramid[0])[0], pyramid[0].shape[-1]
    cells = [level.shape[1] * level.shape[2] for level in pyramid]
    table = ops.concatenate([ops.reshape(p, (-1, n, channels)) for p, n in zip(pyramid, cells, strict=True)], axis=1)
    table = ops.reshape(table, (-1, channels))  # (B * cells, C)

    def of_level(values, dtype):  # (B, R)
        return ops.take(ops.convert_to_tensor(list(values), dtype), roi_levels)

    starts = [sum(cells[:k]) for k in range(len(cells))]
    start = of_level(starts, "int32") + ops.arange(batch, dtype="int32")[:, None] * sum(cells)
    heights, widths = (
        of_level([p.shape[1] for p in pyramid], "int32"),
        of_level([p.shape[2] for p in pyramid], "int32"),
    )
    corners = ops.cast(rois, "float32") / of_level(strides, "float32")[..., None]
    corners = corners - 0.5 if aligned else corners

    ys, y_weights = _axis(corners[..., 1], corners[..., 3], heights, side, samples, aligned)
    xs, x_weights = _axis(corners[..., 0], corners[..., 2], widths, side, samples, aligned)

    # Each bin is a weighted sum of the cells in its rows and columns. As a product of a row and a matrix it needs
    # neither a tensor a corner nor one a weight: half the time of summing them up, backwards too.
    rows = start[..., None, None] + ys * widths[..., None, None]
    index = rows[:, :, :, None, :, None] + xs[:, :, None, :, None, :]  # (B, R, side, side, 2 samples, 2 samples)
    weights = y_weights[:, :, :, None, :, None] * x_weights[:, :, None, :, None, :]
    bins, around = rois.shape[1] * side * side, (2 * samples) ** 2
    found = ops.take(table, ops.reshape(index, (-1, bins, around)), axis=0)  # (B, bins, around, C)
    weights = ops.cast(ops.reshape(weights, (-1, bins, 1, around)), table.dtype)
    return ops.reshape(ops.matmul(weights, found), (-1, rois.shape[1], side, side, channels))


def _axis(low, high, length, side, samples, aligned):
    """Of one axis, the cells that each bin is made of and their weights, both (B, R, side, 2 samples)."""
    extent = high - low if aligned else ops.maximum(high - low, 1.0)
    steps = (ops.arange(side * samples, dtype="float32") + 0.5) / (side * samples)
    points = low[..., None] + extent[..., None] * steps
    length = length[..., None]
    inside = ops.logical_and(points >= -1.0, points <= ops.cast(length, "float32"))
    points = ops.clip(points, 0.0, ops.cast(length - 1, "float32"))
    before = ops.cast(ops.floor(points), "int32")
    after = ops.minimum(before + 1, length - 1)
    fraction = points - ops.cast(before, "float32")
    weight = ops.cast(inside, "float32") / samples
    shape = (-1, points.shape[1], side, 2 * samples)
    cells = ops.reshape(ops.stack([before, after], axis=-1), shape)
    return cells, ops.reshape(ops.stack([(1.0 - fraction) * weight, fraction * weight], axis=-1), shape)
