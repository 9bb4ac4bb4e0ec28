"""One image with its instances, as the network sees them. Worker processes import this, so no Keras here."""

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
from fashionseg.data.augment import EMPTY, Patch
from fashionseg.data.config import Augment

MASK_SIDE = 56  # pixels of a mask cropped to its box: twice the mask head's output, as Matterport's mini masks
MIN_AREA = 4  # pixels after resizing and augmentation; smaller instances are dropped


class Sample(NamedTuple):
    """image (h, w, 3) uint8 RGB; kept: indices of the n instances used; boxes (n, 4) float32 x1 y1 x2 y2,
    x2 = x1 + width; masks (n, MASK_SIDE, MASK_SIDE) uint8 0 or 1, each cropped to its box."""

    image: np.ndarray
    kept: list[int]
    boxes: np.ndarray
    masks: np.ndarray


def read(path: Path, height: int, width: int, side: int) -> np.ndarray:
    """An image (h, w, 3) uint8 RGB whose long side is `side`; height and width: of its COCO record.

    Raises UserError where the file cannot be decoded or has another aspect ratio than the record.
    """
    image = pictures.read(path, side, remedy=pictures.EITHER)
    scale = max(image.shape[:2]) / max(height, width)
    if max(abs(height * scale - image.shape[0]), abs(width * scale - image.shape[1])) > 1:
        size = " x ".join(map(str, image.shape[:2]))
        raise UserError(f"{path} has {size} pixels, not the aspect of {height} x {width}; run `dvc repro convert`.")
    return pictures.resized(image, side, (height, width))


class Source(NamedTuple):
    """An image file, the size in its COCO record, its instances as COCO RLE at that size, and where there is one the
    file of the same image with more pixels."""

    path: Path
    height: int
    width: int
    segmentations: Sequence[dict[str, Any]]
    original: Path | None = None


def sample(
    source: Source, side: int, instances: int, augmentation: Augment, seed: int, other: Source | None = None
) -> Sample:
    """An image and its `instances` largest instances, largest first, after the augmentation that `seed` fixes.

    Masks are resized as RLE; no bitmap is larger than its box. Boxes are computed from the masks. Of `other` about half
    of the instances are pasted; in `kept` their indices follow those of the image.
    """
    image, patches = _augmented(source, side, augmentation, seed)
    if other:
        random = np.random.default_rng([seed, 1])
        other_image, pasted = _augmented(other, side, augmentation, int(random.integers(2**32)))
        pasted = [
            patch if chosen else EMPTY for patch, chosen in zip(pasted, random.random(len(pasted)) < 0.5, strict=True)
        ]
        image, patches = augment.paste(image, patches, other_image, pasted)
    areas = np.array([patch.area for patch in patches], int)
    kept = [i for i in np.argsort(-areas, kind="stable")[:instances].tolist() if areas[i] >= MIN_AREA]
    boxes = np.array([patches[i].box for i in kept], np.float32).reshape(-1, 4)
    masks = np.array([shrunk(patches[i].bitmap) for i in kept], np.uint8).reshape(-1, MASK_SIDE, MASK_SIDE)
    return Sample(image, kept, boxes, masks)


def _augmented(source: Source, side: int, augmentation: Augment, seed: int) -> tuple[np.ndarray, list[Patch]]:
    """An image and its masks: resized at a random scale, from the original if that is above 1, cropped at random if
    larger than `side`, then augmented by imgaug."""
    path, height, width, segmentations, original = source
    random = np.random.default_rng(seed)
    scaled = max(1, round(side * random.uniform(*augmentation.scale)))
    image = read(original if original and scaled > side else path, height, width, scaled)
    patches = _patches(segmentations, *image.shape[:2])
    shape = pictures.fit(height, width, side)
    if max(image.shape[:2]) > side:
        y, x = (int(random.integers(full - part + 1)) for full, part in zip(image.shape[:2], shape, strict=True))
        image, patches = augment.cut(image, patches, x, y, shape)
    if augmenter := augment.policy(augmentation.imgaug, seed):
        image, patches = augment.apply(augmenter, image, patches)
    return image, patches


def _patches(segmentations: Sequence[dict[str, Any]], height: int, width: int) -> list[Patch]:
    if not segmentations:
        return []
    runs = rle.from_coco(segmentations)
    runs = runs.resize(height, width)
    return [Patch(x, y, runs.crop(i, y, x, h, w).decode(0)) for i, (x, y, w, h) in enumerate(runs.boxes().tolist())]


def shrunk(bitmap: np.ndarray) -> np.ndarray:
    """A mask (h, w) of 0 and 1, resized to MASK_SIDE x MASK_SIDE cells; a cell is 1 where at least half of it is."""
    height, width = bitmap.shape
    # OpenCV averages areas only where both sides shrink; where one grows, it samples along the other, too.
    shares = cv2.resize(bitmap * 255, (min(width, MASK_SIDE), min(height, MASK_SIDE)), interpolation=cv2.INTER_AREA)
    shares = cv2.resize(shares, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_LINEAR)
    return (shares > 127).astype(np.uint8)


def prepare_worker(trainer: int) -> None:
    """Sets up a worker of the process with id `trainer`; it ends with the trainer, even if that is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the trainer handles these and ends its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)

    def watch() -> None:
        while os.getppid() == trainer:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
