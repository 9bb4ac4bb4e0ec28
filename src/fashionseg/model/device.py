"""What the network runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

_without_branches = False


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
