"""imgaug policies that move image, boxes and masks alike.

imgaug draws the random numbers and moves the picture. Masks do not go through it: three points do, these give the
affine map that was drawn, and every mask is warped within its own box, twice as fast in all as a stack of masks as
imgaug's segmentation map (benchmarks/batches.py). So a policy may move pictures by affine maps only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables import KeypointsOnImage

GREY = 127  # what lies beyond the picture, here and in the padding of a batch


class Patch(NamedTuple):
    """A mask within its bounding box: bitmap (h, w) uint8 0 or 1, its first pixel at column x, row y of the picture."""

    x: int
    y: int
    bitmap: np.ndarray

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.bitmap))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 with x2 = x1 + width: edges of pixels, not their centres."""
        height, width = self.bitmap.shape
        return self.x, self.y, self.x + width, self.y + height

    def trimmed(self) -> "Patch":
        """The same mask with no empty row or column around it; (0, 0) large where there is no pixel."""
        x, y, width, height = cv2.boundingRect(self.bitmap)
        return Patch(self.x + x, self.y + y, self.bitmap[y : y + height, x : x + width])


def policy(name: str, seed: int) -> iaa.Augmenter | None:
    """The augmenter "standard" with this seed, or None for "none"; one a sample, as drawing changes its state."""
    if name == "none":
        return None
    if name != "standard":
        raise ValueError(f"unknown augmentation policy {name!r}; known: none, standard")
    frame = iaa.Affine(
        scale=(0.8, 1.25),
        translate_percent={"x": (-0.1, 0.1), "y": (-0.1, 0.1)},
        rotate=(-8, 8),
        shear=(-4, 4),
        order=1,
        cval=GREY,
        backend="cv2",
    )
    rare = [iaa.GaussianBlur((0.3, 1.0)), iaa.AdditiveGaussianNoise(scale=(2, 8)), iaa.JpegCompression((20, 60))]
    augmenter = iaa.Sequential(
        [
            iaa.Sometimes(0.5, iaa.Multiply((0.75, 1.25), per_channel=0.2)),
            iaa.Sometimes(0.5, iaa.LinearContrast((0.75, 1.3))),
            iaa.Sometimes(0.3, iaa.AddToHueAndSaturation(value_hue=(-8, 8), value_saturation=(-30, 30))),
            iaa.Sometimes(0.1, [iaa.OneOf(rare)]),  # in a list: imgaug 0.5 does not seed a bare OneOf here
            iaa.Fliplr(0.5),
            iaa.Sometimes(0.8, frame),  # last, so that what it uncovers stays GREY as the padding
        ]
    )
    augmenter.seed_(seed)
    return augmenter


def apply(augmenter: iaa.Augmenter, image: np.ndarray, patches: Sequence[Patch]) -> tuple[np.ndarray, list[Patch]]:
    """Moves a picture (H, W, 3) uint8 and its masks by one drawing of `augmenter`, canvas unchanged.

    Each patch comes back in its place, trimmed to its new bounding box; what left the picture has no pixel.
    """
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    moved, points = augmenter(image=image, keypoints=KeypointsOnImage.from_xy_array(corners, image.shape))
    matrix = cv2.getAffineTransform(corners, points.to_xy_array().astype(np.float32))
    return moved, [_warp(patch, matrix, height, width).trimmed() for patch in patches]


def _warp(patch: Patch, matrix: np.ndarray, height: int, width: int) -> Patch:
    """`patch` moved by `matrix` (2, 3), which maps x, y measured from the picture's corner, not from pixel centres."""
    x1, y1, x2, y2 = patch.box
    reach = matrix @ np.array([[x1, x2, x1, x2], [y1, y1, y2, y2], [1, 1, 1, 1]])
    left, top = np.clip(np.floor(reach.min(1)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(reach.max(1)), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return Patch(0, 0, np.zeros((1, 1), np.uint8))
    centred = matrix.copy()  # from index to index: of pixel centres, within the patches
    centred[:, 2] = matrix @ (x1 + 0.5, y1 + 0.5, 1) - (left + 0.5, top + 0.5)
    # Edges halfway between two pixel centres stay edges: linear, then half.
    bitmap = cv2.warpAffine(patch.bitmap * 255, centred, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return Patch(int(left), int(top), (bitmap > 127).astype(np.uint8))
