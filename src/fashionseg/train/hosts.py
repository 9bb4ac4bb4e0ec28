"""Several processes, such as one on each host, that train one network by the same steps, each on its share of a batch.

JAX alone. Each runs all of the training, since the devices compute only what all processes ask for, in the same order.
So what one of them learns by itself, such as a signal, has to be agreed on; the first one alone writes.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import keras
import numpy as np

from fashionseg.core.errors import UserError, first_line

NUMBER = "KERAS_DISTRIBUTION_NUM_PROCESSES"  # one of the three variables of `keras.distribution.initialize`
SECONDS = 30  # that a process with an error of its own waits for the others, which may write a checkpoint
GONE = re.compile("Gloo|NCCL|DEADLINE_EXCEEDED|[Cc]oordination")  # in what XLA says of it, on CPUs and GPUs


@contextmanager
def together() -> Iterator[None]:
    """Within it this process trains with those that Keras' environment variables tell of; alone without these. Enter it
    before the first use of a device.

    An error that only one process meets leaves the others waiting for it, and it would wait for them at its end: so it
    goes after SECONDS, and they end. Raises UserError on TensorFlow, where the processes do not come together, and
    where another one is gone.
    """
    if NUMBER not in os.environ:
        yield
        return
    _join()
    try:
        yield
    except BaseException as error:
        leaving = Timer(SECONDS, os._exit, [1])
        leaving.daemon = True
        leaving.start()
        if not isinstance(error, UserError) and GONE.search(str(error)):
            raise UserError(
                f"another process of this training has ended ({first_line(error)}); look at what it says, then start "
                "all again: they go on from the last checkpoint."
            ) from None
        raise


def _join() -> None:
    if keras.backend.backend() != "jax":
        raise UserError(f"{NUMBER} is set, but only JAX trains in several processes; set machine.backend to jax.")
    keras.utils.set_random_seed(0)  # else Keras draws one for all; `trainer.train` sets that of params
    try:
        keras.distribution.initialize()
    except Exception as error:  # of JAX, of many kinds
        raise UserError(
            f"the {os.environ[NUMBER]} processes of this training did not come together ({first_line(error)}); see "
            "docs/training.md, Several hosts."
        ) from None


def count() -> int:
    """The number of processes."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def index() -> int:
    """The number of this process, from 0."""
    if count() == 1:
        return 0
    import jax

    return jax.process_index()


def any_of(flag: bool) -> bool:
    """Whether it is true in one of the processes; each has to ask."""
    return bool(_gathered(np.array(flag)).any())


def of_first(values: list[float | None]) -> list[float | None]:
    """Those of the first process; each has to ask."""
    known = np.array([np.nan if value is None else value for value in values])
    first = _gathered(known.view(np.uint8))[0].view(known.dtype)  # as bytes, since JAX would round them to 32 bits
    return [None if np.isnan(value) else float(value) for value in first]


def agree(on: str, what: str) -> None:
    """Waits until each process is here; raises UserError in all where `on` is not the same text in each."""
    texts = _gathered(np.frombuffer(on.encode().ljust(64)[:64], np.uint8))
    if (texts != texts[0]).any():
        raise UserError(f"the processes of this training differ in {what}; start them in one folder that all share.")


def _gathered(values: np.ndarray) -> np.ndarray:
    """Of each process, in their order."""
    if count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(values)
