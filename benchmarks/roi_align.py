"""RoIAlign and its gradient on a CPU: TensorFlow operation by operation, and by XLA as in a training.

    python benchmarks/roi_align.py

The RoIs of a training step as params come: 128 for the box head, 32 for the mask head, of each of two pictures of 320
pixels, 64 channels. Processor time, the least of ten. Then the rows that the gradient adds on a GPU, where each cell
of a bin comes once.
"""

import os
import time
from unittest.mock import patch

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

from fashionseg.model import compilation
from fashionseg.model.roi_align import RoIAlign, levels

SIDE, CHANNELS, IMAGES, STRIDES = 320, 64, 2, (4, 8, 16, 32)


def main() -> None:
    random = np.random.default_rng(0)
    maps = [tf.random.normal((IMAGES, SIDE // stride, SIDE // stride, CHANNELS)) for stride in STRIDES]
    for name, count, side in (("box head", 128, 7), ("mask head", 32, 14)):
        centres, sides = random.uniform(0, SIDE, (IMAGES, count, 2)), random.lognormal(4, 0.7, (IMAGES, count, 2))
        rois = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).clip(0, SIDE).astype(np.float32)
        upstream = random.standard_normal((IMAGES, count, side, side, CHANNELS)).astype(np.float32)
        for what, made in (("", forward), (", gradient", gradient_of)):
            ours = made(rois, upstream)
            with patch.object(compilation, "compiles", bool):
                plain = made(rois, upstream)
                before = least_seconds(plain, maps)
            for one, other in zip(ours(maps), plain(maps), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)
            now = least_seconds(ours, maps)
            print(f"{name}{what}: {before * 1e3:.1f} ms -> {now * 1e3:.1f} ms, ratio {now / before:.2f}")
        every, added = (rows(maps, rois, side, fuses) for fuses in (False, True))
        print(f"{name}, gradient on a GPU: {every} rows -> {added}, ratio {added / every:.2f}")


def rows(maps: list[tf.Tensor], rois: np.ndarray, side: int, fuses: bool) -> int:
    """That the gradient adds: all of every sample, or those with a weight after merging."""
    with patch.object(compilation, "fuses", lambda: fuses):
        weights = RoIAlign(maps, STRIDES)._bins(rois, levels(tf.constant(rois), len(STRIDES)), side)[1]
    return int(tf.math.count_nonzero(weights)) if fuses else tf.size(weights).numpy()


def forward(rois: np.ndarray, upstream: np.ndarray):
    return tf.function(lambda maps: pooled(maps, rois, upstream.shape[2]))


def gradient_of(rois: np.ndarray, upstream: np.ndarray):
    @tf.function
    def gradient(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            features = pooled(maps, rois, upstream.shape[2])
        return tape.gradient(features, maps, upstream)

    return gradient


def pooled(maps: list[tf.Tensor], rois: np.ndarray, side: int) -> tf.Tensor:
    return RoIAlign(maps, STRIDES)(rois, levels(tf.constant(rois), len(STRIDES)), side)


def least_seconds(function, maps) -> float:
    seconds = []
    for _ in range(11):
        began = time.process_time()
        function(maps)
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
