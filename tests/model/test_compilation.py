"""What is compiled once and kept."""

from collections import Counter

import keras
import numpy as np
import pytest

from fashionseg.model import device
from fashionseg.model.compilation import compile_steps


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Counts what JAX takes from files and what it does not find there, in `tmp_path`, without a place of its own."""
    jax = pytest.importorskip("jax")
    from jax.experimental.compilation_cache import compilation_cache

    names = "jax_compilation_cache_dir", "jax_compilation_cache_max_size"
    before = {name: getattr(jax.config, name) for name in names}
    counts = Counter()

    def listener(event, **_):
        counts[event.rpartition("/")[2]] += 1

    monkeypatch.chdir(tmp_path)
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    jax.monitoring.register_event_listener(listener)
    yield counts
    jax.monitoring.unregister_event_listener(listener)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def predicted():
    """By a network of its own, as in a process of its own."""
    import jax

    jax.clear_caches()
    network = keras.Sequential([keras.layers.Dense(3, kernel_initializer="ones")])
    network.build((None, 2))
    compile_steps(network)
    return network.predict_on_batch(np.ones((4, 2), np.float32))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA compiles all of the graph on JAX alone")
def test_a_gpu_finds_what_was_compiled_before(compiled, tmp_path, monkeypatch):
    predicted()
    assert not [*tmp_path.iterdir()]  # on a CPU
    monkeypatch.setattr(device, "accelerated", lambda: True)
    found = predicted()
    predicted()  # from here on what builds a network is kept, too
    (kept,) = (tmp_path / ".cache/jax").glob("jit_predict_step-*-cache")
    compiled.clear()
    np.testing.assert_array_equal(predicted(), found)
    assert compiled["cache_hits"] >= 1
    assert not compiled["cache_misses"]
    kept.write_bytes(kept.read_bytes()[:99])  # as a kill leaves it
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        np.testing.assert_array_equal(predicted(), found)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA compiles all of the graph on JAX alone")
def test_a_place_of_the_users_stays(compiled, tmp_path, monkeypatch):
    import jax

    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    monkeypatch.setattr(device, "accelerated", lambda: True)
    predicted()
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
