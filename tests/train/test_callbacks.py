"""History, progress, checkpoints and the stop at NaN, on a model of one dense layer that speaks as MaskRCNN does."""

import io as text_io
import json
import re
import subprocess

import keras
import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from keras import ops
from rich.console import Console

from fashionseg.console import progress
from fashionseg.core.errors import UserError
from fashionseg.train.callbacks import Checkpoint, LiveLog, StopOnNaN, restore

LOSSES = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")
SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], [0.02, 0.01, 0.001])


class Tiny(keras.Model):
    """As MaskRCNN: a batch in, a dict of scalar losses out, random numbers in between."""

    def __init__(self, side=8, seed=1, width=4, precision="float32", **kwargs):
        super().__init__(dtype=precision, autocast=False)
        self.dense = keras.layers.Dense(width, kernel_initializer=keras.initializers.GlorotUniform(seed))
        self.dense.build((None, side * 3))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = [keras.metrics.Mean(name) for name in LOSSES]
        self.built = True

    def use_shapes(self, shapes):
        self.used_shapes = tuple(shapes)

    def call(self, batch):
        features = ops.mean(batch["images"], axis=1) / 255
        found = self.dense(ops.reshape(features, (-1, self.dense.kernel.shape[0])))
        noise = keras.random.uniform(ops.shape(found), seed=self.seed_generator)
        losses = ops.mean((found - noise) ** 2) + batch["shift"][0]
        return {name: losses * weight for weight, name in enumerate(LOSSES, 1)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        for tracker in self.trackers:
            tracker.update_state(y_pred[tracker.name])
        return sum(y_pred.values())


def name_of(step):
    return [f"batch {step}"]


class TinyBatches(keras.utils.PyDataset):
    """As data.batches.Batches, of noise that follows from seed and epoch; `shift` is added to every loss of a step."""

    batch_size = 2
    names = ("shirt", "shoe")
    dropped = tiny = 0

    def __init__(self, steps=4, seed=0, side=8, shift=None, **kwargs):
        super().__init__()
        self.shapes = []
        self.records = [{"id": number} for number in range(2 * steps)]
        self.steps = steps
        self.seed = seed
        self.side = side
        self.shift = shift or {}
        self.epoch = 0

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        random = np.random.default_rng([self.seed, self.epoch, index])
        return {
            "images": random.uniform(0, 255, (2, self.side, self.side, 3)).astype("float32"),
            "sizes": np.full((2, 2), self.side, np.int32),
            "boxes": np.tile(np.array([1, 1, self.side - 1, self.side - 2], np.float32), (2, 1, 1)),
            "classes": np.ones((2, 1), np.int32),
            "masks": np.ones((2, 1, 56, 56), np.uint8),
            "shift": np.full(2, self.shift.get((self.epoch, index), 0.0), np.float32),
        }

    def names_of(self, index):
        return name_of(index)

    def follow(self):
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(self, "epoch", epoch))


def compiled(**kwargs):
    model = Tiny(**kwargs)
    sgd = keras.optimizers.SGD(SCHEDULE, momentum=0.9)
    sgd.build(model.trainable_variables)
    model.compile(optimizer=sgd, jit_compile=False)
    return model


def fit(model, *watching, epochs=2, done=0, validation=None, shift=None):
    batches = TinyBatches(shift=shift)
    return model.fit(
        batches,
        validation_data=validation or TinyBatches(steps=2, seed=5),
        epochs=epochs,
        initial_epoch=done,
        shuffle=False,
        verbose=0,
        callbacks=[batches.follow(), *watching],
    ).history


def rows(results, name):
    return pd.read_csv(results / "plots" / "metrics" / f"{name}.tsv", sep="\t")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A DVC project in a Git repository without a commit; the working directory."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    Repo.init().close()
    return tmp_path


def test_a_repository_without_a_commit_is_one_sentence(repository):
    with pytest.raises(UserError, match="no commit yet"):
        LiveLog(repository / "results", 8, SCHEDULE)


def test_history_holds_what_keras_saw(repository):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", "start"], check=True)
    results = repository / "results"
    history = fit(compiled(), LiveLog(results, 8, SCHEDULE), epochs=3)
    for name in ("loss", *LOSSES):
        for subset, prefix in (("train", ""), ("eval", "val_")):
            table = rows(results, f"{subset}/{name}")
            assert table["step"].tolist() == [0, 1, 2]
            np.testing.assert_allclose(table[name], history[prefix + name], rtol=1e-6)
    # Four steps an epoch: the last ones are 3, 7 and 11.
    np.testing.assert_allclose(rows(results, "train/learning_rate")["learning_rate"], [0.02, 0.01, 0.001], rtol=1e-6)
    seconds, speed = rows(results, "train/seconds")["seconds"], rows(results, "train/images_per_second")
    assert (speed["images_per_second"] >= 8 / seconds).all()
    assert json.loads((results / "metrics.json").read_text())["step"] == 2
    assert not list(repository.rglob("dvc.yaml"))


