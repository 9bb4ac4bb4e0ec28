"""The probabilities of a mask over its box: packed as text, and pasted into a picture as runs."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from fashionseg.core import rle

LEVELS = 63  # of a packed probability: six bits; a half lies between two of them, so that rounding favours no side
SURE = 1 / (1 + np.exp(-1.0))  # of a logit of 1, the offset of Segment Anything's stability score


def pack(mask: np.ndarray) -> str:
    """Probabilities (M, M) in steps of 1 / LEVELS as a PNG in base64."""
    levels = np.rint(mask * LEVELS).astype(np.uint8)
    return base64.b64encode(cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]).decode()


def unpack(text: str) -> np.ndarray:
    """The probabilities (M, M) float32 that `pack` made a text of, to the nearest step."""
    png = np.frombuffer(base64.b64decode(text), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_GRAYSCALE).astype(np.float32) / LEVELS


def stability(mask: np.ndarray) -> float:
    """How sharp the edge of a mask (M, M) of probabilities is: area of what is surely inside over that of what is not
    surely outside, 0..1 (the stability score of Kirillov et al. 2023)."""
    return float((mask > SURE).sum() / max(1, (mask > 1 - SURE).sum()))


def paste(mask: np.ndarray, bbox: Sequence[float], height: int, width: int, threshold: float) -> tuple[rle.Runs, float]:
    """One mask (M, M) of probabilities put into its box (x, y, width, height) of a picture, as runs, and the mean
    probability in it, 0 where it is empty.

    torchvision's paste_masks_in_image without its bitmap of the whole picture: the mask gets a border of one cell, the
    box grows with it and is cut to whole pixels, the mask is resized bilinearly, then compared with the threshold.
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
    resized = cv2.resize(padded, (int(max(x2 - x1 + 1, 1)), int(max(y2 - y1 + 1, 1))), interpolation=cv2.INTER_LINEAR)
    crop = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    inside = crop > threshold
    mask_score = float(crop[inside].mean()) if inside.any() else 0.0
    return rle.encode(inside).paste(top, left, height, width), mask_score
