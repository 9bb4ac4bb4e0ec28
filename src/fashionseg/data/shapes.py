"""Which images share a batch: tall with tall and wide with wide, so that little of the input is padding."""

import itertools
from typing import NamedTuple

import numpy as np

SQUARE = 0
STEP = 32  # pixels: the largest stride of a backbone
# Each shape is compiled by itself. On a CPU that takes as long as this many square images, of which a shape has to save
# more; and of many images this share, as they are for a GPU, where an image costs less than compiling does.
COMPILATION = 16
LEAST = 0.01


class Rows(NamedTuple):
    """The images of a batch by index, and how often each came before; those from row `count` on only fill it."""

    images: np.ndarray
    before: np.ndarray
    count: int


def groups(sizes: np.ndarray) -> np.ndarray:
    """The group (n,) of images of sizes (n, 2), height and width: SQUARE, or from 1 on that of a narrower shape.

    A narrower shape is of tall images or of wide ones, and as narrow as its least narrow image. Of all such groups
    those with the fewest pixels in all, where each shape counts as squares more.
    """
    aspects, price = sizes.min(axis=1) / sizes.max(axis=1), max(COMPILATION, LEAST * len(sizes))
    sides = [sizes[:, 0] > sizes[:, 1], sizes[:, 0] < sizes[:, 1]]
    candidates = []
    for limits in itertools.product(*(_limits(aspects[side], price) for side in sides)):
        found, first = np.full(len(sizes), SQUARE), SQUARE + 1
        for side, edges in zip(sides, limits, strict=True):
            places = np.searchsorted(edges, aspects[side])
            found[side] = np.where(places < len(edges), first + places, SQUARE)
            first += len(edges)
        cost = sum(
            price + (found == group).sum() * (1.0 if group == SQUARE else aspects[found == group].max())
            for group in np.unique(found)
        )
        candidates.append((cost, found))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _limits(aspects: np.ndarray, price: float) -> list[list[float]]:
    """The largest aspect (short / long side) of each narrower shape, ascending: where squares are there for images
    that are better off in them, and where they are not."""
    aspects, counts = np.unique(aspects, return_counts=True)
    counts = np.concatenate([[0], counts.cumsum()])
    costs, starts = np.zeros(len(counts)), np.zeros(len(counts), int)
    for end, aspect in enumerate(aspects, start=1):  # the least cost of the images up to it, and where its shape starts
        of_starts = costs[:end] + price + (counts[end] - counts[:end]) * aspect
        costs[end], starts[end] = of_starts.min(), of_starts.argmin()
    found = []
    for end in (int((counts - costs).argmax()), len(aspects)):
        edges = []
        while end:
            edges.insert(0, float(aspects[end - 1]))
            end = starts[end]
        found.append(edges)
    return found


def shape(fitted: np.ndarray, side: int) -> tuple[int, int]:
    """The smallest height and width, multiples of STEP or `side`, that hold images of sizes (n, 2) up to `side`."""
    height, width = np.minimum(-(-fitted.max(axis=0) // STEP) * STEP, side).tolist()
    return height, width


def batches(order: np.ndarray, before: np.ndarray, group_of: np.ndarray, batch_size: int) -> list[Rows]:
    """The images of `order` (m,) in batches of one group each, in the order of their first images.

    before (m,): how often each came before; group_of (n,): the group of each image. The last batch of a group is filled
    up with the first images of that group.
    """
    found = []
    for group in np.unique(group_of[order]):
        places = np.flatnonzero(group_of[order] == group)
        for start in range(0, len(places), batch_size):
            rows = places[np.arange(start, start + batch_size) % len(places)]
            found.append((places[start], Rows(order[rows], before[rows], min(batch_size, len(places) - start))))
    return [rows for _, rows in sorted(found, key=lambda batch: batch[0])]
