"""Training on a model of one dense layer; runs as a script, it is the training that the tests kill."""

import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from keras import ops
from small import Scorer, Tiny, TinyBatches
from small import settings as section

from fashionseg import params
from fashionseg.convert.config import Images
from fashionseg.core import digests, files, stage
from fashionseg.core.errors import UserError
from fashionseg.data.config import Augment
from fashionseg.model import compilation
from fashionseg.model.config import Model, Network
from fashionseg.model.mask_rcnn import MaskRCNN
from fashionseg.model.weights import saved
from fashionseg.train import loop, provenance, trainer

ROOT = Path(__file__).parents[2]
CATEGORIES = [{"id": 0, "name": "shirt"}, {"id": 7, "name": "shoe"}]


def config(seed=3, workers=0, backend="jax", precision="float32", attributes="none", checkpoint_steps=2, **train):
    return SimpleNamespace(
        seed=seed,
        machine=params.Machine(workers, None, backend, False, checkpoint_steps, None),
        images=Images(64),
        model=Model(
            backbone="resnet50",
            weights="imagenet",
            weights_unused=[],
            fpn_channels=8,
            frozen_stages=0,
            frozen_norm=True,
            anchor_side=16,
            proposals=8,
            detections=8,
            attributes=attributes,
            precision=precision,
            heads="v1",
            class_agnostic_boxes=False,
            class_agnostic_masks=False,
            box_stages=1,
            anchor_ratios=[1.0],
        ),
        augment=Augment([{"Fliplr": 0.5}], [1.0, 1.0], 0.0),
        train=section(**train),
    )


def train(folder, settings=None, model=Tiny, batches=TinyBatches, documents=("train.json", "val.json"), given=()):
    """`trainer.train` in a folder, on stand-ins for model and data. given: AP of the validations."""
    for name in documents:
        if not (folder / name).exists():
            files.write_json(folder / name, {"images": [], "annotations": [], "categories": CATEGORIES})

    def build(network):
        built = model(**vars(network))
        built.config = network
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "MaskRCNN", build)
        patch.setattr(trainer, "AveragePrecision", partial(Scorer, given=given))
        patch.setattr(trainer, "Batches", lambda document, images, **kwargs: batches(document=document, **kwargs))
        patch.chdir(folder)  # DVCLive looks around there
        trainer.train(
            settings or config(),
            *documents,
            "images",
            raw="raw",
            models="models",
            results="results",
            checkpoints="checkpoints",
        )


def history(folder):
    """All logged values but the times, by name and step."""
    tables = {f"{path.parent.name}/{path.stem}": path for path in sorted((folder / "results").rglob("*.tsv"))}
    same = {name: path for name, path in tables.items() if path.stem not in ("seconds", "images_per_second")}
    return pd.concat({name: pd.read_csv(path, sep="\t", index_col="step").iloc[:, 0] for name, path in same.items()})


def test_validation_is_of_so_many_images(tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 8, "width": 8} for number in range(12)]
    document = {"images": images, "annotations": [], "categories": CATEGORIES}
    seen = []

    class Seen(TinyBatches):
        def __init__(self, document, raw=None, **kwargs):
            super().__init__(**kwargs)
            seen.append((len(document["images"]), raw))

    for name in ("train.json", "val.json"):
        files.write_json(tmp_path / name, document)
    train(tmp_path, config(epochs=1, validate_images=10), batches=Seen)
    assert seen == [(12, "raw"), (10, None)]


def test_a_training_without_a_step_of_the_optimizer_is_refused(tmp_path):
    """Few pictures make few batches; it ended as if it had learned."""
    with pytest.raises(UserError, match=r"train\.accumulate is 9, but all of the training has 8 batches"):
        train(tmp_path, config(epochs=2, accumulate=9))
    train(tmp_path, config(epochs=2, accumulate=8, validate_epochs=0))
    start = [ops.convert_to_numpy(weight) for weight in Tiny(side=64).weights]
    assert any((one != other).any() for one, other in zip(weights(tmp_path), start, strict=True))


def weights(folder):
    model = Tiny(side=64)
    model.load_weights(folder / "models" / "mask_rcnn.weights.h5")
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def dying_savez(path, savez=np.savez, **arrays):
    """Ends the process without any farewell in the midst of a checkpoint; its rows of history are written."""
    savez(path, **dict([*arrays.items()][:2]))
    if "epoch-0001-step-000004" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    savez(path, **arrays)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    epochs = set()

    class Seen(TinyBatches):
        def __getitem__(self, index):
            epochs.add(self.epoch)
            return super().__getitem__(index)

    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, batches=Seen)
    assert epochs == {0, 1, 2}  # else each epoch would bring the same order and augmentation
    return folder


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="tf.data is TensorFlow's")
def test_an_epoch_does_not_wait_for_the_autotuning_of_tf_data():
    """Of twelve short epochs four ended a second late (TensorFlow 2.20), of long ones up to a minute."""
    with loop.fed(TinyBatches()) as data:
        assert data.options().autotune.enabled is False


