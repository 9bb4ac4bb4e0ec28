"""What the network runs on."""

import keras


def accelerated() -> bool:
    """Whether there is a GPU or the like, which wants a few large pieces of work where a CPU's cache wants small."""
    return not keras.distribution.list_devices()[0].startswith("cpu")
