"""Copies of a picture are found, other pictures are not taken for them."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fashionseg.convert import duplicates
from fashionseg.convert.competition import read

CCP = Path(__file__).parents[2] / ".." / "shared" / "data" / "ccp"


def scene(seed: int) -> Image.Image:
    """Smooth patches of colour, 400 x 300."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 9, 3)).astype(np.uint8)
    return Image.fromarray(cv2.resize(noise, (300, 400), interpolation=cv2.INTER_CUBIC))


def again(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.resize((150, 200)).save(file, "JPEG", quality=50)
    return Image.open(file)


COPIES = {
    "saved anew": again,
    "stretched": lambda image: image.resize((300, 412)),
    "cut": lambda image: image.crop((4, 6, 296, 394)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L"),
}


def written(folder: Path, pictures: dict[str, Image.Image]) -> dict[str, Path]:
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in pictures}


def test_a_copy_is_of_the_group_of_its_original(tmp_path):
    originals = {str(number): scene(number) for number in range(8)}
    copies = {name: change(originals[str(number)]) for number, (name, change) in enumerate(COPIES.items())}
    paths = written(tmp_path, {**originals, **copies})
    expected = {name: str(number) for number, name in enumerate(COPIES)}
    assert duplicates.groups(paths, 2) == {**{name: name for name in originals}, **expected}


def test_a_group_reaches_over_those_between_and_what_is_broken_is_in_none(tmp_path):
    pictures = {f"{cut}": scene(0).crop((0, 0, 300 - 7 * cut, 400)) for cut in range(6)}
    paths = written(tmp_path, {**pictures, "x": scene(1)})
    ends = duplicates.groups({name: paths[name] for name in ("0", "5")}, 1)
    assert ends == {"0": "0", "5": "5"}
    paths["x"].write_bytes(b"")
    assert duplicates.groups(paths, 1) == dict.fromkeys("012345", "0")
    assert duplicates.groups({"x": paths["x"]}, 1) == {}


def test_a_long_row_of_near_pictures_is_not_one_group(tmp_path):
    """As garments in the middle of a white background: each looks like some others."""
    paths = written(tmp_path, {f"{cut:02}": scene(0).crop((0, 0, 300 - 7 * cut, 400)) for cut in range(16)})
    assert len(set(duplicates.groups(dict(list(paths.items())[: duplicates.ROW]), 1).values())) == 1
    groups = duplicates.groups(paths, 1)
    assert len(groups) == 16
    assert 1 < len(set(groups.values())) < 8
    bits = {name: duplicates._hash(path) for name, path in paths.items()}
    assert all((bits[name] != bits[first]).sum() <= duplicates.NEAR for name, first in groups.items())


@pytest.mark.skipif(not CCP.is_dir(), reason="shared data ccp is not here")
def test_real_photographs():
    """Three of the 700 are there twice, as one sees when one looks at them."""
    images = read(CCP).train_images
    groups = duplicates.groups(images, 2)
    copies = {name[:6]: first[:6] for name, first in groups.items() if name != first}
    assert copies == {"9dc57a": "791ddd", "a8a4ea": "7dc520", "d2d23f": "c8dd33"}


def test_a_long_row_takes_no_other_picture_with_it(tmp_path):
    """What the row falls into is numbered apart from the groups before and after it."""
    row = {f"{cut:02}": scene(0).crop((0, 0, 300 - 7 * cut, 400)) for cut in range(16)}
    others = {f"x{seed}": scene(seed) for seed in range(1, 9)}
    paths = written(tmp_path, {**row, **others})
    found = duplicates.groups(paths, 1)
    assert {name: found[name] for name in others} == {name: name for name in others}


def test_the_first_is_by_name_and_without_workers(tmp_path):
    paths = written(tmp_path, {"b": scene(0), "a": scene(0)})
    assert duplicates.groups(paths, 0) == {"a": "a", "b": "a"}
