"""The only place that reads images: the same rules for bit depth, mode, orientation and errors in all formats."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from fashionseg.core import files, paths
from fashionseg.core.errors import UserError

IN_PLACE = "in_place.json"  # in data/raw: names the folder that holds train/ and test/
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2"}
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "JPEG2000", "PPM")  # of EPS Pillow starts Ghostscript

# By EXIF's tag. ImageOps.exif_transpose writes all tags anew, and fails where one is odd.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What to do about a picture that is damaged: one that a stage wrote, one of the user's.
ANEW, AGAIN = "run `dvc repro`, which writes it anew", "get it again"
EITHER = f"{ANEW}; one of your own: {AGAIN}"

# The competition's largest image has two thirds of this; Pillow refuses headers with more than twice as many pixels.
Image.MAX_IMAGE_PIXELS = 2**27
# Pillow refuses a PNG with more text, as some editors write; nothing is drawn from it.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26


def originals(raw: str | Path) -> Path:
    """The folder of train/ and test/: `raw` itself, or the local folder that it names.

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
    """The images in a folder by suffix, sorted; without folders, hidden files and broken links."""
    entries = sorted(Path(folder).iterdir())
    return [path for path in entries if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]


def below(folder: str | Path) -> list[Path]:
    """The images in a folder and all folders below it, linked ones, too, each folder once."""
    found, seen = [], set()
    for place, inner, _ in os.walk(folder, followlinks=True):
        inner.sort()
        if (real := os.path.realpath(place)) in seen:
            inner.clear()  # a link back to where it came from has no end
        else:
            seen.add(real)
            found += find(place)
    return found


def size(path: str | Path) -> tuple[int, int]:
    """(height, width) in stored pixel order, without decoding. Raises UserError as `read` does."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error, AGAIN) from None


def read(path: str | Path, side: int | None = None, upright: bool = False, remedy: str = ANEW) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB in stored pixel order: the EXIF orientation is ignored, as masks ignore it. upright:
    apply it, as viewers do, for photographs without masks.

    Of 16 bits the upper 8 are kept, as in OpenCV; alpha is dropped; of several frames the first is read. side: the long
    side that the image will be resized to; a JPEG may then be decoded at 1/2, 1/4 or 1/8 but not below twice `side`: as
    good, and 2 to 6 times as fast. Raises UserError, which ends in `remedy`, where the file is missing, damaged or no
    image, or has 32-bit pixels, whose range is unknown.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if side:
                height, width = fit(image.height, image.width, side)
                image.draft("RGB", (2 * width, 2 * height))
            if upright and (turn := TURNS.get(_orientation(image))) is not None:
                image = image.transpose(turn)
            if image.mode in ("I", "F"):
                raise ValueError("pixels of 32 bits, of unknown scale")
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            image.load()
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which copies in any case
    except Exception as error:
        raise _unreadable(path, error, remedy) from None


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF raises many kinds; the pixels are sound
        return None


def _unreadable(path: str | Path, error: Exception, remedy: str) -> UserError:
    """The UserError for any Exception: Pillow's decoders raise different ones, AVIF RuntimeError, PNG SyntaxError."""
    if isinstance(error, MemoryError):
        raise error  # which says nothing about the picture
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(f"{path} is missing or not a valid image ({reason}); {remedy}.")


def fit(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the long side at `side`, the aspect ratio kept to the nearest pixel."""
    long = max(height, width)
    return max(1, (2 * height * side + long) // (2 * long)), max(1, (2 * width * side + long) // (2 * long))


def resized(image: np.ndarray, side: int, whole: tuple[int, int] | None = None) -> np.ndarray:
    """Resizes an image (H, W, 3) uint8, up or down, so that its long side is `side`.

    whole: height and width that give the aspect ratio, where `image` was decoded at a smaller size.
    """
    height, width = fit(*(whole or image.shape[:2]), side)
    if (height, width) == image.shape[:2]:
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
