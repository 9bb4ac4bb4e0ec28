"""Which images share a batch: tall with tall and wide with wide, so that little of the input is padding."""

import itertools
from typing import NamedTuple

import numpy as np

SQUARE, TALL, WIDE = 0, 1, 2
STEP = 32  # pixels: the largest stride of a backbone
# Each shape is compiled by itself. That takes as long as this many square images, of which a shape has to save more.
COMPILATION = 16


class Rows(NamedTuple):
    """The images of a batch by index, and how often each came before; those from row `count` on only fill it."""

    images: np.ndarray
    before: np.ndarray
    count: int


def groups(sizes: np.ndarray) -> np.ndarray:
    """SQUARE, TALL or WIDE (n,) for images of sizes (n, 2), height and width.

    The shape of the tall ones is as wide as the widest of them, so some may belong to the squares; wide ones likewise.
    Of all such groups those with the fewest pixels in all, where each shape counts as COMPILATION squares more.
    """
    aspects = sizes.min(axis=1) / sizes.max(axis=1)
    tall, wide = sizes[:, 0] > sizes[:, 1], sizes[:, 0] < sizes[:, 1]
    candidates = []
    for limits in itertools.product(_limits(aspects[tall]), _limits(aspects[wide])):
        found = np.where(tall & (aspects <= limits[0]), TALL, np.where(wide & (aspects <= limits[1]), WIDE, SQUARE))
        cost = sum(
            COMPILATION + (found == group).sum() * (1.0 if group == SQUARE else aspects[found == group].max())
            for group in np.unique(found)
        )
        candidates.append((cost, found))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _limits(aspects: np.ndarray) -> list[float]:
    """Up to which aspect (short / long side) images may be of a narrow group: none, those with fewest pixels, all."""
    if not len(aspects):
        return [0.0]
    aspects = np.sort(aspects)
    saved = (1 - aspects) * np.arange(1, len(aspects) + 1)
    return [0.0, float(aspects[np.argmax(saved)]), float(aspects[-1])]


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
