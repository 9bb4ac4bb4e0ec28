"""The only place that reads pictures: one rule for depth, mode, orientation and damage, whatever the format."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fashionseg.core import files, paths
from fashionseg.core.errors import UserError

IN_PLACE = "in_place.json"  # in data/raw: names the folder that holds train/ and test/
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2"))

# The competition's largest picture has two thirds of this; a header that tells twice as many pixels is damaged.
Image.MAX_IMAGE_PIXELS = 2**27


def originals(raw: str | Path) -> Path:
    """The folder of train/ and test/: `raw` itself, or what it names as read in place.

    Raises UserError where that folder is not on this machine.
    """
    place = Path(raw, IN_PLACE)
    if not place.exists():
        return Path(raw)
    folder = paths.of_user(files.read_json(place)["folder"])
    if not folder.is_dir():
        raise UserError(f"{folder}, whose pictures are read in place, is not there; set data.path to where they are.")
    return folder


def find(folder: str | Path) -> list[Path]:
    """The pictures of a folder by their names, sorted; folders, hidden files and links to nothing are none."""
    entries = sorted(Path(folder).iterdir())
    return [path for path in entries if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]


def below(folder: str | Path) -> list[Path]:
    """The pictures of a folder and of those in it, however deep."""
    folders = [Path(folder), *(path for path in sorted(Path(folder).rglob("*")) if path.is_dir())]
    return [picture for each in folders for picture in find(each)]


def size(path: str | Path) -> tuple[int, int]:
    """(height, width) in stored pixel order, without decoding. Raises UserError as `read` does."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from None


def read(path: str | Path, side: int | None = None, upright: bool = False) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB in stored pixel order: EXIF turns are ignored, as masks ignore them. `upright`:
    turned as EXIF says and as viewers show it, for a photograph that has no masks.

    Of 16 bits the upper 8 count, as OpenCV has it, alpha is left out, and of several pictures in a file the first is
    read. `side`: the long side at which it will be looked at; a JPEG may then be decoded at 1/2, 1/4 or 1/8, never
    below twice that: as good, and 2 to 6 times as fast. Raises UserError where the file is missing, damaged or no
    picture, or has pixels of 32 bits, whose scale it does not tell.
    """
    try:
        with Image.open(path) as image:
            if side:
                height, width = fit(image.height, image.width, side)
                image.draft("RGB", (2 * width, 2 * height))
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F"):
                raise ValueError("pixels of 32 bits, of unknown scale")
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: Exception) -> UserError:
    """Any Exception is one: each decoder of Pillow has its own, as AVIF RuntimeError and PNG SyntaxError."""
    if isinstance(error, MemoryError):
        raise error  # which says nothing about the picture
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(
        f"{path} is missing or no whole picture ({reason}); get it again, or run `dvc repro convert` if that wrote it."
    )


def fit(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the long side at `side` and the aspect kept to the nearest pixel."""
    long = max(height, width)
    return max(1, (2 * height * side + long) // (2 * long)), max(1, (2 * width * side + long) // (2 * long))


def resized(image: np.ndarray, side: int, whole: tuple[int, int] | None = None) -> np.ndarray:
    """A picture (H, W, 3) uint8 whose long side becomes `side`; small ones grow.

    `whole`: the height and width whose aspect it gets, where `image` was decoded smaller than it is.
    """
    height, width = fit(*(whole or image.shape[:2]), side)
    if (height, width) == image.shape[:2]:
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
