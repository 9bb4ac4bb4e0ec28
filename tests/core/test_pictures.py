"""One rule for every picture: depth, mode, orientation, damage, whatever the suffix says."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from fashionseg.core import pictures
from fashionseg.core.errors import UserError

RAMP = np.arange(120)[:, None] * np.ones((1, 100))  # 120 x 100, dark to light


def encoded(pixels: np.ndarray, form: str, mode: str | None = None, **options) -> bytes:
    file, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def colours() -> np.ndarray:
    return np.dstack([RAMP * 2, RAMP[::-1] * 2, RAMP + 60]).astype(np.uint8)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((40, 30), 64, (64, 48)),
        ((3, 1000), 64, (1, 64)),
        ((5214, 3676), 320, (320, 226)),
        ((3676, 5214), 320, (226, 320)),
        ((64, 64), 64, (64, 64)),
    ],
)
def test_fit(size, side, expected):
    assert pictures.fit(*size, side) == expected


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000"])
def test_of_16_bits_the_upper_8_count(tmp_path, form):
    """A grey ramp that ends at 59,500 is nearly white there, and nowhere before."""
    path = tmp_path / "grey.jpg"
    path.write_bytes(encoded((RAMP * 500).astype(np.uint16), form))
    expected = (RAMP * 500 // 256).astype(np.uint8)
    np.testing.assert_array_equal(pictures.read(path), np.dstack([expected] * 3))
    np.testing.assert_array_equal(pictures.read(path), cv2.imread(str(path)))


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {}),
        ("TIFF", "RGB", {}),
        ("BMP", "RGB", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"exif": turned()}),
        ("JPEG", "L", {}),
    ],
)
def test_pixels_as_opencv_reads_them_without_turning(tmp_path, form, mode, options):
    path = tmp_path / "picture"
    path.write_bytes(encoded(colours(), form, mode, **options))
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    found = pictures.read(path)
    assert (found.dtype, pictures.size(path)) == (np.uint8, (120, 100))
    np.testing.assert_array_equal(found, stored[..., ::-1])


def test_a_jpeg_is_decoded_smaller_and_gets_the_aspect_of_the_whole(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(cv2.resize(colours(), (367, 521)), "JPEG"))
    small = pictures.read(path, side=30)
    assert small.shape == (66, 46, 3)  # an eighth
    assert pictures.resized(small, 30, (521, 367)).shape == (30, 21, 3)
    assert pictures.resized(pictures.read(path), 30).shape == (30, 21, 3)
    assert pictures.resized(small, 66) is small


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["AVIF", "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000"])
def test_damage_is_one_error_and_no_other(tmp_path, form):
    """AVIF raises RuntimeError, PNG SyntaxError, others ValueError or OSError."""
    path, random = tmp_path / "picture.jpg", np.random.default_rng(0)
    whole = encoded(colours(), form)
    damaged = [bytearray(whole) for _ in range(40)]
    for number, content in enumerate(damaged):
        content[number if number < 25 else random.integers(len(content))] ^= 1 + random.integers(255)
    for content in (*damaged, whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        for look in (pictures.size, pictures.read):
            try:
                look(path)
            except UserError as error:
                refused = str(error)
    assert refused.startswith(f"{path} is missing or not a valid image (cannot identify")


def test_a_header_of_absurd_size_is_damage_and_no_lack_of_memory(tmp_path, monkeypatch):
    content = bytearray(encoded(colours(), "BMP"))
    content[18:26] = (2**30 - 1).to_bytes(4, "little") + (2**20).to_bytes(4, "little")  # width, height
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"not a valid image .*exceeds limit"):
        pictures.read(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "open", lambda path, formats: np.ones((1 << 60,), np.uint8))
    with pytest.raises(MemoryError):
        pictures.read(tmp_path / "a.jpg")


@pytest.mark.parametrize("pixels", [RAMP.astype(np.float32), RAMP.astype(np.int32)])
def test_pixels_of_32_bits_are_refused(tmp_path, pixels):
    (tmp_path / "a.tif").write_bytes(encoded(pixels, "TIFF"))
    with pytest.raises(UserError, match="32 bits, of unknown scale"):
        pictures.read(tmp_path / "a.tif")


def test_pictures_are_found_by_any_suffix_and_nothing_else_is(tmp_path):
    names = ["a.jpg", "b.JPG", "c.jpeg", "d.Png", "e.webp"]
    for name in (*names, "Thumbs.db", ".DS_Store", "._a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "gone.jpg").symlink_to("moved/gone.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    assert [path.name for path in pictures.find(tmp_path)] == [*names, "link.jpg"]


def test_folders_behind_links_are_looked_through_once(tmp_path):
    (tmp_path / "elsewhere/inner").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    for name in ("elsewhere/b.jpg", "elsewhere/inner/c.jpg", "project/a.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "project/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/inner/back").symlink_to(tmp_path / "project")
    found = [str(path.relative_to(tmp_path / "project")) for path in pictures.below(tmp_path / "project")]
    assert found == ["a.jpg", "images/b.jpg", "images/inner/c.jpg"]


def test_only_pictures_of_cameras_and_the_web_are_opened(tmp_path, monkeypatch):
    """Of EPS Pillow would run Ghostscript, whatever the suffix."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    Image.fromarray(colours()).save(tmp_path / "a.jpg", "EPS")
    with pytest.raises(UserError, match="not a valid image"):
        pictures.read(tmp_path / "a.jpg")


def test_an_odd_exif_tag_does_not_keep_a_picture_from_being_turned(tmp_path):
    orientation, text = struct.pack("<HHIHxx", 0x0112, 3, 1, 6), struct.pack("<HHI4s", 0x011A, 2, 4, b"72")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + text + bytes(4)  # XResolution as text
    (tmp_path / "a.jpg").write_bytes(encoded(colours(), "JPEG", exif=exif))
    height, width, _ = colours().shape
    assert pictures.read(tmp_path / "a.jpg", upright=True).shape == (width, height, 3)


def test_damaged_exif_turns_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(colours(), "PNG", exif=b"JUNKJUNKJUNK"))
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png", upright=True), colours())


def test_a_png_with_much_text_is_a_picture(tmp_path):
    """As XMP of some editors; Pillow refuses more than 1 MB of it by default."""
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 2**21, zip=True)
    (tmp_path / "a.png").write_bytes(encoded(colours(), "PNG", pnginfo=text))
    assert pictures.size(tmp_path / "a.png") == colours().shape[:2]
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png"), colours())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_upright_is_as_viewers_show_it(tmp_path, form, orientation):
    """OpenCV's viewer and reader turn a picture as its EXIF says."""
    exif, path = Image.Exif(), tmp_path / f"a.{form.lower()}"
    exif[0x0112] = orientation
    path.write_bytes(encoded(colours(), form, exif=exif))
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    found = pictures.read(path, upright=True)
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).max() <= 3  # two decoders of JPEG
    assert pictures.read(path).shape == colours().shape
