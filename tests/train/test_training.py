"""Training on a model of one dense layer; runs as a script, it is the training that the tests kill."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from test_callbacks import Tiny, TinyBatches

from fashionseg import params
from fashionseg.convert.config import Images
from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.data.config import Augment
from fashionseg.model.config import Model, Network
from fashionseg.train import trainer
from fashionseg.train.config import Train

ROOT = Path(__file__).parents[2]
CATEGORIES = [{"id": 0, "name": "shirt"}, {"id": 7, "name": "shoe"}]


def config(epochs=3, seed=3, workers=0, backend="jax", precision="float32", attributes="none", **train):
    values = {"batch_size": 2, "rois": 8, "instances": 1, "learning_rate": 0.003, "warmup_steps": 3}
    values |= {
        "epochs": epochs,
        "drops": [0.667],
        "weight_decay": 1e-3,
        "optimizer": "adamw",
        "repeat_threshold": 0.0,
        "resume": None,
        **train,
    }
    return SimpleNamespace(
        seed=seed,
        machine=params.Machine(workers, backend, allow_cpu=False),
        images=Images(64),
        model=Model("resnet50", "imagenet", [], 8, 0, True, 16, 8, 8, attributes, precision, "v1", False, [1.0]),
        augment=Augment([{"Fliplr": 0.5}], [1.0, 1.0], 0.0),
        train=Train(**values),
    )


def train(folder, settings=None, model=Tiny, batches=TinyBatches, documents=("train.json", "val.json")):
    """`trainer.train` in a folder, on stand-ins for model and data."""
    for name in documents:
        if not (folder / name).exists():
            files.write_json(folder / name, {"images": [], "annotations": [], "categories": CATEGORIES})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "MaskRCNN", lambda network: model(**vars(network)))
        patch.setattr(trainer, "Batches", lambda document, images, **kwargs: batches(**kwargs))
        patch.chdir(folder)  # DVCLive looks around there
        trainer.train(settings or config(), *documents, "images", "models", "results", "checkpoints")


def history(folder):
    """All logged values but the times, by name and step."""
    tables = {path.stem + path.parent.name: path for path in (folder / "results").rglob("*.tsv")}
    same = {name: path for name, path in tables.items() if not name.startswith(("seconds", "images_per_second"))}
    return pd.concat({name: pd.read_csv(path, sep="\t", index_col="step").iloc[:, 0] for name, path in same.items()})


def weights(folder):
    model = Tiny(side=64)
    model.load_weights(folder / "models" / "mask_rcnn.weights.h5")
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def dying_savez(path, *arrays, savez=np.savez):
    """Ends the process without any farewell in the midst of the second checkpoint; its rows of history are written."""
    savez(path, *arrays[:2])
    if "epoch-0002" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    savez(path, *arrays)


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
    assert state.name == "epoch-0001"
    assert history(tmp_path).index.get_level_values("step").max() == 1
    train(tmp_path)
    assert f"resuming after epoch 1 of 3 from {state.parent.relative_to(tmp_path)}" in capsys.readouterr().out
    expected, got = history(undisturbed), history(tmp_path)
    assert len(expected) == 3 * 13
    pd.testing.assert_series_equal(got, expected, rtol=1e-6, check_exact=False)
    for one, other in zip(weights(undisturbed), weights(tmp_path), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_scale_of_a_loss_in_float16_goes_on_too(tmp_path):
    def spoiled(shuffle=False, **kwargs):
        return TinyBatches(shift={(1, 2): float("nan")} if shuffle else None, **kwargs)

    settings = config(precision="mixed_float16")
    for name in ("undisturbed", "interrupted"):
        (tmp_path / name).mkdir()
    train(tmp_path / "undisturbed", settings)
    with pytest.raises(UserError, match="in step 3 of epoch 2"):
        train(tmp_path / "interrupted", settings, batches=spoiled)
    train(tmp_path / "interrupted", settings)
    expected, got = (history(tmp_path / name) for name in ("undisturbed", "interrupted"))
    pd.testing.assert_series_equal(got, expected, rtol=1e-6, check_exact=False)


def test_the_network_knows_the_shapes_of_its_batches(tmp_path):
    made = []

    class Narrow(TinyBatches):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.shapes = [(64, 32)]

    train(tmp_path, config(epochs=1), lambda **network: made.append(Tiny(**network)) or made[-1], Narrow)
    assert made[0].used_shapes == ((64, 32),)


def test_what_training_leaves(undisturbed):
    names = sorted(str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*") if path.is_file())
    metrics = [name for name in names if name.startswith("results/plots/metrics/")]
    assert len(metrics) == 6 + 6 + 3
    outs = ["checkpoints/lock", "models/mask_rcnn.json", "models/mask_rcnn.weights.h5", "results/metrics.json"]
    assert set(names) == {*metrics, *outs, "train.json", "val.json"}
    description = files.read_json(undisturbed / "models" / "mask_rcnn.json")
    assert description["categories"] == CATEGORIES
    network = {"side": 64, "classes": 2, "rois": 8, "seed": 3, "backbone": "resnet50", "fpn_channels": 8}
    assert description["network"].items() >= network.items()


NETWORK = Network(**vars(config().model), side=64, classes=2, attribute_count=0, rois=8, seed=3)


def test_a_file_of_weights_comes_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr(trainer, "MaskRCNN", lambda network: network)
    monkeypatch.setattr(
        trainer.pretrained, "load", lambda model, path, unused: f"{path} into {model.weights} but {unused}"
    )
    file = replace(NETWORK, weights="coco.pth", weights_unused=["aux."])
    assert trainer._start(file) == replace(file, weights="random")
    assert capsys.readouterr().out == "coco.pth into random but ['aux.']\n"
    assert trainer._start(NETWORK) is NETWORK
    assert not capsys.readouterr().out


def test_a_backbone_from_a_preset_is_written_down_whole():
    model = SimpleNamespace(backbone=SimpleNamespace(description={"network": {}}))
    own = replace(NETWORK, weights="coco.pth")
    assert trainer._rebuilding(own, model) == replace(own, weights="random")
    preset = replace(NETWORK, backbone="resnet_50_imagenet")
    assert trainer._rebuilding(preset, model) == replace(preset, weights="random", backbone={"network": {}})


def test_a_killed_training_that_was_done_only_writes_its_outs(tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "_save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path)
    monkeypatch.setattr(keras.Model, "fit", None)
    train(tmp_path)
    pd.testing.assert_series_equal(history(tmp_path), history(undisturbed), rtol=1e-6, check_exact=False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["lock"]


def test_a_spoiled_network_is_not_kept(tmp_path):
    def spoiled(shuffle=False, **kwargs):
        return TinyBatches(shift=None if shuffle else {(0, 3): float("nan")}, **kwargs)

    with pytest.raises(UserError, match="in step 4 of the validation after epoch 1, on batch 3;"):
        train(tmp_path, batches=spoiled)
    assert not list(tmp_path.glob("checkpoints/*/epoch-*"))


def fingerprint(settings, *documents):
    return trainer._fingerprint(trainer._made_by(settings, *documents))


def test_other_params_data_code_or_backend_begin_afresh(tmp_path, monkeypatch):
    for name in ("train.json", "val.json", "other.json"):
        files.write_json(tmp_path / name, {"categories": CATEGORIES, "images": [name]})
    documents = tmp_path / "train.json", tmp_path / "val.json"
    same = fingerprint(config(), *documents)
    others = [
        fingerprint(config(seed=4), *documents),
        fingerprint(config(epochs=4), *documents),
        fingerprint(config(weight_decay=2e-3), *documents),
        fingerprint(config(), tmp_path / "other.json", documents[1]),
    ]
    assert fingerprint(config(workers=5, resume="checkpoints/a"), *documents) == same
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "another")
        others.append(fingerprint(config(), *documents))
    for package in trainer.CODE:
        copy = tmp_path / package
        shutil.copytree(ROOT / "src" / "fashionseg", copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(trainer, "__file__", str(copy / "train" / "trainer.py"))
        assert fingerprint(config(), *documents) == same
        with next((copy / package).glob("[a-z]*.py")).open("a") as file:
            file.write("repaired = True\n")
        others.append(fingerprint(config(), *documents))
    assert len({same, *others}) == 1 + len(others)


def test_the_code_of_a_training_is_what_its_stage_depends_on():
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["deps"]
    assert {dep for dep in deps if dep.startswith("src/")} == {f"src/fashionseg/{name}" for name in trainer.CODE}


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
    (old,) = (tmp_path / "checkpoints").glob("*/epoch-0001")
    copy = tmp_path / "fashionseg"
    shutil.copytree(ROOT / "src" / "fashionseg", copy, ignore=shutil.ignore_patterns("__pycache__"))
    files.write_text(copy / "model" / "losses.py", "repaired = True")
    monkeypatch.setattr(trainer, "__file__", str(copy / "train" / "trainer.py"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "fit", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tmp_path)
    name = old.parent.relative_to(tmp_path)
    assert f"{name}, differs in model/losses.py\n" in capsys.readouterr().out
    monkeypatch.setattr(keras.Model, "fit", lambda *args, initial_epoch, **kwargs: print(f"from {initial_epoch}"))
    monkeypatch.setattr(trainer, "_save", lambda *args: None)
    train(tmp_path, config(resume=str(name), weight_decay=1e-4))
    out = capsys.readouterr().out
    assert (
        f"going on from {name}/epoch-0001, which differs in train.weight_decay (0.001, now 0.0001), model/loss" in out
    )
    assert "from 1\n" in out
    with pytest.raises(UserError, match=r"train\.resume is .*none, which holds no checkpoint; name a folder"):
        train(tmp_path, config(resume="checkpoints/none", seed=9))


def test_what_other_trainings_keep_is_said_and_left(tmp_path, capsys):
    own, *others = (tmp_path / "checkpoints" / name for name in ("own", "a", "b"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/lock").touch()
    own.mkdir()
    trainer._mention_others(own, {})
    assert capsys.readouterr().out == ""
    for folder in others:
        (folder / "epoch-0003").mkdir(parents=True)
        with (folder / "epoch-0003/state.npz").open("wb") as file:
            file.truncate(260_000_000)  # sparse: takes no room
    trainer._mention_others(own, {})
    out = capsys.readouterr().out
    assert "keep 0.52 GB; delete them, or go on from one with train.resume:\n" in out
    assert f"  {others[0]}, differs in what is not known\n  {others[1]}, differs in" in out
    assert all((folder / "epoch-0003/state.npz").exists() for folder in others)
    train(tmp_path, config(epochs=1))
    assert "keep 0.52 GB" in capsys.readouterr().out


def test_two_trainings_do_not_share_checkpoints(tmp_path):
    with files.locked(tmp_path / "checkpoints" / "lock"), pytest.raises(UserError, match="another run holds"):
        train(tmp_path)


def test_attributes_that_the_data_does_not_have_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"model\.attributes is linear, but train\.json has no attributes; set it"):
        train(tmp_path, config(attributes="linear"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 60), max_size=3, unique=True).map(sorted))
def test_schedule_is_warmup_times_drops(warmup, drops):
    steps = np.arange(70)
    rates = ops.convert_to_numpy(trainer.WarmupAndDrops(0.3, warmup, drops)(ops.convert_to_tensor(steps)))
    linear = np.minimum((steps + 1) / warmup, 1) if warmup else 1
    np.testing.assert_allclose(rates, 0.3 * linear * 0.1 ** np.searchsorted(drops, steps, side="right"), rtol=1e-5)


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("longer", [1, 2])
def test_drops_keep_their_share_of_a_longer_training(preset, longer, monkeypatch):
    """What each file asks for in epochs, and as much of the training when it is twice as long."""
    asked = {6: [5], 8: [6], 12: [8, 11], 36: [27, 33]}
    values = {
        **vars(params.load("train", path=ROOT / "params.yaml").train),
        **yaml.safe_load(preset.read_text())["train"],
    }
    settings = Train(**values)
    schedules = []
    monkeypatch.setattr(
        trainer, "WarmupAndDrops", lambda peak, warmup, drops: schedules.append(drops) or SimpleNamespace()
    )
    monkeypatch.setattr(trainer, "optimizer", lambda *args: SimpleNamespace(build=lambda variables: None))
    monkeypatch.setattr(trainer, "restore", lambda *args: settings.epochs * longer)
    model = SimpleNamespace(
        compile=lambda optimizer, **_: setattr(model, "optimizer", optimizer), trainable_variables=[]
    )
    trainer.fit(model, range(100), [], replace(settings, epochs=settings.epochs * longer), Path(), Path())
    (steps,) = schedules
    assert [round(step / 100, 1) for step in steps] == [epoch * longer for epoch in asked[settings.epochs]]


def test_schedule_is_keras_after_the_warmup():
    schedule = trainer.WarmupAndDrops(0.3, 2, [5, 8])
    # PiecewiseConstantDecay changes after its boundary, ours at it.
    pieces = keras.optimizers.schedules.PiecewiseConstantDecay([4, 7], [0.3, 0.03, 0.003])
    again = trainer.WarmupAndDrops.from_config(schedule.get_config())
    for step in (1, 2, 4, 5, 7, 8, 20):
        assert float(schedule(step)) == float(again(step)) == pytest.approx(float(pieces(step)))


def test_weight_decay_means_what_it_means_to_torch():
    """torch.optim.SGD(momentum=0.9, weight_decay): the gradient grows by weight_decay * weight before the momentum."""
    rate, decay = 0.02, 0.05
    random = np.random.default_rng(0)
    layer = keras.layers.Dense(5, bias_initializer="ones")
    layer.build((None, 4))
    sgd = trainer.optimizer(layer, "sgd", trainer.WarmupAndDrops(rate, 0, []), decay)
    weights, velocities = {0: ops.convert_to_numpy(layer.kernel), decay: ops.convert_to_numpy(layer.kernel)}, {}
    for _ in range(100):
        gradient = random.normal(0, 0.1, layer.kernel.shape).astype("float32")
        sgd.apply([ops.convert_to_tensor(gradient), ops.zeros(5)], [layer.kernel, layer.bias])
        for factor, weight in weights.items():
            velocities[factor] = 0.9 * velocities.get(factor, 0) + gradient + factor * weight
            weights[factor] = weight - rate * velocities[factor]
    effect = np.abs(weights[decay] - weights[0]).max()
    assert effect > 0.3
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), weights[decay], atol=0.05 * effect)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 1)


def test_adamw_decays_weights_by_rate_times_decay():
    """torch.optim.AdamW: weight -= lr * weight_decay * weight, whatever the gradient; here not for biases."""
    layer = keras.layers.Dense(5, bias_initializer="ones")
    layer.build((None, 4))
    start = ops.convert_to_numpy(layer.kernel)
    adamw = trainer.optimizer(layer, "adamw", trainer.WarmupAndDrops(0.02, 0, []), 0.05)
    for _ in range(3):
        adamw.apply([ops.zeros((4, 5)), ops.zeros(5)], [layer.kernel, layer.bias])
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), start * (1 - 0.02 * 0.05) ** 3, rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 1)


def test_a_large_network_is_not_trained_on_a_cpu_unawares(tmp_path):
    large = config()
    large.images = Images(1024)
    with pytest.raises(UserError, match=r"images\.side is 1024 and there is no GPU here.*machine\.allow_cpu=true"):
        train(tmp_path, large)
    assert not (tmp_path / "models").exists()


if __name__ == "__main__":
    np.savez = dying_savez
    train(Path(sys.argv[1]))
