"""RoIAlign (He et al. 2017) over a feature pyramid: gathers from all levels at once, exact bilinear sampling."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model import compilation
from fashionseg.model.cells import Cells

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # an RoI of ImageNet's training size goes to P4 (Lin et al. 2017)
FIRST_LEVEL = 2  # P2
SAMPLES = 2  # a bin and side, torchvision's sampling_ratio


def levels(rois: KerasTensor, count: int) -> KerasTensor:
    """Index (...,) int32 from 0 of the pyramid level for each RoI (..., 4): Lin et al. 2017, equation 1.

    The pyramid has `count` levels from P2 on; smaller and larger RoIs get the first and last one.
    """
    side = ops.sqrt(box_ops.areas(rois))
    level = ops.floor(CANONICAL_LEVEL + ops.log2(ops.maximum(side, 1e-6) / CANONICAL_SIDE) + 1e-6)
    return ops.cast(ops.clip(level - FIRST_LEVEL, 0, count - 1), "int32")


class RoIAlign:
    """Pools features of regions from a pyramid: maps (B, H_l, W_l, C) of the given strides, concatenated once.

    Each bin is the mean of SAMPLES x SAMPLES bilinear samples. aligned: False is the original definition (of
    torchvision's and Detectron's weights), True shifts by half a cell. Points more than one cell outside the map give
    zero, as in torchvision.
    """

    def __init__(self, pyramid: Sequence[KerasTensor], strides: Sequence[int], aligned: bool = False):
        self.cells = Cells(pyramid)
        self.strides = strides
        self.aligned = aligned

    def __call__(self, rois: KerasTensor, roi_levels: KerasTensor, side: int) -> KerasTensor:
        """Features (B, R, side, side, C), in the pyramid's dtype, of rois (B, R, 4) x1 y1 x2 y2 in image pixels, each
        from the level of index roi_levels (B, R) int32. The gradient goes to the pyramid only, as in torchvision."""
        return self.pool([(rois, roi_levels, side)])[0]

    def pool(self, requests: Sequence[tuple[KerasTensor, KerasTensor, int]]) -> list[KerasTensor]:
        """Features for each of `requests`, the arguments of a call; they share one gradient of the pyramid's size."""
        pooled = self.cells.weighted_sums([self._bins(*request) for request in requests])
        return [
            ops.reshape(sums, (-1, rois.shape[1], side, side, self.cells.table.shape[-1]))
            for sums, (rois, _, side) in zip(pooled, requests, strict=True)
        ]

    def _bins(self, rois, roi_levels, side):
        """The rows of `cells` that each bin sums, and their weights, both (B, R * side * side, K)."""
        start, heights, widths = self.cells.maps(roi_levels)
        start = start + self.cells.of_images(rois)
        strides = ops.take(ops.convert_to_tensor(self.strides, "int32"), roi_levels)  # (B, R), as the three above
        corners = ops.cast(rois, "float32") / ops.cast(strides, "float32")[..., None]  # (B, R, 4) in cells
        corners = corners - 0.5 if self.aligned else corners
        ys, y_weights = self._axis(corners[..., 1], corners[..., 3], heights, side)
        xs, x_weights = self._axis(corners[..., 0], corners[..., 2], widths, side)

        # Each bin is a weighted sum of the cells in its rows and columns.
        rows = start[..., None, None] + ys * widths[..., None, None]  # (B, R, side, 2 samples)
        index = rows[:, :, :, None, :, None] + xs[:, :, None, :, None, :]  # (B, R, side, side, 2 samples, 2 samples)
        weights = y_weights[:, :, :, None, :, None] * x_weights[:, :, None, :, None, :]
        bins = -1, rois.shape[1] * side * side, (2 * SAMPLES) ** 2
        return ops.reshape(index, bins), ops.reshape(weights, bins)

    def _axis(self, low, high, length, side):
        """The cells along one axis that each bin sums, and their weights, both (B, R, side, 2 samples).

        low, high, length (B, R): edges of the RoI and size of the map, in cells.
        """
        extent = high - low if self.aligned else ops.maximum(high - low, 1.0)
        steps = (ops.arange(side * SAMPLES, dtype="float32") + 0.5) / (side * SAMPLES)
        points = low[..., None] + extent[..., None] * steps  # (B, R, side * SAMPLES)
        length = length[..., None]
        inside = ops.logical_and(points >= -1.0, points <= ops.cast(length, "float32"))
        points = ops.clip(points, 0.0, ops.cast(length - 1, "float32"))
        before = ops.cast(ops.floor(points), "int32")
        after = ops.minimum(before + 1, length - 1)
        fraction = points - ops.cast(before, "float32")
        weight = ops.cast(inside, "float32") / SAMPLES
        shape = (-1, points.shape[1], side, 2 * SAMPLES)
        cells = ops.reshape(ops.stack([before, after], axis=-1), shape)
        weights = ops.reshape(ops.stack([(1.0 - fraction) * weight, fraction * weight], axis=-1), shape)
        return cells, _merged(cells, weights) if compilation.fuses() else weights


def _merged(cells, weights):
    """Weights (..., K) of `cells` (..., K): the first of equal cells has the sum of theirs, the others have 0."""
    places = ops.arange(cells.shape[-1])
    same = ops.equal(cells[..., :, None], cells[..., None, :])  # (..., K, K)
    again = ops.any(ops.logical_and(same, places[:, None] > places), axis=-1)
    return ops.where(again, 0.0, ops.sum(ops.where(same, weights[..., None, :], 0.0), axis=-1))
