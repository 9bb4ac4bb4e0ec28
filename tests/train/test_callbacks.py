"""History, progress and the stop at NaN or at a signal."""

import contextlib
import io as text_io
import json
import os
import re
import shutil
import signal
import subprocess
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from dvc.repo import Repo
from rich.console import Console
from small import LOSSES, Tiny, TinyBatches, fit, rows, settings

from fashionseg.console import progress
from fashionseg.core.errors import UserError
from fashionseg.train import callbacks, loop
from fashionseg.train.callbacks import Interrupt, LiveLog
from fashionseg.train.checkpoint import State
from fashionseg.train.optimizer import optimizer
from fashionseg.train.schedule import WarmupAndDrops

DROPS = {"epochs": 3, "warmup_steps": 0, "drops": [1 / 3, 2 / 3], "learning_rate": 0.02}


@pytest.fixture(autouse=True)
def interruptible():
    """As in a terminal: what is started in the background is born with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A DVC project in a Git repository without a commit; the working directory."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    Repo.init().close()
    return tmp_path


def test_a_repository_without_a_commit_is_one_sentence(repository):
    with pytest.raises(UserError, match="no commit yet"):
        LiveLog(repository / "results", WarmupAndDrops(0.1, 0, []), State(), images=8, steps=4, every=2)


def test_history_holds_what_keras_sees(repository):
    """The same training by one call of Keras' own `fit`, without noise, as it draws more of that in its validations."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", "start"], check=True)
    results = repository / "results"
    fit(repository, Tiny(noise=0.0), **DROPS)
    model, batches, running = Tiny(noise=0.0), TinyBatches(), []
    model.compile(optimizer(model, settings(**DROPS), WarmupAndDrops(0.02, 0, [4, 8]), 12), jit_compile=False)
    follow = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch),
        on_train_batch_end=lambda batch, logs: running.append({name: float(mean) for name, mean in logs.items()}),
    )
    validation = TinyBatches(steps=2, seed=5)
    with loop.fed(batches) as data:
        model.fit(data, validation_data=validation, epochs=3, shuffle=False, verbose=0, callbacks=[follow])
    history = model.history.history
    for name in ("loss", *LOSSES):
        for subset, prefix in (("train", ""), ("eval", "val_")):
            table = rows(results, f"{subset}/{name}")
            assert table["step"].tolist() == [0, 1, 2]
            np.testing.assert_allclose(table[name], history[prefix + name], rtol=1e-5)
        # Four steps an epoch, a row after three: the mean of three, then the fourth alone.
        table = rows(results, f"steps/{name}")
        assert table["step"].tolist() == [3, 4, 7, 8, 11, 12]
        means = np.array([step[name] for step in running]).reshape(3, 4)
        expected = np.stack([means[:, 2], 4 * means[:, 3] - 3 * means[:, 2]], axis=1).ravel()
        np.testing.assert_allclose(table[name], expected, rtol=1e-4)
    np.testing.assert_allclose(rows(results, "train/learning_rate")["learning_rate"], [0.02, 0.002, 0.0002], rtol=1e-6)
    np.testing.assert_allclose(
        rows(results, "steps/learning_rate")["learning_rate"][:3], [0.02, 0.02, 0.002], rtol=1e-6
    )
    seconds, speed = rows(results, "train/seconds")["seconds"], rows(results, "train/images_per_second")
    assert (speed["images_per_second"] >= 8 / seconds).all()
    assert json.loads((results / "metrics.json").read_text())["step"] == 2
    assert not list(repository.rglob("dvc.yaml"))


def test_no_nan_in_the_history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "StopOnNaN", lambda *_: keras.callbacks.Callback())
    fit(tmp_path, validation=TinyBatches(steps=1, shift={(0, 0): float("nan")}), epochs=2)
    results = tmp_path / "results"
    assert [path.stem for path in results.rglob("eval/*.tsv")] == ["AP"]
    assert len(rows(results, "train/loss")) == 2
    assert "NaN" not in (results / "metrics.json").read_text()


