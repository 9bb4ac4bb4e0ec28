"""Augmentation of a training image and its masks: imgaug's augmenters, and copy-paste from another image.

imgaug draws the random numbers and transforms the image. Masks do not go through imgaug: a few keypoints give the
affine matrix that was drawn, and each mask is warped within its own box, twice as fast as a stack of masks as imgaug's
segmentation map (benchmarks/batches.py). So augmenters may only move pixels by affine maps.
"""

import difflib
from collections.abc import Sequence
from inspect import isclass, signature
from typing import Any, NamedTuple

import cv2
import imgaug
import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables import KeypointsOnImage

from fashionseg.core.errors import UserError, first_line

GREY = 127  # fill value outside the image, here and in the padding of a batch
AUGMENTERS = {
    name: kind
    for name, kind in vars(iaa).items()
    if isclass(kind) and issubclass(kind, iaa.Augmenter) and name[0] != "_"
}
BUILT: dict[str, iaa.Sequential] = {}  # by their steps; to build one takes as long as to augment a small image
AFFINE = 0.5  # pixels that a keypoint may differ from the affine map of three corners


class Patch(NamedTuple):
    """A mask within its bounding box: bitmap (h, w) uint8 0 or 1, its first pixel at column x, row y of the image."""

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
        """The same mask without empty rows and columns around it; of size (0, 0) where it is empty."""
        x, y, width, height = cv2.boundingRect(self.bitmap)
        return Patch(self.x + x, self.y + y, self.bitmap[y : y + height, x : x + width])


EMPTY = Patch(0, 0, np.zeros((1, 1), np.uint8))


def policy(steps: Sequence[dict[str, Any]], seed: int) -> iaa.Augmenter | None:
    """A sequence of imgaug's augmenters from `augment.imgaug` of params.yaml, seeded; None if there are none.

    For one sample, since drawing changes its state; the next call gives the same one, seeded anew. Each of `steps` is
    {name: arguments}; a mapping gives keyword arguments, anything else the first argument. Within the arguments
    {Name: ...} is an augmenter where the name starts with a capital; two numbers are a range, more a choice. Uncovered
    pixels become GREY. Raises UserError for names and arguments that imgaug does not know.
    """
    if not steps:
        return None
    if (key := repr(steps)) not in BUILT:
        BUILT[key] = iaa.Sequential([_built(step) for step in steps])
    BUILT[key].seed_(seed)
    imgaug.random.seed(seed)  # MultiplyAndAddToBrightness draws from imgaug's own numbers, too
    return BUILT[key]


def _built(step: Any) -> iaa.Augmenter:
    if not isinstance(step, dict) or len(step) != 1:
        raise UserError(f"augment.imgaug: {step!r} should be one augmenter, as in {{Fliplr: 0.5}}.")
    ((name, given),) = step.items()
    if name not in AUGMENTERS:
        names = {known.lower(): known for known in AUGMENTERS}
        nearest = names[difflib.get_close_matches(str(name).lower(), names, 1, cutoff=0)[0]]
        raise UserError(f"augment.imgaug: {name!r} is not an augmenter of imgaug; the nearest is {nearest}.")
    kind = AUGMENTERS[name]
    fixed = {key: GREY for key in ("cval", "pad_cval") if key in signature(kind.__init__).parameters}
    try:
        if isinstance(given, dict) and not _is_augmenter(given):
            return kind(**fixed | {key: _argument(value) for key, value in given.items()})
        return kind(*[] if given is None else [_argument(given)], **fixed)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # imgaug raises assertions and any error of its arithmetic
        raise UserError(f"augment.imgaug: imgaug's {name} does not take {given!r}: {first_line(error)}") from None


def _argument(value: Any) -> Any:
    if isinstance(value, dict):
        return _built(value) if _is_augmenter(value) else {key: _argument(one) for key, one in value.items()}
    if isinstance(value, list):
        values = [_argument(one) for one in value]
        return tuple(values) if len(values) == 2 and all(isinstance(one, int | float) for one in values) else values
    return value


