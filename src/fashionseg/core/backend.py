"""Starts Keras on a supported backend, whatever the shell's environment holds for other projects."""

import gc
import os
import sys
from importlib.util import find_spec

from fashionseg.core.errors import UserError, first_line

BACKENDS = ("tensorflow", "jax")
# Other environment variables that Keras reads on import: they limit epochs and steps or change the variables' type.
FOREIGN = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
# Else XLA puts the features of several pyramid levels together for one float32 product with the RPN's shared kernel:
# 1.4 GB more read and written in a step of 8 x 1024 x 1024 px.
XLA_FLAGS = "--xla_gpu_dot_merger_threshold_mb=0"

WIDE = 128  # fpn_channels


def choose(backend: str, fpn_channels: int = WIDE) -> None:
    """Imports Keras with the backend of KERAS_BACKEND or, if that is not set, with `backend`; call it before any other
    import of Keras. Raises UserError where the backend is not one of BACKENDS or does not start.

    On CPUs without AVX-512 VNNI TensorFlow leaves oneDNN off. With it a training step takes a fifth less time where
    fpn_channels are fewer than WIDE, and up to half as long again where they are more.

    What stands after the import is frozen (`gc.freeze`): else the garbage collector walks through all of Keras and
    TensorFlow again and again while a network is traced, a sixth of the time until the first step.
    """
    name = os.environ.get("KERAS_BACKEND") or backend
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND is {name}, but the network runs on tensorflow or jax; `unset KERAS_BACKEND`.")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if fpn_channels < WIDE:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if name == "jax":
        os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    for variable in FOREIGN:
        os.environ.pop(variable, None)
    collecting = gc.isenabled()
    gc.disable()
    try:
        import keras  # noqa: F401
    except Exception as error:  # from Keras, the backend or ~/.keras/keras.json
        others = [other for other in BACKENDS if other != name and find_spec(other)]
        raise UserError(
            f"Keras does not start on {name} ({first_line(error)}); is it installed, and is ~/.keras/keras.json valid?"
            + "".join(f" {other} is installed: machine.backend may name it." for other in others)
        ) from error
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def available() -> str:
    """The backend of Keras if it is imported, else the first of BACKENDS that is installed."""
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    return next(filter(find_spec, BACKENDS), BACKENDS[0])