def test_nan_stops_with_loss_and_step_and_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"loss 'box_reg' became nan, .*'rpn_box_reg' .* in step 3 of epoch 2, on batch 2; look"
    ):
        fit(tmp_path, shift={(1, 2): float("nan")}, checkpoint_steps=3)
    assert [path.name for path in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-0001-step-000000"]
    with pytest.raises(UserError, match="in step 3 of epoch 2, on batch 2;"):
        fit(tmp_path, shift={(1, 2): float("nan")}, checkpoint_steps=1)
    with pytest.raises(UserError, match="in step 4 of epoch 2, on batch 3;"):  # resumed inside the epoch
        fit(tmp_path, shift={(1, 3): float("nan")})
    validation = TinyBatches(steps=1, shift={(0, 0): float("inf")})
    with pytest.raises(UserError, match=r"'mask' became inf.* in step 1 of the validation after epoch 1, on batch 0;"):
        fit(tmp_path / "another", validation=validation)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_after_the_step_with_a_checkpoint(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(getattr(signal, name))

    def killed(self, batch, logs):
        if (self.epoch, batch) == ("epoch 2/3", 1):
            os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(progress.Progress, "on_train_batch_end", killed)
    with pytest.raises(UserError, match=f"^stopped by {name} after step 2 of epoch 2; the same command goes on from"):
        fit(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-0001-step-000002"]
    assert signal.getsignal(getattr(signal, name)) is before


def test_a_history_that_is_removed_ends_the_training_and_its_checkpoint_stays_whole(tmp_path, monkeypatch):
    """As DVC does where it was killed and a second one begins beside the training that it left."""
    monkeypatch.chdir(tmp_path)

    def removed(self, batch, logs):
        if (self.epoch, batch) == ("epoch 2/2", 1):
            shutil.rmtree("results")

    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match="results was removed while this training ran"),
    ):
        patch.setattr(progress.Progress, "on_train_batch_end", removed)
        fit(tmp_path, epochs=2)
    assert [path.name for path in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-0001-step-000000"]
    fit(tmp_path, epochs=2)
    assert rows(tmp_path / "results", "steps/loss")["step"].tolist() == [3, 4, 7, 8]


def test_a_signal_during_validation_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def killed(self, batch, logs):
        seen.append(batch)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped by SIGTERM after step 4 of epoch 1;"):
        patch.setattr(progress.Progress, "on_test_batch_end", killed)
        fit(tmp_path)
    assert seen == [0]
    assert [path.name for path in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-0000-step-000004"]


def test_a_second_signal_does_not_wait():
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupt.name
    signal.signal(signal.SIGINT, before)


def printed(folder, monkeypatch, terminal, line_seconds=1e9, epochs=2, **kwargs):
    """What a training prints, its task of the bar."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(progress, "LINE_SECONDS", line_seconds)
    text, shown = text_io.StringIO(), []

    def to_text(*args):
        shown.append(progress.Progress(*args, Console(file=text, force_terminal=terminal, width=130)))
        return shown[0]

    monkeypatch.setattr(loop, "Progress", to_text)
    with contextlib.suppress(UserError):
        fit(folder, epochs=epochs, drops=[], **{"validate_epochs": 0, **kwargs})
    return text.getvalue(), shown[0].bar.tasks[0]


def test_without_a_terminal_a_line_an_epoch(tmp_path, monkeypatch):
    text, task = printed(tmp_path, monkeypatch, terminal=False, validate_epochs=1)
    first, second = text.splitlines()
    results = tmp_path / "results"
    loss, validation = rows(results, "train/loss")["loss"], rows(results, "eval/loss")["loss"]
    assert re.match(rf"epoch 1/2 in 0:00:\d\d: loss {loss[0]:.3f} \(objectness \d", first)
    assert f" mask {rows(results, 'train/mask')['mask'][1]:.3f}); " in second
    assert f"; validation loss {validation[1]:.3f} (objectness " in second
    assert re.search(r"mask \d\.\d{3}\), AP 0\.\d{3}; ", second)
    assert second.endswith("images/s, 0:00:00 left")
    assert (task.completed, task.total) == (12, 12)


def test_an_epoch_is_said_to_be_done_once_its_checkpoint_is_there(tmp_path, monkeypatch):
    """So that after a kill no epoch is said to be done twice."""
    saved = []

    def end(*_):
        saved.extend(path.name for path in (tmp_path / "checkpoints").glob("epoch-*"))

    monkeypatch.setattr(progress.Progress, "end", end)
    fit(tmp_path, epochs=2)
    assert saved == ["epoch-0001-step-000000", "epoch-0002-step-000000"]


def test_without_a_terminal_a_line_from_time_to_time(tmp_path, monkeypatch):
    lines = printed(tmp_path, monkeypatch, terminal=False, line_seconds=0)[0].splitlines()
    assert len(lines) == 2 * (4 + 1)
    assert lines[6].startswith("epoch 2/2 step 2/4: loss ")
    assert re.fullmatch(r"epoch 2/2 in .* mask \d\.\d{3}\); .*", lines[9])


def test_validations_are_in_the_bar(tmp_path, monkeypatch):
    text, task = printed(tmp_path, monkeypatch, False, line_seconds=0, epochs=5, validate_epochs=2)
    assert (task.completed, task.total) == (26, 26)
    assert text.count("epoch 4/5 validation 2/2: loss ") == 1
    assert "epoch 3/5 validation" not in text


def test_a_resumed_training_begins_in_the_midst_of_the_bar(tmp_path, monkeypatch):
    broken = {"shift": {(2, 2): float("nan")}, "checkpoint_steps": 1}
    printed(tmp_path, monkeypatch, terminal=False, epochs=3, validate_epochs=1, **broken)
    text, task = printed(tmp_path, monkeypatch, terminal=True, epochs=3, validate_epochs=1)
    assert "epoch 1/3" not in text
    assert "epoch 3/3 AP 1/1" in text
    assert "images/s" in text
    assert (task.completed, task.total) == (18, 18)
    assert task.speed < 1e4  # the epochs before were not done in no time


def test_the_terminal_is_cleared_up_after_an_error(tmp_path, monkeypatch):
    text, _ = printed(tmp_path, monkeypatch, terminal=True, shift={(0, 1): float("nan")})
    assert "\x1b[?25h" in text[-20:]  # the cursor is back


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="clocks are the same on both backends")
def test_seconds_are_of_the_whole_epoch_and_speed_of_its_steps(tmp_path, monkeypatch):
    """Also in an epoch that a checkpoint cut in two. A step takes 10 s, a validation 2 x 100 s."""
    monkeypatch.chdir(tmp_path)
    now = [0.0]

    def takes(seconds):
        return lambda *_, **__: now.__setitem__(0, now[0] + seconds)

    for module in (callbacks, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(callbacks.Count, "on_train_batch_begin", takes(10.0), raising=False)
    monkeypatch.setattr(progress.Progress, "on_test_batch_end", takes(100.0))
    with pytest.raises(UserError, match="in step 3 of epoch 2"):
        fit(tmp_path, shift={(1, 2): float("nan")}, checkpoint_steps=1)
    fit(tmp_path)
    assert rows(tmp_path / "results", "train/seconds")["seconds"].tolist() == [240] * 3
    speed = rows(tmp_path / "results", "train/images_per_second")["images_per_second"]
    np.testing.assert_allclose(speed, 8 / 40)


def test_the_learning_rate_is_that_of_the_last_step_of_the_optimizer(tmp_path, monkeypatch):
    """Which takes one after every second batch, by the rate of the batch before it."""
    monkeypatch.chdir(tmp_path)
    changes = {"warmup_steps": 4, "drops": [], "log_steps": 1, "validate_epochs": 0}
    fit(tmp_path, epochs=1, accumulate=2, learning_rate=0.4, **changes)
    found = rows(tmp_path / "results", "steps/learning_rate")["learning_rate"]
    warmup = WarmupAndDrops(0.4, 8, [])
    np.testing.assert_allclose(found, [float(warmup(batch)) for batch in (0, 1, 1, 3)], rtol=1e-5)