def test_a_batch_is_read_once_an_epoch():
    counts = Counter()

    class Counted(TinyBatches):
        def __getitem__(self, index):
            counts[index] += 1
            return super().__getitem__(index)

    model = Tiny()
    compilation.compile_steps(model, optimizer=keras.optimizers.SGD(0.0))
    with loop.fed(Counted()) as data:
        model.fit(data, verbose=0, shuffle=False)
    assert counts == {index: 1 for index in range(4)}


def test_the_next_batch_is_read_during_a_step():
    """Keras on JAX waits for the losses of a step before it asks for the next batch: a GPU stood idle meanwhile."""
    known = [threading.Event() for _ in range(4)]

    class Noted(TinyBatches):
        def __getitem__(self, index):
            known[index].set()
            return super().__getitem__(index)

    model = Tiny()
    compilation.compile_steps(model, optimizer=keras.optimizers.SGD(0.0))
    ahead = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(all(one.wait(60) for one in known[: batch + 2]))
    )
    seen = []
    with loop.fed(Noted()) as data:
        model.fit(data, verbose=0, shuffle=False, callbacks=[ahead])
    assert seen == [True] * 4


def test_a_damaged_picture_is_one_sentence_on_both_backends():
    """TensorFlow makes text of what a generator raises, in an error of its own."""

    class Damaged(TinyBatches):
        def __getitem__(self, index):
            if index:
                raise UserError("4.png is damaged.")
            return super().__getitem__(index)

    for method, options in (("fit", {"shuffle": False}), ("evaluate", {})):
        model = Tiny()
        compilation.compile_steps(model, optimizer=keras.optimizers.SGD(0.0))
        run = getattr(model, method)
        with pytest.raises(UserError, match=r"^4\.png is damaged\.$"), loop.fed(Damaged()) as data:
            run(data, verbose=0, **options)
    with pytest.raises(ValueError, match="mine"), loop.fed(TinyBatches()):
        raise ValueError("mine")


