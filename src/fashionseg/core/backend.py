"""Starts Keras on one of the backends that the network runs on, whatever other projects left in the shell."""

import os
import sys
from importlib.util import find_spec

from fashionseg.core.errors import UserError

BACKENDS = ("tensorflow", "jax")
# What Keras reads from the environment when it is imported, beside the backend: fewer epochs, another kind of variable.
FOREIGN = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


def choose(backend: str) -> None:
    """Imports Keras with `backend`, or with what the variable KERAS_BACKEND names, before anything else imports it.

    Raises UserError where that is not among BACKENDS or does not start.
    """
    name = os.environ.get("KERAS_BACKEND") or backend
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND is {name}, but the network runs on tensorflow or jax; `unset KERAS_BACKEND`.")
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for variable in FOREIGN:
        os.environ.pop(variable, None)
    try:
        import keras  # noqa: F401
    except Exception as error:  # of Keras, of the backend, or of what ~/.keras/keras.json holds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"Keras does not start on {name} ({reason}); is it installed, and is ~/.keras/keras.json sound?"
        ) from error


def available() -> str:
    """The backend that Keras runs on already, else the first of BACKENDS that is installed."""
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    return next(filter(find_spec, BACKENDS), BACKENDS[0])
