"""Checkpoints: all that a training needs to go on exactly where it was, inside an epoch, too."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import ops

from fashionseg.core import digests, documents, files
from fashionseg.core.errors import UserError
from fashionseg.train import hosts

DIGESTS = "digests.json"  # of the other files of a checkpoint


@dataclass
class State:
    """Where a training stands, beside its variables: what the loop and its callbacks count.

    epoch: epochs done; step: steps done of the next one; seconds: that these steps took. logged_step and logged_sums
    (losses by name): of this epoch up to the last row of `LiveLog`. best_epoch: epochs done when validation AP was
    best, 0 without any; best_ap; stale: validations since AP last rose.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    logged_step: int = 0
    logged_sums: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best_ap: float = -1.0
    stale: int = 0

    def judge(self, ap: float) -> bool:
        """Takes note of the AP after this epoch; whether none was better: of equal ones the last counts as best."""
        self.stale = 0 if ap > self.best_ap else self.stale + 1
        best = ap >= self.best_ap
        if best:
            self.best_epoch, self.best_ap = self.epoch + 1, ap
        return best

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step, self.seconds, self.logged_step, self.logged_sums = 0, 0.0, 0, {}


class Checkpoints:
    """Those of one training, in `folder`: the newest, epoch-<epochs done>-step-<steps done after them>.

    It holds every variable of model, optimizer and losses so far, the seed generators' included, the `State`, and a
    copy of the folder `results`, so that weights and history are of the same moment, and each file's digest. An older
    one is removed once the next is whole: a kill leaves the newest that was complete. The weights of the best epoch lie
    beside it, as best-<epochs done>.npz. Of several processes all read and the first one writes.
    """

    def __init__(self, folder: str | Path, results: str | Path):
        self.folder = Path(folder)
        self.results = Path(results)

    def save(self, model: keras.Model, state: State) -> None:
        # A new name each time: that makes the renaming of a whole folder atomic.
        target = self.folder / f"epoch-{state.epoch:04}-step-{state.step:06}"
        if hosts.index() or target.exists():  # the second: a signal right after a checkpoint
            return
        with files.replacing(target) as beside:
            not_removed(self.results)
            shutil.copytree(self.results, beside / "results")
            files.write_json(beside / "state.json", asdict(state))
            _write(beside / "state.npz", _variables(model))
            files.write_json(beside / DIGESTS, _digests(beside), indent=1)
        for older in checkpoints_in(self.folder)[:-1]:
            files.remove(older)
        for older in self.folder.glob("best-*"):
            if older != self._best(state):
                files.remove(older)

    def restore(self, model: keras.Model) -> State:
        """Brings back model, optimizer and `results`; the state is a new one without a checkpoint.

        The model is compiled and its optimizer built. What `results` held before is removed. Raises UserError where
        the checkpoint is damaged or of a different model, and where it is not the same for all processes.
        """
        if hosts.index() == 0:
            files.remove(self.results)
        checkpoints = checkpoints_in(self.folder)
        hosts.agree("".join(path.name for path in checkpoints[-1:]), "the checkpoint that they see")
        if not checkpoints:
            return State()
        newest = checkpoints[-1]
        if (newest / DIGESTS).exists():  # as of all but those of earlier versions, which train.resume may name
            then, now = documents.read(newest / DIGESTS, {str: str}), _digests(newest)
            if changed := sorted(name for name, _ in then.items() ^ now.items()):
                raise UserError(
                    f"{newest / changed[0]} is not as it was written; remove {self.folder} to train afresh."
                )
        self._assign(_variables(model), newest / "state.npz")
        if hosts.index() == 0:
            shutil.copytree(newest / "results", self.results)
        return State(**files.read_json(newest / "state.json"))

    def save_best(self, model: keras.Model, state: State) -> None:
        """The weights as those of state.best_epoch; the next checkpoint names it."""
        if hosts.index():
            return
        with files.replacing(self._best(state)) as beside:
            _write(beside, model.weights)

    def load_best(self, model: keras.Model, state: State) -> None:
        self._assign(model.weights, self._best(state))

    def _assign(self, variables: list[keras.Variable], path: Path) -> None:
        """Raises UserError where the file is damaged, which its checksums tell, or of other variables."""
        try:
            with np.load(path) as saved:
                values = {name: saved[name] for name in saved.files}
        except Exception as error:  # a damaged archive raises many kinds
            raise UserError(f"{path} is damaged ({error}); remove {self.folder} to train afresh.") from None
        shapes = {name: value.shape for name, value in values.items()}
        if shapes != dict(zip(_keys(variables), (tuple(variable.shape) for variable in variables), strict=True)):
            raise UserError(
                f"{path} was written by a different version of the model, or with another train.optimizer, ema or "
                f"accumulate; remove {self.folder} to train afresh."
            )
        for variable, value in zip(variables, values.values(), strict=True):
            variable.assign(value)

    def _best(self, state: State) -> Path:
        return self.folder / f"best-{state.best_epoch:04}.npz"


def not_removed(results: Path) -> None:
    """Raises UserError where the history is gone: a checkpoint with what comes after it alone would be no whole one."""
    if not results.exists():
        raise UserError(
            f"{results} was removed while this training ran, as a second `dvc repro` beside it does; run it again, it "
            "goes on from the last checkpoint."
        )


def checkpoints_in(folder: Path) -> list[Path]:
    """Those of a folder that are whole, the newest last."""
    return sorted(folder.glob("epoch-*"))


def forget_best(checkpoint: Path) -> None:
    """Of a checkpoint no epoch was best so far."""
    new, path = State(), checkpoint / "state.json"
    best = {"best_epoch": new.best_epoch, "best_ap": new.best_ap, "stale": new.stale}
    files.write_json(path, files.read_json(path) | best)
    if (checkpoint / DIGESTS).exists():
        then = files.read_json(checkpoint / DIGESTS)
        files.write_json(checkpoint / DIGESTS, then | {path.name: digests.of_files([path])}, indent=1)


def _digests(checkpoint: Path) -> dict[str, str]:
    """Of its files by name, but for the file of these."""
    found = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != DIGESTS)
    return {path.relative_to(checkpoint).as_posix(): digests.of_files([path]) for path in found}


def _write(path: Path, variables: list[keras.Variable]) -> None:
    np.savez(path, **dict(zip(_keys(variables), map(ops.convert_to_numpy, variables), strict=True)))


def _keys(variables: list[keras.Variable]) -> list[str]:
    """Place and kind (kernel, momentum, average, ...): another optimizer has as many of the same shapes. Names are no
    key, as Keras numbers layers anew."""
    return [f"{place}_{variable.name.rpartition('_')[2]}" for place, variable in enumerate(variables)]


def _variables(model: keras.Model) -> list[keras.Variable]:
    # save_weights would leave out the seed generators.
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]
