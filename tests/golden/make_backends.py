"""Writes backend_<name>.weights.h5 and .npz: weights that a backend wrote, what it found with them and its losses in
three steps of training. Run with KERAS_BACKEND=tensorflow, then with jax:

    KERAS_BACKEND=jax PYTHONPATH=src:tests:tests/model python tests/golden/make_backends.py
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tiny

STEPS = 3


def main() -> None:
    tiny.shrink(pytest.MonkeyPatch())
    options = {"attributes": "linear", "attribute_count": 3, "seed": 11}
    network = tiny.network(**options)
    tiny.spread(network)
    path = Path(__file__).parent / f"backend_{keras.backend.backend()}"
    network.save_weights(path.with_suffix(".weights.h5"))
    bench = tiny.Bench(tiny.network(tiny.Shares, **options))
    for one, other in zip(tiny.parts(bench.network).values(), tiny.parts(network).values(), strict=True):
        one.set_weights(other.get_weights())
    batch = tiny.make_batch(5)
    found = bench.detect(batch, 0.3)
    losses = [list(map(bench.step(batch).get, [tracker.name for tracker in network.trackers])) for _ in range(STEPS)]
    gaps = -np.diff(found["scores"])[found["scores"][:, 1:] > 0]
    print((found["classes"] > 0).sum(axis=1), f"least distance of two scores {gaps.min():.1e}", *losses, sep="\n")
    found["masks"] = found["masks"].astype(np.float16)
    np.savez_compressed(path.with_suffix(".npz"), **found, losses=np.array(losses, np.float32))


if __name__ == "__main__":
    main()
