"""What happens beside a training: counting, DVCLive's history, checkpoints, a stop at a signal or at the first NaN.

The callbacks are of one epoch's `fit`, which may begin inside the epoch; where it stands they read from `State`.
"""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import keras
import numpy as np
from dvclive import Live
from keras import ops
from scmrepo.exceptions import SCMError

from fashionseg.core.errors import UserError
from fashionseg.train import hosts
from fashionseg.train.checkpoint import Checkpoints, State, not_removed
from fashionseg.train.optimizer import unwrapped
from fashionseg.train.tracker import Tracker

Logs = dict[str, float]
NamesOf = Callable[[int], list[str]]


class Count(keras.callbacks.Callback):
    """Counts steps and seconds into `state`, as the first of the callbacks; in an epoch that a checkpoint cut in two
    the means of the losses go on from the checkpoint's, which the model's metrics hold before `fit`."""

    def __init__(self, state: State):
        super().__init__()
        self.state = state

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.losses = [np.array(ops.convert_to_numpy(variable)) for variable in self.model.metrics_variables]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.state.step:  # Keras has just set them to 0
            for variable, value in zip(self.model.metrics_variables, self.losses, strict=True):
                variable.assign(value)
        self.began = time.perf_counter() - self.state.seconds

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.state.step += 1
        self.state.seconds = time.perf_counter() - self.began


class LiveLog(keras.callbacks.Callback):
    """Tables in `folder`/plots/metrics/{train,eval,steps}/*.tsv, the last values in metrics.json.

    train has one row an epoch, numbered from 0: each loss, the learning_rate of the last step, seconds of the whole
    epoch, images_per_second without validation; `images` are those of an epoch. eval has one after each epoch with a
    validation: each loss and AP.
    steps has a row after every `every` steps, and at the end of the epoch, numbered by the steps done since the start:
    each loss, as the mean since the last row, and the learning_rate. NaN and infinity are left out, as they would
    break a plot. Rows that are there stay: `Checkpoints.restore` sees to it that they end before the first step to
    come. `tracker` gets the same values. Of several processes the first one alone writes. Raises UserError in a Git
    repository without a commit, and where `folder` is removed while it is in use.
    """

    def __init__(
        self,
        folder: str | Path,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        state: State,
        *,
        images: int,
        steps: int,
        every: int,
        tracker: Tracker | None = None,
    ):
        super().__init__()
        self.folder = Path(folder)
        self.live = None
        try:
            if hosts.index() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.live = Live(str(folder), resume=True, dvcyaml=None, save_dvc_exp=False)
        except SCMError:
            raise UserError(
                "this Git repository has no commit yet and DVCLive needs one; commit, then go on."
            ) from None
        self.images = images
        self.schedule = schedule
        self.state = state
        self.steps = steps
        self.every = every
        self.tracker = tracker

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        state = self.state
        if state.step % self.every and state.step < self.steps:
            return
        sums = {name: float(mean) * state.step for name, mean in logs.items()}  # the means are of the epoch so far
        count = state.step - state.logged_step
        means = {f"steps/{name}": (value - state.logged_sums.get(name, 0.0)) / count for name, value in sums.items()}
        values = {**means, "steps/learning_rate": self._learning_rate()}
        self._log(values, "step", state.epoch * self.steps + state.step)
        state.logged_step, state.logged_sums = state.step, sums

    def log_epoch(self, train: Logs, validation: Logs, validation_seconds: float) -> None:
        values = {f"train/{name}": value for name, value in train.items()}
        values |= {f"eval/{name}": value for name, value in validation.items()}
        values["train/learning_rate"] = self._learning_rate()
        values["train/seconds"] = self.state.seconds + validation_seconds
        values["train/images_per_second"] = self.images / self.state.seconds
        self._log(values, "epoch", self.state.epoch)
        if self.live:
            self.live.sync()

    def end(self) -> None:
        if self.live:
            self.live.end()

    def _learning_rate(self) -> float:
        """Of the last step of the optimizer, which already stands at the next one."""
        optimizer = unwrapped(self.model)
        batches = optimizer.iterations * (optimizer.gradient_accumulation_steps or 1)
        return float(ops.convert_to_numpy(self.schedule(ops.maximum(batches, 1) - 1)))

    def _log(self, values: Logs, counter: str, count: int) -> None:
        if not self.live:
            return
        not_removed(self.folder)
        values = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        self.live.step = count
        for name, value in values.items():
            self.live.log_metric(name, value)
        if self.tracker:
            self.tracker.log(values, counter, count)


class Interrupt:
    """Within it SIGTERM and Ctrl-C are kept for `check`, so that the step under way comes to its end; a second one
    does what it always does. Signals that are ignored stay so. One to one of several processes ends them all."""

    def __enter__(self) -> "Interrupt":
        self.name: str | None = None
        self.reason: str | None = None
        self.before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                self.before[number] = handler
                signal.signal(number, self._keep)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self.__exit__()

    def came(self) -> bool:
        """Whether there was a signal; `check` goes by what was so here, even if one comes between the two."""
        if hosts.any_of(self.name is not None):
            self.reason = self.name or "a signal to another process"
        return self.reason is not None

    def check(self, state: State) -> None:
        """Raises UserError where a signal had come; the newest checkpoint is of `state`."""
        if self.reason:
            raise UserError(
                f"stopped by {self.reason} after step {state.step} of epoch {state.epoch + 1}; the same command goes "
                "on from there."
            )


class Save(keras.callbacks.Callback):
    """A checkpoint every `every` steps of an epoch, and at a signal, as the last of the callbacks."""

    def __init__(self, checkpoints: Checkpoints, state: State, every: int, interrupt: Interrupt):
        super().__init__()
        self.checkpoints = checkpoints
        self.state = state
        self.every = every
        self.interrupt = interrupt

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.interrupt.came() or self.state.step % self.every == 0:
            self.checkpoints.save(self.model, self.state)
        self.interrupt.check(self.state)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.interrupt.came()
        self.interrupt.check(self.state)  # nothing to save: validation begins with a checkpoint


class StopOnNaN(keras.callbacks.Callback):
    """Raises UserError once a loss is no finite number, before a checkpoint is written.

    It names loss, step and the pictures of the batch, which these functions give for the number of a step from 0.
    """

    def __init__(self, state: State, train_names: NamesOf, val_names: NamesOf):
        super().__init__()
        self.state = state
        self.train_names = train_names
        self.val_names = val_names

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        step = self.state.step
        _check(logs, f"in step {step} of epoch {self.state.epoch + 1}", self.train_names(step - 1))

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        when = f"in step {batch + 1} of the validation after epoch {self.state.epoch + 1}"
        _check(logs, when, self.val_names(batch))


def _check(logs: Logs, when: str, names: list[str]) -> None:
    broken = [name for name, value in logs.items() if not math.isfinite(value)]
    parts = [name for name in broken if name != "loss"] or broken  # the sum only shows the same
    if parts:
        values = ", ".join(f"'{name}' became {logs[name]}" for name in parts)
        raise UserError(
            f"loss {values} {when}, on {', '.join(names)}; look at these pictures, lower "
            "train.learning_rate or raise train.warmup_steps."
        )
