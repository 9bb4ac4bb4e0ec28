"""Pictures against Pillow and OpenCV at full size; a killed run loses nothing and keeps nothing that is wrong."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import joblib
import numpy as np
import pytest
from PIL import Image

from competition_folder import dropped
from fashionseg.convert import coco, resizing, split
from fashionseg.convert.competition import Competition, read
from fashionseg.core import cluster, pictures
from fashionseg.core.errors import UserError
from fashionseg.core.pictures import fit


def resized(competition: Competition, folder: Path, side: int, workers: int = 1) -> Competition:
    """Resizes into `folder`/images."""
    with resizing.resizing(competition, folder / "images", side, workers) as left:
        return left


def drawn(height: int, width: int) -> Image.Image:
    """Different in every corner and channel, with waves that a picture of a tenth of the size can just show."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = 42 * (1 + np.sin(200 * (x + y)))[..., None] if height > 128 else 0
    return Image.fromarray((170 * np.stack([x, y, (x + y) / 2], axis=2) + waves).astype(np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "mode", "form", "exif"),
    [
        (1200, 900, "RGB", "JPEG", None),
        (301, 999, "RGB", "JPEG", None),
        (1200, 900, "RGB", "JPEG", 6),  # turned by EXIF: not by us
        (1200, 900, "L", "JPEG", None),
        (1200, 900, "CMYK", "JPEG", None),
        (1200, 900, "RGB", "PNG", None),
        (1200, 900, "RGBA", "PNG", None),
        (1200, 900, "P", "PNG", None),
        (50, 40, "RGB", "JPEG", None),  # grows
    ],
)
def test_pictures_are_resized(folder, tmp_path, height, width, mode, form, exif):
    options = {}
    if exif:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = exif
    path = folder.path / "train/picture.jpg"
    drawn(height, width).convert(mode).save(path, form, **options)
    competition = read(folder.path)
    assert dropped(resized(competition, tmp_path, 128)) == {}
    with Image.open(tmp_path / "images/train/picture.jpg") as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert max(image.size) == 128
        assert image.size == fit(height, width, 128)[::-1]
        found = np.asarray(image)
    with Image.open(path) as image:
        whole = np.asarray(image.convert("RGB"))
    expected = cv2.resize(whole, found.shape[1::-1], interpolation=cv2.INTER_AREA if height > 128 else cv2.INTER_CUBIC)
    assert np.abs(found.astype(int) - expected).mean() < (8 if mode == "P" else 4)


def test_all_pictures_in_processes(folder, tmp_path):
    competition = read(folder.path)
    resized(competition, tmp_path, 64, workers=2)
    names = sorted(str(path.relative_to(tmp_path / "images")) for path in (tmp_path / "images").rglob("*.jpg"))
    assert names == ["test/a.jpg", "test/b.jpg", *(f"train/image{number:03}.jpg" for number in range(30))]
    assert [path.name for path in tmp_path.iterdir()] == ["competition", "images"]


def test_a_dask_cluster_writes_the_same(folder, tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is optional: `uv pip install distributed`")
    competition = read(folder.path)
    resized(competition, tmp_path / "loky", 64)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as started, cluster.joined(started.scheduler_address):
        resized(competition, tmp_path / "dask", 64)
        (folder.path / "test/a.jpg").write_bytes(b"cut")
        with pytest.raises(UserError, match=r"test/a\.jpg is damaged or no picture"):
            resized(competition, tmp_path / "dask", 32)
        done = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))
    assert os.getpid() not in done
    assert contents(tmp_path / "dask/images") == contents(tmp_path / "loky/images")
    assert len(contents(tmp_path / "dask/images")) == 32


def test_other_suffixes_keep_their_names(folder, tmp_path):
    for name in ("train/image000", "test/a"):
        (folder.path / f"{name}.jpg").rename(folder.path / f"{name}.PNG")
    left = resized(read(folder.path), tmp_path, 64)
    documents = coco.documents(left, split.assign(left, 5, 0, 0))
    named = [image["file_name"] for document in documents.values() for image in document["images"]]
    assert {"train/image000.PNG", "test/a.PNG"} < set(named)
    for folder_of_pictures in (folder.path, tmp_path / "images"):
        assert sorted(named) == sorted(f"{p.parent.name}/{p.name}" for p in folder_of_pictures.glob("t*/*"))


def test_damage_that_raises_unusual_errors_is_dropped_and_counted(folder, tmp_path):
    """The decoder of AVIF, which sites hand out under any name, raises RuntimeError, early or late."""
    path = folder.picture("train/image004.jpg", format="AVIF")
    whole, contents = path.read_bytes(), {}
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        for step in (Image.open, lambda file: Image.open(file).load()):
            try:
                step(path)
            except RuntimeError:
                contents.setdefault(step is Image.open, path.read_bytes())
                break
            except OSError:
                break
    for early, reason in ((True, "picture is missing or has no readable header"), (False, "picture cannot be decoded")):
        path.write_bytes(contents[early])
        assert dropped(resized(read(folder.path), tmp_path, 64))[reason] == 1


