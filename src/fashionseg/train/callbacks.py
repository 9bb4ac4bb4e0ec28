"""What happens beside a training: DVCLive's history, a progress bar, checkpoints, a stop at the first NaN."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from dvclive import Live
from keras import ops
from scmrepo.exceptions import SCMError

from fashionseg.core import files
from fashionseg.core.errors import UserError

Logs = dict[str, float] | None
NamesOf = Callable[[int], list[str]]


class LiveLog(keras.callbacks.Callback):
    """One row an epoch, numbered from 0, in `folder`/plots/metrics/{train,eval}/*.tsv; the last values in metrics.json.

    Logs each loss of training and validation, and of the training learning_rate at the last step, seconds of the whole
    epoch, images_per_second without validation; `images` are those of an epoch. NaN and infinity are left out, as they
    would break a plot. Rows that are there stay: `restore` sees to it that they end before the first epoch to come.
    Raises UserError in a Git repository without a commit.
    """

    def __init__(self, folder: str | Path, images: int, schedule: keras.optimizers.schedules.LearningRateSchedule):
        super().__init__()
        try:
            self.live = Live(str(folder), resume=True, dvcyaml=None, save_dvc_exp=False)
        except SCMError:
            raise UserError(
                "this Git repository has no commit yet and DVCLive needs one; commit, then go on."
            ) from None
        self.images = images
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.live.step = epoch
        values = {
            f"eval/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}": value
            for name, value in logs.items()
        }
        # The optimizer already stands at the next epoch's first step.
        values["train/learning_rate"] = float(ops.convert_to_numpy(self.schedule(self.model.optimizer.iterations - 1)))
        values["train/seconds"] = time.perf_counter() - self.began
        values["train/images_per_second"] = self.images / (self.trained - self.began)
        for name, value in values.items():
            if math.isfinite(value):
                self.live.log_metric(name, value)
        self.live.sync()

    def on_train_end(self, logs: Logs = None) -> None:
        self.live.end()


class Checkpoint(keras.callbacks.Callback):
    """Keeps under `folder`/epoch-<epochs done> what `restore` needs, of the newest epoch alone.

    That is every variable of model and optimizer, the seed generators' included, and a copy of the folder `results`, so
    that state and history are of the same moment. A kill leaves the newest checkpoint that was complete.
    """

    def __init__(self, folder: str | Path, results: str | Path):
        super().__init__()
        self.folder = Path(folder)
        self.results = Path(results)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # A new name each time: that makes the renaming of a whole folder atomic.
        with files.replacing(self.folder / f"epoch-{epoch + 1:04}") as beside:
            shutil.copytree(self.results, beside / "results")
            np.savez(beside / "state.npz", *[ops.convert_to_numpy(variable) for variable in _state(self.model)])
        for older in checkpoints_in(self.folder)[:-1]:
            files.remove(older)


def restore(model: keras.Model, folder: str | Path, results: str | Path) -> int:
    """Brings back model, optimizer and `results` from `folder`; returns the epochs done, 0 without a checkpoint.

    The model is compiled and its optimizer built. What `results` held before is removed. Raises UserError where the
    checkpoint is of a different model.
    """
    files.remove(results)
    checkpoints = checkpoints_in(Path(folder))
    if not checkpoints:
        return 0
    newest = checkpoints[-1]
    variables = _state(model)
    with np.load(newest / "state.npz") as saved:
        values = [saved[name] for name in saved.files]
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise UserError(f"{newest} was written by a different version of the model; remove {folder} to train afresh.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    shutil.copytree(newest / "results", results)
    return int(newest.name.removeprefix("epoch-"))


def _state(model: keras.Model) -> list[keras.Variable]:
    # save_weights would leave out the seed generators.
    return [*model.variables, *model.optimizer.variables]


def checkpoints_in(folder: Path) -> list[Path]:
    """Those of a folder that are whole, the newest last."""
    return sorted(folder.glob("epoch-*"))


class StopOnNaN(keras.callbacks.Callback):
    """Raises UserError once a loss is no finite number, before a checkpoint is written.

    It names loss, step and the pictures of the batch, which these functions give for the number of a step from 0.
    """

    def __init__(self, train_names: NamesOf, val_names: NamesOf):
        super().__init__()
        self.train_names = train_names
        self.val_names = val_names

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        _check(logs, f"in step {batch + 1} of epoch {self.epoch}", self.train_names(batch))

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        _check(logs, f"in step {batch + 1} of the validation after epoch {self.epoch}", self.val_names(batch))


def _check(logs: dict[str, float], when: str, names: list[str]) -> None:
    broken = [name for name, value in logs.items() if not math.isfinite(value)]
    parts = [name for name in broken if name not in ("loss", "val_loss")] or broken  # the sum only shows the same
    if parts:
        values = ", ".join(f"'{name}' became {logs[name]}" for name in parts)
        raise UserError(
            f"loss {values} {when}, on {', '.join(names)}; look at these pictures, lower "
            "train.learning_rate or raise train.warmup_steps."
        )
