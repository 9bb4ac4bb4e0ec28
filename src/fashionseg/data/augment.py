"""What changes a training picture and its masks alike: imgaug's augmenters, instances pasted from another picture.

imgaug draws the random numbers and moves the picture. Masks do not go through it: a few points do, these give the
affine map that was drawn, and every mask is warped within its own box, twice as fast in all as a stack of masks as
imgaug's segmentation map (benchmarks/batches.py). So augmenters may move pictures by affine maps only.
"""

import difflib
from collections.abc import Sequence
from inspect import isclass, signature
from typing import Any, NamedTuple

import cv2
import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables import KeypointsOnImage

from fashionseg.core.errors import UserError

GREY = 127  # what lies beyond the picture, here and in the padding of a batch
AUGMENTERS = {
    name: kind
    for name, kind in vars(iaa).items()
    if isclass(kind) and issubclass(kind, iaa.Augmenter) and name[0] != "_"
}
AFFINE = 0.5  # pixels that a point may be away from where three corners send it


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


EMPTY = Patch(0, 0, np.zeros((1, 1), np.uint8))


def policy(steps: Sequence[dict[str, Any]], seed: int) -> iaa.Augmenter | None:
    """imgaug's augmenters one after the other, as params `augment.imgaug` names them, with this seed; None for none.

    One a sample, as drawing changes its state. Each of `steps` is {name: arguments}: a mapping by keyword, else the
    first argument. Of the arguments a mapping or a list of such is augmenters again where its name begins with a
    capital; two numbers are a range, more are a choice. What is uncovered becomes GREY. Raises UserError for what
    imgaug does not know.
    """
    if not steps:
        return None
    augmenter = iaa.Sequential([_built(step) for step in steps])
    augmenter.seed_(seed)
    return augmenter


def _built(step: Any) -> iaa.Augmenter:
    if not isinstance(step, dict) or len(step) != 1:
        raise UserError(f"augment.imgaug: {step!r} should be one augmenter, as in {{Fliplr: 0.5}}.")
    ((name, given),) = step.items()
    if name not in AUGMENTERS:
        names = {known.lower(): known for known in AUGMENTERS}
        nearest = names[difflib.get_close_matches(str(name).lower(), names, 1, cutoff=0)[0]]
        raise UserError(f"augment.imgaug: {name!r} is no augmenter of imgaug; the nearest is {nearest}.")
    kind = AUGMENTERS[name]
    fixed = {"cval": GREY} if "cval" in signature(kind.__init__).parameters else {}
    try:
        if isinstance(given, dict) and not _is_augmenter(given):
            return kind(**fixed | {key: _argument(value) for key, value in given.items()})
        return kind(*[] if given is None else [_argument(given)], **fixed)
    except UserError:
        raise
    except Exception as error:  # imgaug checks by assertions and whatever its arithmetic raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"augment.imgaug: imgaug's {name} does not take {given!r}: {reason}") from None


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
    """Moves a picture (H, W, 3) uint8 and its masks by one drawing of `augmenter`, canvas unchanged.

    Each patch comes back in its place, trimmed to its new bounding box; what left the picture has no pixel.
    """
    height, width = image.shape[:2]
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 2), axis=-1).reshape(-1, 2)  # its corners are 0, 4 and 20
    points = (grid * (width, height)).astype(np.float32)
    moved, found = augmenter(image=image, keypoints=KeypointsOnImage.from_xy_array(points, image.shape))
    found = found.to_xy_array().astype(np.float32)
    corners = [0, 4, 20]
    matrix = cv2.getAffineTransform(points[corners], found[corners])
    if moved.shape != image.shape or np.abs(points @ matrix[:, :2].T + matrix[:, 2] - found).max() > AFFINE:
        raise UserError(
            "augment.imgaug has an augmenter that changes a picture's size or bends it, where masks cannot follow; "
            "what moves pictures should do so by an affine map, as Affine, Fliplr or Crop with keep_size."
        )
    return moved, [_warp(patch, matrix, height, width).trimmed() for patch in patches]


def cut(
    image: np.ndarray, patches: Sequence[Patch], x: int, y: int, shape: tuple[int, int]
) -> tuple[np.ndarray, list[Patch]]:
    """The part (height, width) = `shape` of a picture and its masks whose first pixel is column x, row y."""
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
    """Copy-paste (Ghiasi et al. 2021): instances `pasted` of the picture `other` at their places upon a picture.

    Returns the picture and all patches, first its own, of which what lies below is taken away, then the pasted ones,
    of which what is beyond the picture is.
    """
    _, pasted = cut(other, pasted, 0, 0, image.shape[:2])
    above = np.zeros(image.shape[:2], np.uint8)
    for patch in pasted:
        x1, y1, x2, y2 = patch.box
        above[y1:y2, x1:x2] |= patch.bitmap
    height, width = (min(a, b) for a, b in zip(image.shape[:2], other.shape[:2], strict=True))
    image = image.copy()
    np.copyto(image[:height, :width], other[:height, :width], where=above[:height, :width, None] > 0)
    seen = []
    for patch in patches:
        x1, y1, x2, y2 = patch.box
        seen.append(patch._replace(bitmap=patch.bitmap & (1 - above[y1:y2, x1:x2])).trimmed())
    return image, [*seen, *pasted]


def _warp(patch: Patch, matrix: np.ndarray, height: int, width: int) -> Patch:
    """`patch` moved by `matrix` (2, 3), which maps x, y measured from the picture's corner, not from pixel centres."""
    x1, y1, x2, y2 = patch.box
    reach = matrix @ np.array([[x1, x2, x1, x2], [y1, y1, y2, y2], [1, 1, 1, 1]])
    left, top = np.clip(np.floor(reach.min(1)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(reach.max(1)), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return EMPTY
    centred = matrix.copy()  # from index to index: of pixel centres, within the patches
    centred[:, 2] = matrix @ (x1 + 0.5, y1 + 0.5, 1) - (left + 0.5, top + 0.5)
    # Edges halfway between two pixel centres stay edges: linear, then half.
    bitmap = cv2.warpAffine(patch.bitmap * 255, centred, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return Patch(int(left), int(top), (bitmap > 127).astype(np.uint8))