def _is_augmenter(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and str(*value)[:1].isupper()


def apply(augmenter: iaa.Augmenter, image: np.ndarray, patches: Sequence[Patch]) -> tuple[np.ndarray, list[Patch]]:
    """Augments an image (H, W, 3) uint8 and its masks with one draw of `augmenter`; the size stays.

    Patches keep their order and are trimmed to their new bounding boxes; one that left the image is empty.
    """
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 2), axis=-1).reshape(-1, 2)  # its corners are 0, 4 and 20
    points = (grid * (width, height)).astype(np.float32)
    try:
        augmented, keypoints = augmenter(image=image, keypoints=KeypointsOnImage.from_xy_array(points, image.shape))
    except MemoryError:
        raise
    except Exception as error:  # some arguments fail only once they are drawn
        raise UserError(f"augment.imgaug: imgaug fails on a picture: {first_line(error)}") from None
    if len(keypoints) != len(points):
        raise UserError("augment.imgaug: an augmenter drops keypoints, so masks cannot follow it; leave it out.")
    moved = keypoints.to_xy_array().astype(np.float32)
    corners = [0, 4, 20]
    matrix = cv2.getAffineTransform(points[corners], moved[corners])
    if augmented.shape != image.shape or np.abs(points @ matrix[:, :2].T + matrix[:, 2] - moved).max() > AFFINE:
        raise UserError(
            "augment.imgaug has an augmenter that changes the image size or is not affine, which masks cannot follow; "
            "use affine ones, such as Affine, Fliplr or Crop with keep_size."
        )
    return augmented, [_warp(patch, matrix, height, width).trimmed() for patch in patches]


def cut(
    image: np.ndarray, patches: Sequence[Patch], x: int, y: int, shape: tuple[int, int]
) -> tuple[np.ndarray, list[Patch]]:
    """Crops an image and its masks to (height, width) = `shape`, from column x and row y."""
    height, width = shape
    return image[y : y + height, x : x + width], [_cut(patch, x, y, height, width) for patch in patches]


def _cut(patch: Patch, x: int, y: int, height: int, width: int) -> Patch:
    left, top = max(0, x - patch.x), max(0, y - patch.y)
    bitmap = patch.bitmap[top : max(0, y + height - patch.y), left : max(0, x + width - patch.x)]
    if not bitmap.size:
        return EMPTY
    return Patch(patch.x + left - x, patch.y + top - y, np.ascontiguousarray(bitmap)).trimmed()


def paste(
    image: np.ndarray, patches: Sequence[Patch], other: np.ndarray, pasted: Sequence[Patch]
) -> tuple[np.ndarray, list[Patch]]:
    """Copy-paste (Ghiasi et al. 2021): instances `pasted` of the image `other`, at the same position in `image`.

    Returns the image and all patches: its own without the pixels that are now covered, then the pasted ones, clipped
    to the image.
    """
    _, pasted = cut(other, pasted, 0, 0, image.shape[:2])
    covered = np.zeros(image.shape[:2], np.uint8)
    for patch in pasted:
        x1, y1, x2, y2 = patch.box
        covered[y1:y2, x1:x2] |= patch.bitmap
    height, width = (min(a, b) for a, b in zip(image.shape[:2], other.shape[:2], strict=True))
    image = image.copy()
    np.copyto(image[:height, :width], other[:height, :width], where=covered[:height, :width, None] > 0)
    visible = []
    for patch in patches:
        x1, y1, x2, y2 = patch.box
        visible.append(patch._replace(bitmap=patch.bitmap & (1 - covered[y1:y2, x1:x2])).trimmed())
    return image, [*visible, *pasted]


def _warp(patch: Patch, matrix: np.ndarray, height: int, width: int) -> Patch:
    """`patch` warped by `matrix` (2, 3), which maps x, y measured from the image's corner, not from pixel centres."""
    if not patch.bitmap.size:  # of an instance that was cropped away, or too small for this image
        return EMPTY
    x1, y1, x2, y2 = patch.box
    corners = matrix @ np.array([[x1, x2, x1, x2], [y1, y1, y2, y2], [1, 1, 1, 1]])  # (2, 4)
    left, top = np.clip(np.floor(corners.min(1)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(1)), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return EMPTY
    centred = matrix.copy()  # between pixel indices of the two patches
    centred[:, 2] = matrix @ (x1 + 0.5, y1 + 0.5, 1) - (left + 0.5, top + 0.5)
    # Bilinear, then a threshold of one half: edges between two pixel centres stay there.
    bitmap = cv2.warpAffine(patch.bitmap * 255, centred, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return Patch(int(left), int(top), (bitmap > 127).astype(np.uint8))
