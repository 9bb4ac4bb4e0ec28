"""What a training was made by, and what of it goes on, is kept or removed."""

import hashlib
import runpy
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import pytest
import yaml
from small import CATEGORIES, TinyBatches, assert_alike, config, history, train

from fashionseg.convert.config import Images
from fashionseg.core import digests, files, stage
from fashionseg.core.errors import UserError
from fashionseg.data.config import Augment
from fashionseg.model.weights import saved
from fashionseg.train import loop, provenance, trainer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(keras.backend.backend() == "jax", reason="files, the same on both backends")


@pytest.fixture(scope="module", autouse=True)
def without_graphs():
    """To build one takes seconds, and a step of so small a network none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_steps", lambda model, **options: model.compile(**options, run_eagerly=True))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder)
    return folder


@pytest.mark.parametrize(("module", "name"), [(saved, "save"), (stage, "check")], ids=["killed", "params changed"])
def test_a_training_that_was_done_and_not_recorded_only_writes_its_outs(
    tmp_path, undisturbed, monkeypatch, module, name
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, lambda *args, **_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path)
    monkeypatch.setattr(keras.Model, "fit", None)
    train(tmp_path)
    assert_alike(tmp_path, undisturbed)
    assert not [*(tmp_path / "checkpoints").iterdir()]


@pytest.fixture
def under_dvc(tmp_path, monkeypatch):
    """As DVC runs the stage `train` in tmp_path; gives a function that writes dvc.lock as it does after the stage."""
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(stage, "check", lambda: None)  # of code and params, which are not here

    def records(outs):
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": outs}, "other": {}}}))

    return records


def epochs_of(monkeypatch):
    """Counts the epochs that are trained from now on."""
    trained, run = [], keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: trained.append(1) or run(*args, **kwargs))
    return trained


@pytest.mark.parametrize("before", [None, "an earlier training"])
def test_a_training_is_not_done_again_until_dvc_has_recorded_it(tmp_path, undisturbed, under_dvc, monkeypatch, before):
    """DVC may be killed while it looks at the outs, and then removes them at the next `dvc repro`. Once it knows them
    the stage only runs again as with `dvc repro -f`: afresh."""
    if before:
        under_dvc(before)
    train(tmp_path)
    (folder,) = (tmp_path / "checkpoints").iterdir()
    trained = epochs_of(monkeypatch)
    for _ in range(2):
        shutil.rmtree(tmp_path / "models")
        train(tmp_path)
        assert_alike(tmp_path, undisturbed)
    assert not trained
    under_dvc("this training")
    train(tmp_path)
    assert trained
    assert [path.name for path in folder.iterdir() if path.name.startswith("epoch")]
    assert_alike(tmp_path, undisturbed)


def test_the_next_training_removes_what_dvc_has_recorded(tmp_path, under_dvc, capsys):
    train(tmp_path)
    (first,) = (tmp_path / "checkpoints").iterdir()
    train(tmp_path, config(epochs=1))
    assert f"checkpoints/{first.name}, differs in train.epochs" in capsys.readouterr().out
    under_dvc("both")
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 2
    (tmp_path / "checkpoints" / ".0123.removed").mkdir()  # of a kill while one was removed
    train(tmp_path, config(epochs=1, seed=5))
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 1
    assert "differs" not in capsys.readouterr().out


def test_what_dvc_has_in_its_cache_is_recorded_although_dvc_lock_is_back(tmp_path, undisturbed, under_dvc, monkeypatch):
    """`git checkout dvc.lock` between two experiments."""
    train(tmp_path)
    md5 = hashlib.md5((tmp_path / "models/mask_rcnn.weights.h5").read_bytes()).hexdigest()
    files.write_text(tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:], "")
    trained = epochs_of(monkeypatch)
    train(tmp_path)
    assert trained
    assert_alike(tmp_path, undisturbed)


def test_a_queued_training_goes_on_in_the_next_checkout(tmp_path, undisturbed, monkeypatch, under_dvc):
    """DVC removes the checkout of a queued or --temp experiment that fails: checkpoints are kept in the project."""
    monkeypatch.setattr(sys, "argv", ["stages/train.py"])
    given = []
    monkeypatch.setattr(trainer, "train", lambda config, *args, checkpoints, **kwargs: given.append(checkpoints))
    for name in ("tmpabc", "tmpdef"):
        checkout = tmp_path / ".dvc/tmp/exps" / name
        checkout.mkdir(parents=True)
        shutil.copy(ROOT / "params.yaml", checkout)
        with monkeypatch.context() as patch:
            patch.chdir(checkout)
            runpy.run_path(str(ROOT / "stages" / "train.py"))["main"](*"tvrimx")
            assert stage.record() is None
    monkeypatch.chdir(tmp_path)
    assert given == [tmp_path / "checkpoints"] * 2
    assert isinstance(stage.record(), str)


def fingerprint(settings, *documents):
    return provenance.fingerprint(provenance.made_by(settings, "images", *documents))


def test_other_params_data_code_or_backend_begin_afresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.json", "val.json", "other.json"):
        files.write_json(tmp_path / name, {"categories": CATEGORIES, "images": [name]})
    documents = tmp_path / "train.json", tmp_path / "val.json"
    same = fingerprint(config(), *documents)
    others = [
        fingerprint(config(seed=4), *documents),
        fingerprint(config(epochs=4), *documents),
        fingerprint(config(weight_decay=2e-3), *documents),
        fingerprint(config(resume="checkpoints/a"), *documents),  # what it went on from is in its weights
        fingerprint(config(), tmp_path / "other.json", documents[1]),
    ]
    assert fingerprint(config(workers=5), *documents) == same
    for name, text in (("train/a.jpg", "one"), ("train/a.jpg", "three"), ("train/b.jpg", "one")):
        files.write_text(tmp_path / "images" / name, text)
        others.append(fingerprint(config(), *documents))
    files.remove(tmp_path / "images")
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "another")
        others.append(fingerprint(config(), *documents))
    for package in provenance.CODE:
        copy = tmp_path / package
        shutil.copytree(ROOT / "src" / "fashionseg", copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(digests, "PACKAGE", copy)
        assert fingerprint(config(), *documents) == same
        with next((copy / package).glob("[a-z]*.py")).open("a") as file:
            file.write("repaired = True\n")
        others.append(fingerprint(config(), *documents))
    assert len({same, *others}) == 1 + len(others)


def test_the_code_of_a_training_is_what_its_stage_depends_on():
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["deps"]
    assert {dep for dep in deps if dep.startswith("src/")} == {f"src/fashionseg/{name}" for name in provenance.CODE}


@pytest.mark.parametrize("key", ["weights", "backbone"])
def test_another_file_of_the_same_name_begins_afresh(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    files.write_json("train.json", {})
    name = {"weights": "coco.pth", "backbone": "preset"}[key]
    content = Path(name) if key == "weights" else Path(name, "config.json")
    settings = config()
    settings.model = replace(settings.model, **{key: name})
    found = []
    for text in ("one", "two"):
        files.write_text(content, text)
        found.append(fingerprint(settings, "train.json"))
    assert found[0] != found[1]


def test_other_pictures_network_or_augmentation_begin_afresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_json("train.json", {})
    found = {fingerprint(config(), "train.json")}
    for name, value in (
        ("images", Images(96)),
        ("model", replace(config().model, detections=9)),
        ("augment", Augment([], [1.0, 1.0], 0.0)),
    ):
        other = config()
        setattr(other, name, value)
        found.add(fingerprint(other, "train.json"))
    assert len(found) == 4


def test_a_training_goes_on_under_other_code_where_it_is_told_to(tmp_path, monkeypatch, capsys):
    """As after a repair of the code that a user knows to change nothing; it says what is different."""

    def killed(shuffle=False, **kwargs):
        return TinyBatches(shift={(1, 2): float("nan")} if shuffle else None, **kwargs)

    with pytest.raises(UserError, match="epoch 2"):
        train(tmp_path, batches=killed)
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0001-step-000002")
    copy = tmp_path / "fashionseg"
    shutil.copytree(ROOT / "src" / "fashionseg", copy, ignore=shutil.ignore_patterns("__pycache__"))
    files.write_text(copy / "model" / "losses.py", "repaired = True")
    monkeypatch.setattr(digests, "PACKAGE", copy)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "fit", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path)
    name = old.parent.relative_to(tmp_path)
    assert f"{name}, differs in model/losses.py\n" in capsys.readouterr().out
    train(tmp_path, config(resume=str(name), weight_decay=1e-4))
    out = capsys.readouterr().out
    differs = "which differs in train.weight_decay (0.001, now 0.0001), model/loss"
    assert f"going on from {name}/epoch-0001-step-000002, {differs}" in out
    assert "resuming after epoch 1 of 3 and 2 of 4 steps from" in out
    assert history(tmp_path)["eval/loss"].index.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"train\.resume is .*none, which holds no checkpoint; name a folder"):
        train(tmp_path, config(resume="checkpoints/none", seed=9))


@pytest.mark.parametrize("changed", ["weight_decay", "validate_epochs", "validate_images", "val.json", "images"])
def test_the_best_so_far_counts_where_ap_is_of_the_same(tmp_path, capsys, changed):
    """In a training that goes on from another one by train.resume."""

    def killed(shuffle=False, **kwargs):
        return TinyBatches(shift={(2, 1): float("nan")} if shuffle else None, **kwargs)

    with pytest.raises(UserError, match="epoch 3"):
        train(tmp_path, config(epochs=4), batches=killed, given=[0.5, 0.6])
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0002-*")
    settings = config(epochs=4, resume=str(old.parent.relative_to(tmp_path)))
    if changed == "val.json":
        files.write_json(tmp_path / changed, {"images": [], "annotations": [], "categories": [*CATEGORIES]}, indent=1)
    elif changed == "images":
        files.write_text(tmp_path / "images" / "a.jpg", "")
    else:
        value = {"weight_decay": 1e-4, "validate_epochs": 0, "validate_images": 3}[changed]
        settings.train = replace(settings.train, **{changed: value})
    train(tmp_path, settings, given=[0.3, 0.4])
    out = capsys.readouterr().out
    assert ("is not comparable" in out) == (changed != "weight_decay")
    if changed == "validate_epochs":
        assert "these weights are kept" not in out
    else:
        assert ("after epoch 2, 0.600" if changed == "weight_decay" else "after epoch 4, 0.400") in out


@pytest.mark.parametrize("name", ["resnet50", "random"])
def test_a_name_of_our_own_is_no_file(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    settings = config()
    settings.model = replace(settings.model, weights="random")
    checkout = tmp_path / ".dvc/tmp/exps/tmpabc"
    checkout.mkdir(parents=True)
    monkeypatch.chdir(checkout)
    assert provenance.named_files(settings.model) == {}


def test_what_other_trainings_keep_is_said_and_left(tmp_path, capsys):
    own, *others = (tmp_path / "checkpoints" / name for name in ("own", "a", "b"))
    own.mkdir(parents=True)
    ended = tmp_path / "checkpoints/ended"  # before the first checkpoint: nothing to go on from, nothing to delete
    files.write_text(ended / provenance.MADE_BY, "{}")
    provenance.mention_others(own, {})
    assert capsys.readouterr().out == ""
    for folder in others:
        (folder / "epoch-0003").mkdir(parents=True)
        (folder / provenance.MADE_BY).write_text('{"values": [1]}')  # damaged
        with (folder / "epoch-0003/state.npz").open("wb") as file:
            file.truncate(260_000_000)  # sparse: takes no room
    provenance.mention_others(own, {})
    out = capsys.readouterr().out
    assert "keep 0.52 GB; delete them, or go on from one with train.resume:\n" in out
    assert f"  {others[0]}, differs in what is not known\n  {others[1]}, differs in" in out
    assert str(ended) not in out
    assert all((folder / "epoch-0003/state.npz").exists() for folder in others)
    with files.locked(others[0] / provenance.LOCK):  # at work
        provenance.mention_others(own, {})
    assert str(others[0]) not in capsys.readouterr().out
    train(tmp_path, config(epochs=1))
    assert "keep 0.52 GB" in capsys.readouterr().out


def test_two_trainings_do_not_share_checkpoints(tmp_path):
    with pytest.raises(UserError, match="in step 1"):  # leaves its folder
        train(tmp_path, batches=partial(TinyBatches, shift={(0, 0): float("nan")}))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    with files.locked(folder / provenance.LOCK):
        with pytest.raises(UserError, match="another run holds"):
            train(tmp_path)
        train(tmp_path, config(epochs=1))  # as workers of a queue


def test_patience_counts_anew_where_ap_is_not_comparable(tmp_path, monkeypatch):
    """It had run out, and nothing was trained."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path, config(epochs=4, patience=1), given=[0.5, 0.4])
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0002-*")
    settings = config(epochs=4, patience=1, validate_images=3, resume=str(old.parent.relative_to(tmp_path)))
    train(tmp_path, settings, given=[0.2, 0.3])
    assert history(tmp_path)["eval/AP"].tolist() == [0.5, 0.4, 0.2, 0.3]


def test_of_a_training_made_by_what_is_not_known_ap_is_not_comparable(tmp_path, capsys):
    def killed(shuffle=False, **kwargs):
        return TinyBatches(shift={(2, 1): float("nan")} if shuffle else None, **kwargs)

    with pytest.raises(UserError, match="epoch 3"):
        train(tmp_path, config(epochs=4), batches=killed, given=[0.5, 0.6])
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0002-*")
    (old.parent / provenance.MADE_BY).write_text("{")
    train(tmp_path, config(epochs=4, resume=str(old.parent.relative_to(tmp_path))), given=[0.3, 0.4])
    assert "after epoch 4, 0.400" in capsys.readouterr().out