def test_grey_of_16_bits_stays_grey(folder, tmp_path):
    ramp = (np.arange(40)[:, None] * np.full((1, 30), 1600)).astype(np.uint16)
    Image.fromarray(ramp).save(folder.path / "train/image000.jpg", "PNG")
    assert dropped(resized(read(folder.path), tmp_path, 64)) == {}
    with Image.open(tmp_path / "images/train/image000.jpg") as image:
        shown = np.asarray(image.convert("L"))
    assert 20 < np.median(shown) < 200


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_cut_training_picture_is_dropped(folder, tmp_path, form):
    path = folder.picture("train/image004.jpg", format=form)
    path.write_bytes(path.read_bytes()[:-600])
    left = resized(read(folder.path), tmp_path, 64)
    assert dropped(left) == {"row of a picture that cannot be decoded": 2, "picture cannot be decoded": 1}
    assert not (tmp_path / "images/train/image004.jpg").exists()
    assert "image004" not in left.train_images
    assigned = split.assign(read(folder.path), 5, 0, 0)  # made before the picture was decoded
    documents = coco.documents(left, assigned)
    assert sum(len(document["annotations"]) for document in documents.values()) == 58
    assert "image004" not in json.dumps(documents)


def test_a_cut_test_picture_and_many_cut_ones_leave_no_folder(folder, tmp_path):
    path = folder.path / "test/a.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-600])
    with pytest.raises(UserError, match=r"test/a\.jpg is damaged or no picture"):
        resized(read(folder.path), tmp_path, 64)
    path.write_bytes(whole)
    for name in ("image001", "image002"):
        path = folder.path / f"train/{name}.jpg"
        path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"2 of 30 pictures .*image001\.jpg"):
        resized(read(folder.path), tmp_path, 64)
    assert not (tmp_path / "images").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def killed(folder: Path, target: Path, after: int):
    """Resizes until it is killed in the midst of a file."""
    save, saved = Image.Image.save, []

    def save_or_die(picture, path, **options):
        saved.append(path)
        if len(saved) > after:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(picture, path, **options)

    Image.Image.save = save_or_die
    resized(read(folder), target, 64)


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """Where one killed run is kept for all tests: to start a process takes seconds."""
    return tmp_path_factory.mktemp("left")


@pytest.fixture
def interrupted(folder, tmp_path, left):
    """A folder where 20 of 32 pictures of `folder` were resized to 64 pixels and the next was half written."""
    if not (left / "target").exists():
        shutil.copytree(folder.path, left / "competition")
        arguments = left / "competition", left / "target", 20
        process = multiprocessing.get_context("spawn").Process(target=killed, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)  # with the times of the pictures
    return tmp_path / "target"


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Names of the pictures that are resized from here on."""
    names, resize = [], resizing._resize

    def counted(source, *rest):
        names.append(f"{source.parent.name}/{source.name}")
        return resize(source, *rest)

    monkeypatch.setattr(resizing, "_resize", counted)
    return names


def test_a_killed_run_goes_on_where_it_was(folder, interrupted, made, capsys):
    assert not (interrupted / "images").exists()
    resized(read(folder.path), interrupted, 64)
    assert len(made) == 12
    assert "20 of 32 pictures are taken over from " in capsys.readouterr().out
    resized(read(folder.path), interrupted / "undisturbed", 64)
    assert contents(interrupted / "images") == contents(interrupted / "undisturbed/images")
    assert len(contents(interrupted / "images")) == 32
    assert {path.name for path in interrupted.iterdir()} == {"images", "undisturbed"}


def test_what_another_side_left_is_not_taken(folder, interrupted, made):
    resized(read(folder.path), interrupted, 32)
    assert len(made) == 32
    assert {Image.open(path).width for path in (interrupted / "images/test").iterdir()} == {32}
    assert not (interrupted / ".images.unfinished").exists()


def test_what_another_source_left_is_not_taken(folder, interrupted, made):
    first, second, third = (folder.path / f"train/image{number:03}.jpg" for number in range(3))
    times = second.stat().st_mtime_ns
    os.utime(first, ns=(0, 0))
    folder.picture("train/image001.jpg", seed=99)
    os.utime(second, ns=(times, times))  # of another size alone
    assert second.stat().st_size != third.stat().st_size
    resized(read(folder.path), interrupted, 64)
    assert {"train/image000.jpg", "train/image001.jpg"} < set(made)
    assert "train/image002.jpg" not in made
    assert len(made) == 14


def test_a_failure_after_the_resizing_keeps_the_pictures(folder, tmp_path, made):
    with pytest.raises(RuntimeError), resizing.resizing(read(folder.path), tmp_path / "images", 64, 1):
        raise RuntimeError
    assert not (tmp_path / "images").exists()
    assert len(made) == 32
    resized(read(folder.path), tmp_path, 64)
    assert len(made) == 32


def test_two_at_once_are_refused(folder, tmp_path):
    with (
        resizing.resizing(read(folder.path), tmp_path / "images", 64, 1),
        pytest.raises(UserError, match="another run holds"),
    ):
        resized(read(folder.path), tmp_path, 64)


@pytest.mark.parametrize("module", [resizing, pictures], ids=["resizing", "pictures"])
def test_what_other_code_left_is_not_taken(folder, interrupted, made, monkeypatch, module):
    other = interrupted / "other.py"
    other.write_bytes(Path(module.__file__).read_bytes() + b"QUALITY = 60\n")
    monkeypatch.setattr(module, "__file__", str(other))
    resized(read(folder.path), interrupted, 64)
    assert len(made) == 32


def test_pictures_of_one_size_and_time_are_told_apart(folder, tmp_path):
    """As out of an archive, whose times are whole seconds."""
    for name in ("image000", "image001"):
        path = folder.path / f"train/{name}.jpg"
        shutil.copy(folder.path / "train/image002.jpg", path)
        os.utime(path, (0, 0))
    resized(read(folder.path), tmp_path, 64, workers=0)
    assert len(contents(tmp_path / "images")) == 32


def test_pictures_are_saved_well(folder, tmp_path):
    resized(read(folder.path), tmp_path, 64)
    with Image.open(tmp_path / "images/test/a.jpg") as image:
        assert max(image.quantization[0]) < 20  # of 255
