"""RoIAlign (He et al. 2017) over a feature pyramid: gathers from all levels at once, exact bilinear sampling."""

from collections.abc import Sequence
from itertools import accumulate

import keras
from keras import KerasTensor, ops

from fashionseg.model import boxes as box_ops
from fashionseg.model import compilation, device

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # an RoI of ImageNet's training size goes to P4 (Lin et al. 2017)
FIRST_LEVEL = 2  # P2
SAMPLES = 2  # a bin and side, torchvision's sampling_ratio
PART_BYTES = 2**23  # gathered per image at once, to stay in a CPU's cache


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
        self.shapes = [level.shape[1:3] for level in pyramid]
        self.strides = strides
        self.aligned = aligned
        self.table = cells_of(pyramid)

    def __call__(self, rois: KerasTensor, roi_levels: KerasTensor, side: int) -> KerasTensor:
        """Features (B, R, side, side, C), in the pyramid's dtype, of rois (B, R, 4) x1 y1 x2 y2 in image pixels, each
        from the level of index roi_levels (B, R) int32. The gradient goes to the pyramid only, as in torchvision."""
        return self.pool([(rois, roi_levels, side)])[0]

    def pool(self, requests: Sequence[tuple[KerasTensor, KerasTensor, int]]) -> list[KerasTensor]:
        """Features for each of `requests`, the arguments of a call; they share one gradient of the pyramid's size."""
        indices, weights = zip(*(self._bins(*request) for request in requests), strict=True)
        pooled = weighted_sums(self.table, indices, weights)
        return [
            ops.reshape(sums, (-1, rois.shape[1], side, side, self.table.shape[-1]))
            for sums, (rois, _, side) in zip(pooled, requests, strict=True)
        ]

    def _bins(self, rois, roi_levels, side):
        """The rows of the table that each bin sums, and their weights, both (B, R * side * side, K)."""

        starts = [0, *accumulate(height * width for height, width in self.shapes)]
        levels = [list(level) for level in zip(starts, *zip(*self.shapes, strict=True), self.strides, strict=False)]
        of_roi = ops.take(ops.convert_to_tensor(levels, "int32"), roi_levels, axis=0)
        start, heights, widths, strides = ops.unstack(of_roi, axis=-1)  # (B, R) each
        start = start + ops.arange(ops.shape(rois)[0], dtype="int32")[:, None] * starts[-1]
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
        return cells, _merged(cells, weights) if _fuses() else weights


def _merged(cells, weights):
    """Weights (..., K) of `cells` (..., K): the first of equal cells has the sum of theirs, the others have 0."""
    places = ops.arange(cells.shape[-1])
    same = ops.equal(cells[..., :, None], cells[..., None, :])  # (..., K, K)
    again = ops.any(ops.logical_and(same, places[:, None] > places), axis=-1)
    return ops.where(again, 0.0, ops.sum(ops.where(same, weights[..., None, :], 0.0), axis=-1))


def cells_of(pyramid: Sequence[KerasTensor]) -> KerasTensor:
    """The cells of all maps (B, H_l, W_l, C) in rows (B * cells, C): of each image, level after level."""
    channels = pyramid[0].shape[-1]
    cells = [ops.reshape(level, (-1, level.shape[1] * level.shape[2], channels)) for level in pyramid]
    return ops.reshape(ops.concatenate(cells, axis=1), (-1, channels))


def weighted_sums(
    table: KerasTensor, indices: Sequence[KerasTensor], weights: Sequence[KerasTensor]
) -> Sequence[KerasTensor]:
    """Of each request (B, bins, C): for each bin the sum of the rows `index` (B, bins, K) of `table` times its weights
    (B, bins, K). The gradient goes to the table only."""
    count = len(indices)

    @ops.custom_gradient
    def pool(table, *bins):  # all as arguments: JAX allows no tensor from outside
        sums = compilation.compiled(_sums) if compilation.compiles() else _sums_in_parts

        def gradient(*upstreams):  # on JAX one tuple of them
            parts = bins[:count], bins[count:], keras.tree.flatten(upstreams)
            index, weights, upstream = (ops.concatenate(of, axis=1) for of in parts)
            return compilation.compiled(_gradient)(table, index, weights, upstream), *[None] * len(bins)

        return tuple(sums(table, *of) for of in zip(bins[:count], bins[count:], strict=True)), gradient

    return pool(table, *indices, *(ops.cast(of, table.dtype) for of in weights))


def _sums(table, index, weights):
    """Compiled by itself this holds no row: XLA sums while it gathers, in a sixth of the time of `_sums_in_parts` on a
    CPU. In a whole step on JAX it does not, and all rows at once fill the memory."""
    rows = ops.cast(ops.take(table, index, axis=0), "float32")  # (B, bins, K, C)
    return ops.cast(ops.sum(rows * ops.cast(weights, "float32")[..., None], axis=2), table.dtype)


def _sums_in_parts(table, index, weights):
    """One vector-matrix product per bin allocates no tensor per corner or weight, in parts the gathered rows stay in
    the cache. The parts run in a loop, or XLA would hold all of them at once."""
    bins, corners, channels = *index.shape[1:], table.shape[-1]
    step = bins if _fuses() else min(bins, max(1, PART_BYTES // (4 * corners * channels)))
    parts = -(-bins // step)

    def split(values):  # (parts, B, step, K)
        values = ops.pad(values, ((0, 0), (0, parts * step - bins), (0, 0)))
        return ops.swapaxes(ops.reshape(values, (-1, parts, step, corners)), 0, 1)

    def sums(part):
        index, weights = part  # (B, step, K)
        return ops.matmul(weights[:, :, None], ops.take(table, index, axis=0))[:, :, 0]  # (B, step, C)

    if parts == 1:
        return sums((index, weights))
    pooled = ops.swapaxes(ops.map(sums, (split(index), split(weights))), 0, 1)  # (B, parts, step, C)
    return ops.reshape(pooled, (-1, parts * step, channels))[:, :bins]


def _fuses():
    """Whether XLA makes gathering and summing, or weighting and adding up, one kernel that holds no row in memory."""
    return device.accelerated() and keras.backend.backend() == "jax"


def _gradient(table, index, weights, upstream):
    """The gradient of `weighted_sums` to its table, of which only shape and dtype count; upstream (B, bins, C). A loop
    over the K corners holds no more than one of them."""
    corners, channels = index.shape[2], table.shape[-1]
    upstream = ops.cast(upstream, "float32")[:, :, None]

    def spread(index, weights):  # (B, bins, k)
        values = ops.cast(weights, "float32")[..., None] * upstream  # (B, bins, k, C)
        return ops.segment_sum(ops.reshape(values, (-1, channels)), ops.reshape(index, (-1,)), ops.shape(table)[0])

    def add(corner, total):
        return total + spread(*(ops.take(of_corners, corner, axis=2)[..., None] for of_corners in (index, weights)))

    if _fuses():
        index = ops.where(weights > 0, index, -1)  # what is not within the table is not added: a third or more of all
        return ops.cast(spread(index, weights), table.dtype)
    return ops.cast(ops.fori_loop(0, corners, add, ops.zeros(ops.shape(table), "float32")), table.dtype)
