"""Repeat-factor sampling (Gupta et al. 2019, LVIS): images with rare classes come more often in an epoch."""

from collections.abc import Collection, Sequence

import numpy as np


def factors(classes: Sequence[Collection[int]], threshold: float) -> np.ndarray:
    """(n,) repeat factors: how often each image comes per epoch on average, at least 1.

    classes: of each of n images. The factor of a class in a share f of the images is max(1, sqrt(threshold / f)), that
    of an image the largest of its classes.
    """
    names = sorted(set().union(*classes))
    holds = np.array([[name in of_image for name in names] for of_image in classes], bool).reshape(len(classes), -1)
    class_factors = np.sqrt(threshold / holds.mean(axis=0))
    return np.maximum(1, np.where(holds, class_factors, 1).max(axis=1, initial=1))


def counts(wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) int: each of `wanted` (n,) rounded down or up at random, with `wanted` as the mean.

    The sum is always that of `wanted` rounded up; to reach it, `wanted` is scaled up by less than 1 in sum. Systematic
    sampling over the images in random order.
    """
    order = random.permutation(len(wanted))
    ends = np.cumsum(wanted[order])
    total = np.ceil(ends[-1] - 1e-6)
    ends = np.append(ends[:-1] * (total / ends[-1]), total)
    rounded = np.empty(len(wanted), int)
    rounded[order] = np.diff(np.floor(ends + random.uniform()), prepend=0).astype(int)
    return rounded
