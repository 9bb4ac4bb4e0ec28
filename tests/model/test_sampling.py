"""The numbers that decide what is drawn: bit for bit those of the same arithmetic in NumPy."""

import keras
import numpy as np
from keras import ops

from fashionseg.model import sampling, targets


def spread(bits):
    """MurmurHash3's finalizer (Appleby 2011)."""
    bits = np.uint32(bits)
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


def drawn(compiled, shape, *keys):
    return compiled(lambda key: sampling.uniform(shape, key))(np.array(keys, "uint32"))


def test_bits_are_numpys_on_every_backend(compiled):
    with np.errstate(over="ignore"):
        golden = np.uint32(0x9E3779B9)
        first = spread(np.uint32(2020) + golden)
        bits = spread(spread(np.arange(3 * 1000, dtype="uint32") ^ first) ^ spread(first + np.uint32(7) + golden))
    found = drawn(compiled, (3, 1000), 2020, 7)
    np.testing.assert_array_equal(found, (bits >> np.uint32(8)).reshape(3, 1000) / np.float32(2**24))
    assert found.dtype == np.float32


def test_numbers_are_uniform_and_independent(compiled):
    """Over neighbouring seeds, steps and places; bounds at five standard deviations."""
    numbers = np.stack([drawn(compiled, (4, 5000), seed, step) for seed in (0, 1) for step in (0, 1, 2)])
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    counts = np.histogram(numbers, 16, (0, 1))[0]
    assert abs(counts - numbers.size / 16).max() < 5 * (numbers.size / 16) ** 0.5
    rows = numbers.reshape(-1, 5000)
    assert abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 5 / 5000**0.5
    ahead = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in rows]
    assert np.abs(ahead).max() < 5 / 5000**0.5


def test_steps_differ_and_a_seed_repeats_them(compiled):
    def step():
        return sampling.uniform((1, 100), generator.next())

    steps = []
    for _ in range(2):
        generator = keras.random.SeedGenerator(3)
        steps.append([ops.convert_to_numpy(step()) for _ in range(2)])
    np.testing.assert_array_equal(steps[0], steps[1])
    assert (steps[0][0] != steps[0][1]).mean() > 0.9
    matches = np.where(np.arange(100) < 50, 0, targets.BACKGROUND)[None].astype("int32")
    indices, foreground, _ = compiled(lambda m, u: targets.sample(m, u, 20, 5))(matches, steps[0][0])
    assert foreground.sum() == 5
    assert set(indices[0, :5]) == set(np.argsort(-steps[0][0][0, :50])[:5])
