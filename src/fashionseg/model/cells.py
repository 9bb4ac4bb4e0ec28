"""The cells of a feature pyramid as rows of one table, of which weighted sums are taken: RoIAlign's bins, an anchor's
surroundings."""

from collections.abc import Sequence
from itertools import accumulate

import keras
from keras import KerasTensor, ops

from fashionseg.model import compilation

PART_BYTES = 2**23  # gathered per image at once, to stay in a CPU's cache


class Cells:
    """The cells of all maps (B, H_l, W_l, C) of a pyramid in one `table` (B * cells, C): of each image, level after
    level."""

    def __init__(self, pyramid: Sequence[KerasTensor]):
        self.heights, self.widths = zip(*(level.shape[1:3] for level in pyramid), strict=True)
        sizes = [height * width for height, width in zip(self.heights, self.widths, strict=True)]
        self.starts = [0, *accumulate(sizes)]  # of the levels, and the number of an image's cells
        channels = pyramid[0].shape[-1]
        levels = [ops.reshape(level, (-1, size, channels)) for level, size in zip(pyramid, sizes, strict=True)]
        self.table = ops.reshape(ops.concatenate(levels, axis=1), (-1, channels))

    def maps(self, levels: KerasTensor) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
        """First cell among an image's, height and width, each (B, R) int32, of the maps with the index `levels`
        (B, R) int32."""
        known = ops.convert_to_tensor([*zip(self.starts, self.heights, self.widths, strict=False)], "int32")
        return tuple(ops.unstack(ops.take(known, levels, axis=0), axis=-1))

    def of_images(self, batch: KerasTensor) -> KerasTensor:
        """The first row (B, 1) int32 of each image of a tensor (B, ...)."""
        return ops.arange(ops.shape(batch)[0], dtype="int32")[:, None] * self.starts[-1]

    def weighted_sums(self, requests: Sequence[tuple[KerasTensor, KerasTensor]]) -> Sequence[KerasTensor]:
        """Of each request (index, weights), both (B, bins, K): for each bin the sum of the rows `index` int32 times
        their weights, (B, bins, C) in the table's dtype. The gradient goes to the table only; it is one for all
        requests."""
        count = len(requests)

        @ops.custom_gradient
        def pool(table, *bins):  # all as arguments: JAX allows no tensor from outside
            sums = compilation.compiled(_sums) if compilation.compiles() else _sums_in_parts

            def gradient(*upstreams):  # on JAX one tuple of them
                parts = bins[:count], bins[count:], keras.tree.flatten(upstreams)
                index, weights, upstream = (ops.concatenate(of, axis=1) for of in parts)
                return compilation.compiled(_gradient)(table, index, weights, upstream), *[None] * len(bins)

            return tuple(sums(table, *of) for of in zip(bins[:count], bins[count:], strict=True)), gradient

        indices, weights = zip(*requests, strict=True)
        return pool(self.table, *indices, *(ops.cast(of, self.table.dtype) for of in weights))


def _sums(table, index, weights):
    """Compiled by itself this holds no row: XLA sums while it gathers, in a sixth of the time of `_sums_in_parts` on a
    CPU. In a whole step on JAX it does not, and all rows at once fill the memory."""
    rows = ops.cast(ops.take(table, index, axis=0), "float32")  # (B, bins, K, C)
    return ops.cast(ops.sum(rows * ops.cast(weights, "float32")[..., None], axis=2), table.dtype)


def _sums_in_parts(table, index, weights):
    """One vector-matrix product per bin allocates no tensor per corner or weight, in parts the gathered rows stay in
    the cache. The parts run in a loop, or XLA would hold all of them at once."""
    bins, corners, channels = *index.shape[1:], table.shape[-1]
    step = bins if compilation.fuses() else min(bins, max(1, PART_BYTES // (4 * corners * channels)))
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


def _gradient(table, index, weights, upstream):
    """The gradient of `weighted_sums` to the table, of which only shape and dtype count; upstream (B, bins, C). A loop
    over the K corners holds no more than one of them."""
    corners, channels = index.shape[2], table.shape[-1]
    upstream = ops.cast(upstream, "float32")[:, :, None]

    def spread(index, weights):  # (B, bins, k)
        values = ops.cast(weights, "float32")[..., None] * upstream  # (B, bins, k, C)
        return ops.segment_sum(ops.reshape(values, (-1, channels)), ops.reshape(index, (-1,)), ops.shape(table)[0])

    def add(corner, total):
        return total + spread(*(ops.take(of_corners, corner, axis=2)[..., None] for of_corners in (index, weights)))

    if compilation.fuses():
        index = ops.where(weights > 0, index, -1)  # what is not within the table is not added: a third or more of all
        return ops.cast(spread(index, weights), table.dtype)
    return ops.cast(ops.fori_loop(0, corners, add, ops.zeros(ops.shape(table), "float32")), table.dtype)
