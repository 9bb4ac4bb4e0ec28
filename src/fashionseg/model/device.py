"""The devices that the network runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from fashionseg.core.errors import UserError

_without_branches = False


def data_parallel(batch_size: int) -> keras.distribution.DataParallel | None:
    """Keras' data parallelism over as many GPUs as divide the batch evenly, of each process as many; None for one GPU.

    Losses and steps are those of the whole batch, as on one GPU. The network must be built and trained within its
    `scope()`, on each process' own rows of a batch. Always None on TensorFlow: MirroredStrategy would average losses
    over each GPU's own samples. Raises UserError where the batch does not divide over the processes.
    """
    if keras.backend.backend() != "jax":
        return None
    import jax

    processes = jax.process_count()
    if batch_size % processes:
        raise UserError(
            f"train.batch_size is {batch_size}, which {processes} processes cannot share evenly; make it a multiple of "
            f"{processes}."
        )
    of_process = [[f"{d.platform}:{d.id}" for d in jax.devices() if d.process_index == p] for p in range(processes)]
    share, most = batch_size // processes, min(map(len, of_process))
    count = max(number for number in range(1, most + 1) if share % number == 0)
    devices = [device for own in of_process for device in own[:count]]
    parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)  # `Batches` do so themselves
    return parallel if len(devices) > 1 else None


def accelerated() -> bool:
    """Whether there is a GPU or TPU: these are faster with few large operations, a CPU with small ones in its cache."""
    return _without_branches or not keras.distribution.list_devices()[0].startswith("cpu")


def branches() -> bool:
    """Whether a graph may have conditional branches, as everywhere but `without_branches`."""
    return not _without_branches


@contextmanager
def without_branches() -> Iterator[None]:
    """Graphs traced in this context are those of a GPU: large operations without conditional branches."""
    global _without_branches
    _without_branches = True
    try:
        yield
    finally:
        _without_branches = False
