"""Soft masks, the mask head's probabilities over a box: packed as text, and pasted into an image as RLE."""

import base64
from collections.abc import Sequence

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


def paste(mask: np.ndarray, bbox: Sequence[float], height: int, width: int, threshold: float) -> tuple[rle.Runs, float]:
    """The mask (RLE) where a soft mask (M, M), resized to its bbox (x, y, width, height) in an image of height x width
    pixels, exceeds the threshold; and the mean probability within it, 0 if it is empty.

    As torchvision's paste_masks_in_image, without a bitmap of the whole image: the soft mask is padded by one cell, the
    box enlarged alike and rounded down to whole pixels, and the soft mask resized bilinearly.
    """
    side = mask.shape[0]
    padded = np.zeros((side + 2, side + 2), np.float32)
    padded[1:-1, 1:-1] = mask
    first, last = np.array(bbox[:2]), np.add(bbox[:2], bbox[2:])
    centre, half = (first + last) / 2, (last - first) / 2 * (side + 2) / side
    x1, y1 = (centre - half).astype(int)
    x2, y2 = (centre + half).astype(int)
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2 + 1, width), min(y2 + 1, height)
    enlarged = cv2.resize(padded, (int(max(x2 - x1 + 1, 1)), int(max(y2 - y1 + 1, 1))), interpolation=cv2.INTER_LINEAR)
    crop = enlarged[top - y1 : bottom - y1, left - x1 : right - x1]
    inside = crop > threshold
    mask_score = float(crop[inside].mean()) if inside.any() else 0.0
    return rle.encode(inside).paste(top, left, height, width), mask_score
