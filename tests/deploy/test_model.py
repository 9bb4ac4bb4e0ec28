"""`load`, what it gives for pictures of every kind of source, and the folder that `fashionseg predict` writes."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import fashionseg
from fashionseg import params
from fashionseg.__main__ import main
from fashionseg.core import documents, files, pictures
from fashionseg.core.errors import UserError
from fashionseg.deploy.model import Model, find
from fashionseg.deploy.result import Result


@pytest.fixture
def shop(tmp_path, image) -> Path:
    """A folder of two pictures; the second lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    (tmp_path / "shop").mkdir()
    Image.fromarray(image).save(tmp_path / "shop" / "a.png")
    Image.fromarray(np.rot90(image)).save(tmp_path / "shop" / "b.png", exif=exif)
    return tmp_path / "shop"


def same(found, expected):
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.masks, expected.masks)


def test_files_folders_globs_and_images_give_the_same(model, image, shop):
    (expected,) = model(image)
    for source in (str(shop / "a.png"), shop, str(shop / "*.png"), [shop / "a.png", image], [str(shop)]):
        results = model(source)
        assert len(results) == (1 if source == str(shop / "a.png") else 2)
        for result in results:  # the picture on its side, too
            same(result, expected)


def test_a_result_is_the_predictor_s_with_names(model, image):
    (result,) = model(image)
    instances = model.predictor(image)
    height, width = image.shape[:2]
    assert result.coco(7)[0] == {"image_id": 7, **instances[0], "area": int(result.masks[0].sum())}
    assert result.masks.shape == (len(result), height, width)
    assert result.names == [{40: "vest", 41: "cape"}[one["category_id"]] for one in instances]
    assert all(f"{result.names.count(name)} {name}" in result.summary() for name in result.names)
    x, y, w, h = instances[0]["bbox"]
    assert result.boxes[0].tolist() == [x, y, x + w, y + h]
    assert result.scores.tolist() == [one["score"] for one in instances]
    names = {7: "maxi", 9: "mini", 30: "striped"}
    for of_instance, one in zip(result.attributes, instances, strict=True):
        assert {names[i]: score for i, score in zip(one["attribute_ids"], one["attribute_scores"], strict=True)} == (
            of_instance
        )
        assert list(of_instance.values()) == sorted(of_instance.values(), reverse=True)
    assert any(result.attributes)


def test_thresholds_are_those_of_the_pipeline(model):
    """params.yaml's, without TTA; those of scores are the caller's."""
    asked = {"batch_size": 1, "score": 0.1, "attribute_score": 0.0, "flip": False, "scales": [1.0]}
    assert model.predictor.params == replace(params.load("predict").predict, **asked)


def test_attributes_of_one_name_keep_their_scores():
    labels = {
        "categories": [],
        "attributes": [{"id": 5, "name": "long"}, {"id": 6, "name": "long"}, {"id": 7, "name": "red"}],
    }
    found = {"attribute_ids": [5, 6, 7], "attribute_scores": [0.9, 0.6, 0.7]}
    (attributes,) = Result(Path("a.jpg"), (1, 1), [found], labels).attributes
    assert list(attributes.items()) == [("long (5)", 0.9), ("red", 0.7), ("long (6)", 0.6)]


