"""What a stage computes on, as its first line."""

import os
import sys

import keras


def describe(precision: str, count: int = 1, processes: int = 1) -> str:
    """Devices, of how many processes, memory of each where it is known, backend and precision: "2 x Tesla T4, 16 GB;
    jax 0.10.2; float32"."""
    backend = keras.backend.backend()
    name = {"jax": _jax, "tensorflow": _tensorflow}[backend]() or _processor()
    devices = f"{count} x {name}" if count > 1 else name
    devices += f" in {processes} processes" * (processes > 1)
    return f"{devices}; {backend} {sys.modules[backend].__version__}; {precision}"


def _jax() -> str | None:
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return device.device_kind + (f", {memory / 1e9:.0f} GB" if memory else "")


def _tensorflow() -> str | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None


def _processor() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"CPU with {os.cpu_count()} cores, {memory / 1e9:.0f} GB"