@pytest.fixture
def child(tmp_path):
    """A training in `tmp_path` that is killed; it runs beside the undisturbed one."""
    return subprocess.Popen([sys.executable, __file__, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, child, request, capsys):
    undisturbed = request.getfixturevalue("undisturbed")  # of the module: as an argument it would come first
    output, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL, output.decode()
    assert not (tmp_path / "models").exists()
    (state,) = (tmp_path / "checkpoints").glob("*/epoch-*")
    assert state.name == "epoch-0001-step-000002"
    assert history(tmp_path)["steps/loss"].index.max() == 2 * 4
    train(tmp_path)
    folder = state.parent.relative_to(tmp_path)
    assert f"resuming after epoch 1 of 3 and 2 of 4 steps from {folder}\n" in capsys.readouterr().out
    assert len(history(undisturbed)) == 3 * 14 + 3 * 2 * 7
    assert_alike(tmp_path, undisturbed)


RICH = {"schedule": "cosine", "ema": 0.7, "accumulate": 3, "backbone_rate": 0.5, "heads_only": 0.2, "log_steps": 1}


@pytest.fixture
def rich(tmp_path_factory) -> Path:
    """A training with all that a checkpoint has to hold."""
    folder = tmp_path_factory.mktemp("rich")
    train(folder, config(**RICH))
    return folder


@pytest.mark.parametrize(
    ("where", "changes", "other"),
    [("train", {}, "undisturbed"), ("test", {}, "undisturbed"), ("train", RICH, "rich")],
    ids=["steps", "validation", "all"],
)
def test_a_terminated_training_goes_on_as_if_nothing_had_happened(
    tmp_path, request, monkeypatch, where, changes, other
):
    """In the midst of an epoch and of a gradient, and in the validation."""
    undisturbed = request.getfixturevalue(other)

    def killed(self, batch, logs):
        if self.epoch == "epoch 2/3":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped by SIGTERM"):
        patch.setattr(loop.Progress, f"on_{where}_batch_end", killed)
        train(tmp_path, config(checkpoint_steps=1000, **changes))
    train(tmp_path, config(**changes))
    assert_alike(tmp_path, undisturbed)


def assert_alike(folder, other):
    """The same history and weights."""
    pd.testing.assert_series_equal(history(folder), history(other), rtol=1e-6, check_exact=False)
    for got, expected in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_scale_of_a_loss_in_float16_goes_on_too(tmp_path):
    def spoiled(shuffle=False, **kwargs):
        return TinyBatches(shift={(1, 2): float("nan")} if shuffle else None, **kwargs)

    settings = config(precision="mixed_float16", ema=0.7, accumulate=2)
    for name in ("undisturbed", "interrupted"):
        (tmp_path / name).mkdir()
    train(tmp_path / "undisturbed", settings)
    with pytest.raises(UserError, match="in step 3 of epoch 2"):
        train(tmp_path / "interrupted", settings, batches=spoiled)
    train(tmp_path / "interrupted", settings)
    expected, got = (history(tmp_path / name) for name in ("undisturbed", "interrupted"))
    pd.testing.assert_series_equal(got, expected, rtol=1e-6, check_exact=False)


def test_what_training_leaves(undisturbed):
    names = sorted(str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*") if path.is_file())
    metrics = [name for name in names if name.startswith("results/plots/metrics/")]
    assert len(metrics) == 6 + 7 + 3 + 7
    outs = ["models/mask_rcnn.json", "models/mask_rcnn.weights.h5", "results/metrics.json"]
    assert set(names) == {*metrics, *outs, "train.json", "val.json"}
    description = files.read_json(undisturbed / "models" / "mask_rcnn.json")
    assert description["weights_digest"] == digests.of_files([undisturbed / "models" / "mask_rcnn.weights.h5"])
    assert description["categories"] == CATEGORIES
    network = {"side": 64, "classes": 2, "rois": 8, "seed": 3, "backbone": "resnet50", "fpn_channels": 8}
    assert description["network"].items() >= network.items()


NETWORK = Network(**vars(config().model), side=64, classes=2, attribute_count=0, rois=8, seed=3)


def test_a_file_of_weights_comes_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr(trainer, "MaskRCNN", lambda network: network)
    monkeypatch.setattr(
        trainer.pretrained, "load", lambda model, path, *others: f"{path} into {model.weights}, {others}"
    )
    file = replace(NETWORK, weights="coco.pth", weights_unused=["aux."])
    assert trainer._start(file, ["tie"], ["red"]) == replace(file, weights="random")
    assert capsys.readouterr().out == "coco.pth into random, (['aux.'], ['tie'], ['red'])\n"
    assert trainer._start(NETWORK, ["tie"], ["red"]) is NETWORK
    assert not capsys.readouterr().out


def test_a_network_that_dvc_has_removed_is_no_start(tmp_path):
    """DVC empties the outs of a stage before it runs."""
    settings = config()
    settings.model = replace(settings.model, weights="./models")
    (tmp_path / "models").mkdir()
    with pytest.raises(
        UserError, match=r"model\.weights is \./models, which DVC empties .*`dvc checkout train` .*`cp -r"
    ):
        train(tmp_path, settings)


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


def test_a_network_that_validation_finds_spoiled_is_not_saved(tmp_path):
    def spoiled(shuffle=False, **kwargs):
        return TinyBatches(shift=None if shuffle else {(0, 3): float("nan")}, **kwargs)

    with pytest.raises(UserError, match="in step 4 of the validation after epoch 1, on batch 3;"):
        train(tmp_path, batches=spoiled)
    assert not (tmp_path / "models").exists()


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


def test_attributes_that_the_data_does_not_have_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"model\.attributes is linear, but train\.json has no attributes; set it"):
        train(tmp_path, config(attributes="linear"))


def test_losses_are_weighted(tmp_path):
    """By the network itself; what is logged of a part is not weighted."""
    network = SimpleNamespace(trackers=[keras.metrics.Mean("mask"), keras.metrics.Mean("box_reg")])
    network.loss_weights = {"mask": 2.0}
    total = MaskRCNN.compute_loss(network, y_pred={"mask": ops.convert_to_tensor(3.0), "box_reg": 10.0})
    assert float(total) == 2 * 3 + 10
    assert [float(tracker.result()) for tracker in network.trackers] == [3, 10]
    models = []
    train(
        tmp_path,
        config(epochs=1, loss_weights={"mask": 0.0}),
        lambda **values: models.append(Tiny(**values)) or models[0],
    )
    assert models[0].loss_weights == {"mask": 0.0}


def test_a_large_network_is_not_trained_on_a_cpu_unawares(tmp_path):
    large = config()
    large.images = Images(1024)
    with pytest.raises(UserError, match=r"images\.side is 1024 and there is no GPU here.*machine\.allow_cpu=true"):
        train(tmp_path, large)
    assert not (tmp_path / "models").exists()


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


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="what checkpoints are told is the same on both backends")
def test_patience_counts_anew_where_ap_is_not_comparable(tmp_path, monkeypatch):
    """It had run out, and nothing was trained."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path, config(epochs=4, patience=1), given=[0.5, 0.4])
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0002-*")
    settings = config(epochs=4, patience=1, validate_images=3, resume=str(old.parent.relative_to(tmp_path)))
    train(tmp_path, settings, given=[0.2, 0.3])
    assert history(tmp_path)["eval/AP"].tolist() == [0.5, 0.4, 0.2, 0.3]


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="what checkpoints are told is the same on both backends")
def test_of_a_training_made_by_what_is_not_known_ap_is_not_comparable(tmp_path, capsys):
    def killed(shuffle=False, **kwargs):
        return TinyBatches(shift={(2, 1): float("nan")} if shuffle else None, **kwargs)

    with pytest.raises(UserError, match="epoch 3"):
        train(tmp_path, config(epochs=4), batches=killed, given=[0.5, 0.6])
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0002-*")
    (old.parent / provenance.MADE_BY).write_text("{")
    train(tmp_path, config(epochs=4, resume=str(old.parent.relative_to(tmp_path))), given=[0.3, 0.4])
    assert "after epoch 4, 0.400" in capsys.readouterr().out


if __name__ == "__main__":
    np.savez = dying_savez
    train(Path(sys.argv[1]))
