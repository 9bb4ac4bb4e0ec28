"""What the network runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

_without_branches = False


def data_parallel(batch_size: int) -> keras.distribution.DataParallel | None:
    """For several GPUs: each computes its share of a batch, as many of them as divide it evenly. None for one.

    Losses and steps are those of the whole batch, as on one GPU. A network made and trained within its `scope()` is
    shared so. On TensorFlow always None: its MirroredStrategy would take means over what each GPU sampled for itself.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else [""]
    count = max(number for number in range(1, len(devices) + 1) if batch_size % number == 0)
    return keras.distribution.DataParallel(devices=devices[:count]) if count > 1 else None


def accelerated() -> bool:
    """Whether there is a GPU or the like, which wants a few large pieces of work where a CPU's cache wants small."""
    return _without_branches or not keras.distribution.list_devices()[0].startswith("cpu")


@contextmanager
def without_branches() -> Iterator[None]:
    """Graphs that are built within are a GPU's, of large pieces: no part of them is run on a condition."""
    global _without_branches
    _without_branches = True
    try:
        yield
    finally:
        _without_branches = False
