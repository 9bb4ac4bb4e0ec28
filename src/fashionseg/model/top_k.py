"""The largest of many numbers, on a GPU without sorting all of them."""

from keras import KerasTensor, ops

from fashionseg.model import device

BLOCK = 2048  # numbers that a GPU sorts in one pass, within its shared memory


def top_k(values: KerasTensor, k: int) -> tuple[KerasTensor, KerasTensor]:
    """The k largest of values (B, M) float, k <= M, largest first, and their indices, both (B, k); ties by index.

    Like `ops.top_k`, which on a GPU sorts whole rows in dozens of passes over all anchors. Here the best of each block
    enter the next round until few are left.
    """
    indices = None
    while device.accelerated() and 2 * k <= BLOCK < values.shape[1]:
        blocks = -(-values.shape[1] // BLOCK)
        missing = blocks * BLOCK - values.shape[1]
        values = ops.pad(values, ((0, 0), (0, missing)), constant_values=-float("inf"))  # at the end: loses ties
        values, places = ops.top_k(ops.reshape(values, (-1, blocks, BLOCK)), k)  # (B, blocks, k)
        values = ops.reshape(values, (-1, blocks * k))
        places = ops.cast(places, "int32") + ops.arange(blocks, dtype="int32")[:, None] * BLOCK
        places = ops.reshape(places, (-1, blocks * k))
        if indices is not None:
            places = ops.take_along_axis(ops.pad(indices, ((0, 0), (0, missing))), places, axis=1)
        indices = places
    values, places = ops.top_k(values, k)
    return values, places if indices is None else ops.take_along_axis(indices, places, axis=1)
