"""One picture with its instances, as the network sees them. Worker processes import this, so no Keras here."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fashionseg.core import pictures, rle
from fashionseg.core.errors import UserError
from fashionseg.data import augment
from fashionseg.data.augment import Patch

MASK_SIDE = 56  # of a mask cropped to its box: twice the mask head's output, as Matterport's mini masks
LEAST_AREA = 4  # pixels; what is smaller once resized and moved is no instance


class Sample(NamedTuple):
    """image (h, w, 3) uint8 RGB; kept, which of its instances these n are; boxes (n, 4) float32 x1 y1 x2 y2,
    x2 = x1 + width; masks (n, MASK_SIDE, MASK_SIDE) uint8 0 or 1, each over its box."""

    image: np.ndarray
    kept: list[int]
    boxes: np.ndarray
    masks: np.ndarray


def read(path: Path, height: int, width: int, side: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 RGB whose long side is `side`; height and width are those of its COCO record.

    Raises UserError where the file cannot be decoded or has another aspect than the record.
    """
    image = pictures.read(path, side)
    scale = max(image.shape[:2]) / max(height, width)
    if max(abs(height * scale - image.shape[0]), abs(width * scale - image.shape[1])) > 1:
        found = " x ".join(map(str, image.shape[:2]))
        raise UserError(f"{path} is {found} pixels, which is no resized {height} x {width}; run `dvc repro convert`.")
    return pictures.resized(image, side, (height, width))


def sample(
    path: Path,
    height: int,
    width: int,
    side: int,
    segmentations: Sequence[dict[str, Any]],
    instances: int,
    policy: str,
    seed: int,
) -> Sample:
    """The `instances` largest of an image's instances, largest first, after the augmentation that `seed` fixes.

    segmentations: COCO run lengths at the original size height x width; they are resized as runs, and no bitmap is
    larger than the box at the picture's size. Boxes come from the masks.
    """
    image = read(path, height, width, side)
    patches = _patches(segmentations, *image.shape[:2])
    if augmenter := augment.policy(policy, seed):
        image, patches = augment.apply(augmenter, image, patches)
    areas = np.array([patch.area for patch in patches], int)
    kept = [i for i in np.argsort(-areas, kind="stable")[:instances].tolist() if areas[i] >= LEAST_AREA]
    boxes = np.array([patches[i].box for i in kept], np.float32).reshape(-1, 4)
    masks = np.array([shrunk(patches[i].bitmap) for i in kept], np.uint8).reshape(-1, MASK_SIDE, MASK_SIDE)
    return Sample(image, kept, boxes, masks)


def _patches(segmentations: Sequence[dict[str, Any]], height: int, width: int) -> list[Patch]:
    if not segmentations:
        return []
    runs = rle.from_coco(segmentations)
    runs = runs.resize(np.full(len(runs), height), np.full(len(runs), width))
    return [Patch(x, y, runs.crop(i, y, x, h, w).decode(0)) for i, (x, y, w, h) in enumerate(runs.boxes().tolist())]


def shrunk(bitmap: np.ndarray) -> np.ndarray:
    """A mask (h, w) of 0 and 1 over the same box in MASK_SIDE x MASK_SIDE cells; a cell is 1 where half of it is."""
    method = cv2.INTER_AREA if min(bitmap.shape) >= MASK_SIDE else cv2.INTER_LINEAR
    return (cv2.resize(bitmap * 255, (MASK_SIDE, MASK_SIDE), interpolation=method) > 127).astype(np.uint8)


def prepare_worker(trainer: int) -> None:
    """Sets up a process that reads ahead for the one of id `trainer`, and ends with it even where that was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the trainer, which ends its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)

    def watch() -> None:
        while os.getppid() == trainer:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
