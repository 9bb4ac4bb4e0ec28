"""The progress bar of a training. Nothing here changes a result, so no stage depends on it."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import keras
import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn

LINE_SECONDS = 30  # between lines where there is no terminal
SPEED_SECONDS = 600  # over which the speed behind the time left is estimated

Logs = dict[str, float] | None


class Progress(keras.callbacks.Callback):
    """A bar over all epochs with their validations, on a terminal; elsewhere a line each epoch and every 30 seconds.

    Used within `with progress.bar:`, which clears the terminal up whatever happens; `begin` and `end` are called around
    each epoch, whose steps `fit` and `evaluate` tell it. The time left is that of the whole training, losses are means
    over the epoch so far. `validated` says of each epoch whether a validation comes after it; `console` is where it
    prints, the standard output by default.
    """

    def __init__(
        self,
        batch_size: int,
        steps: int,
        validation_steps: int,
        validated: Sequence[bool],
        console: Console | None = None,
    ):
        super().__init__()
        self.batch_size = batch_size
        self.steps = steps
        self.validation_steps = validation_steps
        self.validated = validated
        self.bar = rich.progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            speed_estimate_period=SPEED_SECONDS,
        )
        self.bar.disable = not self.bar.console.is_terminal
        self.task: TaskID | None = None

    def begin(self, epoch: int, done: int) -> None:
        """An epoch, numbered from 0, of which `done` steps were done before."""
        self.epoch = f"epoch {epoch + 1}/{len(self.validated)}"
        self.done = done
        self.began = self.spoke = time.monotonic()
        if self.task is None:  # not before: a resumed training begins in the midst
            steps = [self.steps + self.validation_steps * validated for validated in self.validated]
            self.task = self.bar.add_task(
                self.epoch, total=sum(steps), completed=sum(steps[:epoch]) + done, speed="", losses=""
            )

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._advance(f"step {self.done + batch + 1}/{self.steps}", logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._advance(f"validation {batch + 1}/{self.validation_steps}", logs)

    def scoring(self, batch: int, batches: int) -> None:
        """Batches done of those that AP is computed on; they are not in the bar's total."""
        self.bar.update(self.task, description=f"{self.epoch} AP {batch}/{batches}")

    def end(self, train: dict[str, float], validation: dict[str, float], scores: dict[str, float | None]) -> None:
        """The epoch's losses and scores by name."""
        seconds = timedelta(seconds=round(time.monotonic() - self.began))
        losses = _losses(train) + (f"; validation {_losses(validation)}" if validation else "")
        found = "".join(f", {name} {value:.3f}" for name, value in scores.items() if value is not None)
        self._say(f"{self.epoch} in {seconds}: {losses}{found}; {self._left()}")

    def _advance(self, step: str, logs: dict[str, float]) -> None:
        description = f"{self.epoch} {step}"
        self.bar.update(
            self.task, advance=1, description=description, speed=self._speed(), losses=_losses({"loss": logs["loss"]})
        )
        if self.bar.disable and time.monotonic() - self.spoke >= LINE_SECONDS:
            self._say(f"{description}: {_losses(logs)}; {self._left()}")

    def _speed(self) -> str:
        speed = self.bar.tasks[self.task].speed
        return f"{speed * self.batch_size:.1f} images/s" if speed else ""

    def _left(self) -> str:
        seconds = self.bar.tasks[self.task].time_remaining
        return f"{self._speed()}, {timedelta(seconds=seconds)} left" if seconds is not None else ""

    def _say(self, line: str) -> None:
        self.spoke = time.monotonic()
        self.bar.console.print(line, soft_wrap=True, highlight=False)
        self.bar.console.file.flush()


def _losses(logs: dict[str, Any]) -> str:
    """The sum first, then its parts."""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in logs.items() if name != "loss")
    return f"loss {logs['loss']:.3f}" + (f" ({parts})" if parts else "")
