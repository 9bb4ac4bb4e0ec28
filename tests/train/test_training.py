"""Training on a model of one dense layer; runs as a script, it is the training that the tests kill."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from small import CATEGORIES, Tiny, TinyBatches, assert_alike, config, history, train, weights

from fashionseg.convert.config import Images
from fashionseg.core import digests, files
from fashionseg.core.errors import UserError
from fashionseg.model import compilation
from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import MaskRCNN
from fashionseg.train import loop, trainer


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


def test_a_network_that_validation_finds_spoiled_is_not_saved(tmp_path):
    def spoiled(shuffle=False, **kwargs):
        return TinyBatches(shift=None if shuffle else {(0, 3): float("nan")}, **kwargs)

    with pytest.raises(UserError, match="in step 4 of the validation after epoch 1, on batch 3;"):
        train(tmp_path, batches=spoiled)
    assert not (tmp_path / "models").exists()


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


if __name__ == "__main__":
    np.savez = dying_savez
    train(Path(sys.argv[1]))
