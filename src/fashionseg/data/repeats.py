"""Repeat-factor sampling (Gupta et al. 2019, LVIS): pictures with rare classes come more often in an epoch."""

from collections.abc import Collection, Sequence

import numpy as np


def factors(classes: Sequence[Collection[int]], threshold: float) -> np.ndarray:
    """How often each of n pictures should come in an epoch on average (n,), 1 or more.

    classes: those that each picture holds. A class in a share f of the pictures asks for max(1, sqrt(threshold / f)), a
    picture comes as often as the class of it that asks for most.
    """
    names = sorted(set().union(*classes))
    holds = np.array([[name in of_image for name in names] for of_image in classes], bool).reshape(len(classes), -1)
    wanted = np.sqrt(threshold / holds.mean(axis=0))
    return np.maximum(1, np.where(holds, wanted, 1).max(axis=1, initial=1))


def counts(wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Whole numbers (n,) of which each is `wanted` rounded down or up, at random, so that the mean is as wanted.

    Their sum is always that of `wanted`, rounded up: for that all of `wanted` are raised by less than 1 in sum. This is
    systematic sampling over the pictures in random order.
    """
    order = random.permutation(len(wanted))
    ends = np.cumsum(wanted[order])
    total = np.ceil(ends[-1] - 1e-6)
    ends = np.append(ends[:-1] * (total / ends[-1]), total)
    found = np.empty(len(wanted), int)
    found[order] = np.diff(np.floor(ends + random.uniform()), prepend=0).astype(int)
    return found


def times_before(order: np.ndarray) -> np.ndarray:
    """How often the picture at each place of `order` stands before it."""
    places = np.argsort(order, kind="stable")
    _, firsts, counts = np.unique(order[places], return_index=True, return_counts=True)
    before = np.empty(len(order), int)
    before[places] = np.arange(len(order)) - np.repeat(firsts, counts)
    return before
