"""Soft masks, the mask head's probabilities over a box: packed as text, and pasted into an image as RLE."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fashionseg.core import rle

PACKED_STEPS = 63  # six bits per probability; 0.5 lies halfway between two steps, so rounding has no bias
CERTAIN = 1 / (1 + np.exp(-1.0))  # probability of logit 1, the offset of Segment Anything's stability score


def pack(mask: np.ndarray) -> str:
    """A soft mask (M, M), rounded to PACKED_STEPS steps, as a PNG in base64."""
    levels = np.rint(mask * PACKED_STEPS).astype(np.uint8)
    return base64.b64encode(cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]).decode()


def unpack(text: str) -> np.ndarray:
    """The soft mask (M, M) float32 of a text of `pack`, rounded to the nearest step. Raises ValueError for another."""
    png = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    levels = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE) if png.size else None
    if levels is None or levels.shape[0] != levels.shape[1] or levels.max() > PACKED_STEPS:
        raise ValueError("it should be a square PNG of probabilities in base64")
    return levels.astype(np.float32) / PACKED_STEPS


def stability(mask: np.ndarray) -> float:
    """Stability score of a soft mask (M, M), 0..1 (Kirillov et al. 2023): its area above logit 1 over its area above
    logit -1; high where the edge is sharp."""
    return float((mask > CERTAIN).sum() / max(1, (mask > 1 - CERTAIN).sum()))


@dataclass(frozen=True)
class Window:
    """A soft mask at the resolution of an image, within its box: values (h, w) float32, the first of them at pixel
    (top, left) of an image of `size` (height, width)."""

    values: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    def above(self, threshold: float) -> rle.Runs:
        """The mask, in the image, of the values above a threshold."""
        return rle.encode(self.values > threshold, self.top, self.left, self.size)

    def mean_above(self, threshold: float) -> float:
        """Mean of the values above a threshold >= 0; 0 without any."""
        if not self.values.size:
            return 0.0
        above = cv2.threshold(self.values, threshold, 0, cv2.THRESH_TOZERO)[1]
        return cv2.sumElems(above)[0] / max(1, cv2.countNonZero(above))

    def resized(self, height: int, width: int) -> "Window":
        """At another size of the image, nearest neighbour: `above` gives what `rle.Runs.resize` makes of its mask."""
        places, firsts = [], []
        for first, count, old, new in zip(
            (self.top, self.left), self.values.shape, self.size, (height, width), strict=True
        ):
            shown = rle.shown(old, new)
            begin, end = np.searchsorted(shown, [first, first + count])
            places.append(shown[begin:end] - first)
            firsts.append(int(begin))
        rows, columns = places
        return Window(self.values.take(rows, axis=0).take(columns, axis=1), *firsts, (height, width))


def enlarged(mask: np.ndarray, bbox: Sequence[float], height: int, width: int) -> Window:
    """A soft mask (M, M) resized to its bbox (x, y, width, height) in an image of height x width pixels.

    As torchvision's paste_masks_in_image, without a bitmap of the whole image: the soft mask is padded by one cell, the
    box enlarged alike and rounded down to whole pixels, and the soft mask resized bilinearly.
    """
    side = mask.shape[0]
    padded = np.zeros((side + 2, side + 2), np.float32)
    padded[1:-1, 1:-1] = mask
    corners = []
    for first, length in zip(bbox[:2], bbox[2:], strict=True):
        last = first + length
        centre, half = (first + last) / 2, (last - first) / 2 * (side + 2) / side
        corners.append((int(centre - half), int(centre + half)))
    (x1, x2), (y1, y2) = corners
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = max(min(x2 + 1, width), left), max(min(y2 + 1, height), top)
    whole = cv2.resize(padded, (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)), interpolation=cv2.INTER_LINEAR)
    return Window(whole[top - y1 : bottom - y1, left - x1 : right - x1], top, left, (height, width))


def paste(mask: np.ndarray, bbox: Sequence[float], height: int, width: int, threshold: float) -> tuple[rle.Runs, float]:
    """The mask (RLE) where a soft mask (M, M), resized to its bbox (x, y, width, height) in an image of height x width
    pixels, exceeds the threshold; and the mean probability within it, 0 if it is empty."""
    window = enlarged(mask, bbox, height, width)
    return window.above(threshold), window.mean_above(threshold)