def test_nothing_found_is_an_empty_result(model, image):
    result = model.result(image)
    object.__setattr__(result, "instances", [])
    assert (result.boxes.shape, result.masks.shape) == ((0, 4), (0, *image.shape[:2]))
    assert (result.names, result.attributes, result.coco(), result.summary()) == ([], [], [], "nothing")
    enlarged = cv2.resize(image, None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(result.draw(), enlarged)  # and nothing else


def test_scores_decide_what_is_found(trained, model, image):
    (all_of_them,) = model(image)
    middle = float(np.median(all_of_them.scores))
    strict = Model(trained, middle, 1.0)
    (few,) = strict(image)
    assert 0 < len(few) < len(all_of_them)
    assert few.scores.min() >= middle - 1e-6
    assert not any(few.attributes)
    for score in (-0.1, 50):
        with pytest.raises(UserError, match=rf"^score should be a number from 0 to 1, not {score}\.$"):
            fashionseg.load(trained, score=score)


def test_a_folder_is_drawn_and_told_as_coco(model, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)
    (shop / "c.jpg").write_bytes((shop / "a.png").read_bytes()[:200])
    (shop / "notes.txt").write_text("no picture")
    command = ["predict", "models", str(shop), str(shop / "none.png"), "--folder", str(tmp_path / "out")]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    for name in ("c.jpg", "none.png"):
        (line,) = [line for line in lines if line.startswith(f"{shop / name} is missing or not a valid image")]
        assert line.endswith("); get it again.")  # of no use to a photograph would be `dvc repro`
    assert f"{shop}: 1 others than pictures are passed over, the first 'notes.txt'" in lines
    assert "on 2 pictures, 2 unreadable ones left out" in lines[-1]
    assert str(tmp_path / "out" / "predictions.json") in lines[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0001_a.jpg",
        "0002_b.jpg",
        "predictions.json",
    ]
    (result,) = model(shop / "a.png")
    assert np.abs(pictures.read(tmp_path / "out" / "0001_a.jpg") - result.draw().astype(float)).mean() < 8  # JPEG

    documents.read(tmp_path / "out" / "predictions.json")  # of the form of a COCO document
    coco = COCO(tmp_path / "out" / "predictions.json")
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == [str(shop / "a.png"), str(shop / "b.png")]
    annotations = coco.loadAnns(coco.getAnnIds(1))
    for annotation, mask in zip(annotations, result.masks, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
    assert len(coco.loadRes(json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]).anns) == (
        len(coco.anns)
    )
    main([*command[:2], str(shop / "a.png"), *command[4:]])  # replaces it
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_two_at_once_do_not_share_a_folder(model, shop, tmp_path, monkeypatch):
    """Each removed what the other one wrote."""
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)
    with (
        files.locked(tmp_path / ".out.lock"),
        pytest.raises(UserError, match=r"another run holds .*out\.lock; wait for it or end it"),
    ):
        main(["predict", "models", str(shop / "a.png"), "--folder", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_no_picture_is_lost_by_predicting(model, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"shop exists and is of no earlier run; name another folder\.$"):
        main(["predict", "models", str(shop / "a.png"), "--folder", str(shop)])
    (shop / "predictions.json").touch()
    with pytest.raises(UserError, match=r"a\.png lies in .*shop, which is replaced; name another folder\.$"):
        main(["predict", "models", str(shop), "--folder", str(shop)])
    with pytest.raises(UserError, match=r"^none of 1 pictures can be read; nothing was written\.$"):
        main(["predict", "models", str(shop / "no.png"), "--folder", str(tmp_path / "new")])
    monkeypatch.chdir(shop)
    with pytest.raises(UserError, match=r"^\. would be replaced, and you are in it; name another folder\.$"):
        main(["predict", "models", str(shop / "a.png"), "--folder", "."])
    locks = [tmp_path / ".new.lock"]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, shop / "predictions.json", *locks])


def test_names_as_long_as_file_systems_take(model, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)
    for name in ("a" * 250, "\u3042" * 83):  # of 3 bytes each
        shutil.copy(shop / "a.png", shop / f"{name}.png")
        main(["predict", "models", str(shop / f"{name}.png"), "--folder", str(tmp_path / "out")])
        assert (tmp_path / "out" / f"0001_{name.encode()[:200].decode(errors='ignore')}.jpg").exists()
        assert COCO(tmp_path / "out" / "predictions.json").loadImgs([1])[0]["file_name"] == str(shop / f"{name}.png")


def test_what_cannot_be_drawn_is_named_and_the_others_go_on(model, shop, tmp_path, monkeypatch, capsys):
    """A JPEG has no side above 65,500 pixels, and a terminal may take no name that is not UTF-8."""
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)
    Image.new("1", (66_000, 1)).save(shop / "wide.png")
    (shop / os.fsdecode(b"\xff.png")).touch()
    main(["predict", "models", str(shop), "--folder", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{shop / 'wide.png'} cannot be drawn (") for line in lines)
    assert any("\\udcff.png is missing or not a valid image" in line for line in lines)
    assert "on 2 pictures, 2 unreadable ones left out" in lines[-1]


def test_sources_without_a_picture_are_named(tmp_path):
    for source in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(UserError, match=r"holds no picture; formats are \.avif, .*\.webp\.$"):
            find([source])
    (tmp_path / "a[1].png").touch()
    assert find([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]  # a file's name, and no glob
    assert find(["no.png"]) == [Path("no.png")]
    with pytest.raises(UserError, match="name is empty"):  # a variable that is not set, and not the folder one is in
        find(["no.png", ""])


def test_a_folder_without_a_network_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"has no trained network: mask_rcnn\.json is missing; train one, or copy one"):
        fashionseg.load(tmp_path)


def test_the_package_alone_imports_no_keras():
    """Worker processes import it."""
    code = "import sys, fashionseg; print([m for m in ('keras', 'tensorflow', 'jax', 'numpy') if m in sys.modules])"
    source = {**os.environ, "PYTHONPATH": str(Path(fashionseg.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=source, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_console_script_is_the_one_command():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["fashionseg"].partition(":")
    command = getattr(import_module(module), function)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fashionseg", "check", "no.csv", "no.json"])
        with pytest.raises(SystemExit, match=r"^error: no\.json is missing"):
            command()