def test_no_nan_in_the_history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(compiled(), LiveLog(tmp_path, 8, SCHEDULE), validation=TinyBatches(steps=1, shift={(0, 0): float("nan")}))
    assert not list(tmp_path.rglob("eval/*.tsv"))
    assert len(rows(tmp_path, "train/loss")) == 2
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_a_checkpoint_brings_everything_back(tmp_path):
    results, folder = tmp_path / "results", tmp_path / "checkpoint"
    results.mkdir()
    (results / "history").write_text("of two epochs")
    model = compiled()
    fit(model, Checkpoint(folder, results))
    assert [path.name for path in folder.iterdir()] == ["epoch-0002"]
    (folder / ".epoch-0003.partial").mkdir()  # as a kill leaves it
    (results / "history").write_text("and more")
    (results / "later").touch()

    other = compiled(seed=2)
    assert restore(other, folder, results) == 2
    assert [path.name for path in results.iterdir()] == ["history"]
    assert (results / "history").read_text() == "of two epochs"
    before, after = ([*m.variables, *m.optimizer.variables] for m in (model, other))
    assert len(before) == 2 + 1 + 1 + 2  # weights, seed generator, iterations, momentum
    for expected, got in zip(before, after, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(expected), ops.convert_to_numpy(got))
    assert int(ops.convert_to_numpy(other.optimizer.iterations)) == 8
    assert int(ops.convert_to_numpy(other.seed_generator.state)[1]) == 2 * (4 + 2)


def test_without_a_checkpoint_results_begin_empty(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old").touch()
    assert restore(compiled(), tmp_path / "none", tmp_path / "results") == 0
    assert not (tmp_path / "results").exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    (tmp_path / "results").mkdir()
    fit(compiled(), Checkpoint(tmp_path / "checkpoint", tmp_path / "results"), epochs=1)
    with pytest.raises(UserError, match=r"different version of the model; remove .*checkpoint to train afresh"):
        restore(compiled(width=5), tmp_path / "checkpoint", tmp_path / "results")


def test_nan_stops_with_loss_and_step_and_no_checkpoint(tmp_path):
    (tmp_path / "results").mkdir()
    watching = StopOnNaN(name_of, name_of), Checkpoint(tmp_path / "checkpoint", tmp_path / "results")
    with pytest.raises(
        UserError, match=r"loss 'box_reg' became nan, .*'rpn_box_reg' .* in step 3 of epoch 2, on batch 2; look"
    ):
        fit(compiled(), *watching, shift={(1, 2): float("nan")})
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["epoch-0001"]
    validation = TinyBatches(steps=1, shift={(0, 0): float("inf")})
    with pytest.raises(UserError, match=r"'mask' became inf.* in step 1 of the validation after epoch 1, on batch 0;"):
        fit(compiled(), *watching, validation=validation)


def printed(monkeypatch, terminal, line_seconds=1e9, **kwargs):
    monkeypatch.setattr(progress, "LINE_SECONDS", line_seconds)
    text = text_io.StringIO()
    shown = progress.Progress(2, 2, Console(file=text, force_terminal=terminal, width=130))
    with shown.bar:
        history = fit(compiled(), shown, **kwargs)
    return text.getvalue(), history, shown.bar.tasks[0]


def test_without_a_terminal_a_line_an_epoch(monkeypatch):
    text, history, task = printed(monkeypatch, terminal=False)
    first, second = text.splitlines()
    assert re.match(rf"epoch 1/2 in 0:00:\d\d: loss {history['loss'][0]:.3f} \(box_reg \d", first)
    assert f" mask {history['mask'][1]:.3f}, " in second
    assert f"; validation loss {history['val_loss'][1]:.3f} (" in second
    assert second.endswith("images/s, 0:00:00 left")
    assert (task.completed, task.total) == (12, 12)
    lines = printed(monkeypatch, terminal=False, line_seconds=0)[0].splitlines()
    assert len(lines) == 2 * (4 + 2 + 1)
    assert lines[8].startswith("epoch 2/2 step 2/4: loss ")
    assert lines[12].startswith("epoch 2/2 validation 2/2: loss ")


def test_a_resumed_training_begins_in_the_midst_of_the_bar(monkeypatch):
    text, _, task = printed(monkeypatch, terminal=True, epochs=3, done=2)
    assert "epoch 3/3 validation 2/2" in text
    assert "images/s" in text
    assert "epoch 1/3" not in text
    assert (task.completed, task.total) == (18, 18)
    assert task.speed < 1e4  # the epochs before were not done in no time


def test_the_terminal_is_cleared_up_after_an_error(monkeypatch):
    text = text_io.StringIO()
    shown = progress.Progress(2, 2, Console(file=text, force_terminal=True))
    with pytest.raises(UserError), shown.bar:
        fit(compiled(), StopOnNaN(name_of, name_of), shown, shift={(0, 1): float("nan")})
    assert "\x1b[?25h" in text.getvalue()[-20:]  # the cursor is back
