"""Which pictures share a batch: tall with tall and wide with wide, so that less of its shape is padding."""

from typing import NamedTuple

import numpy as np

SQUARE, TALL, WIDE = 0, 1, 2
STEP = 32  # pixels: the largest stride of a backbone
# Batches that a shape must save in a pass over the pictures: that makes up for its compilation within an epoch or two.
WORTH = 8


class Rows(NamedTuple):
    """The pictures of a batch by number, and how often each came before; those from row `count` on only fill it."""

    images: np.ndarray
    before: np.ndarray
    count: int


def groups(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """SQUARE, TALL or WIDE for each of the pictures of sizes (n, 2), height and width.

    A tall shape is as narrow as makes the fewest pixels in all, with the pictures that do not fit into it in squares.
    There is none that saves less than WORTH batches of squares. Wide ones likewise.
    """
    found = np.full(len(sizes), SQUARE)
    aspects = sizes.min(axis=1) / sizes.max(axis=1)
    for group, axis in ((TALL, 0), (WIDE, 1)):
        members = np.flatnonzero(sizes[:, axis] > sizes[:, 1 - axis])
        members = members[np.argsort(aspects[members], kind="stable")]
        saved = (1 - aspects[members]) * np.arange(1, len(members) + 1)  # squares, by the last that fits
        if len(members) and saved.max() >= WORTH * batch_size:
            last = aspects[members[np.argmax(saved)]]
            found[members[aspects[members] <= last]] = group
    return found


def shape(heights: np.ndarray, widths: np.ndarray) -> tuple[int, int]:
    """The smallest height and width, multiples of STEP, that pictures of these sizes in pixels fit into."""
    height, width = (int(-(-lengths.max() // STEP) * STEP) for lengths in (heights, widths))
    return height, width


def batches(order: np.ndarray, of_image: np.ndarray, batch_size: int) -> list[Rows]:
    """The pictures of `order` in batches of one group each, in the order of their first pictures.

    of_image (n,): the group of each picture. The last batch of a group is filled with the first pictures of the group.
    """
    found, before = [], _times_before(order)
    for group in np.unique(of_image[order]):
        places = np.flatnonzero(of_image[order] == group)
        for start in range(0, len(places), batch_size):
            rows = places[np.arange(start, start + batch_size) % len(places)]
            found.append((places[start], Rows(order[rows], before[rows], min(batch_size, len(places) - start))))
    return [rows for _, rows in sorted(found, key=lambda batch: batch[0])]


def _times_before(order: np.ndarray) -> np.ndarray:
    """How often the picture at each place of `order` stands before it."""
    places = np.argsort(order, kind="stable")
    _, firsts, counts = np.unique(order[places], return_index=True, return_counts=True)
    before = np.empty(len(order), int)
    before[places] = np.arange(len(order)) - np.repeat(firsts, counts)
    return before
