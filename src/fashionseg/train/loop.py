"""The epochs of a training: steps, validation, history, checkpoints, the best weights."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from fashionseg.console.progress import Progress
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Ahead, Batch, Batches
from fashionseg.model.compilation import compile_steps
from fashionseg.train import hosts
from fashionseg.train.callbacks import Count, Interrupt, LiveLog, Save, StopOnNaN
from fashionseg.train.checkpoint import Checkpoints, State
from fashionseg.train.config import Train
from fashionseg.train.optimizer import assign_average, optimizer, validating
from fashionseg.train.schedule import schedule
from fashionseg.train.tracker import Tracker

Losses = dict[str, float]
Scores = dict[str, float | None]
# As `validation.AveragePrecision`, of the model that is trained.
Scorer = Callable[[Callable[[int, int], None]], Scores]


def fit(
    model: keras.Model,
    batches: Batches,
    validation: Batches,
    scorer: Scorer,
    settings: Train,
    *,
    checkpoint_steps: int,
    folder: Path,
    results: Path,
    tracker: Tracker | None = None,
) -> None:
    """Trains until settings.epochs are done or AP no longer rises, from the checkpoint in `folder` on if there is one.

    After every settings.validate_epochs there are losses of `validation`, and AP by `scorer`; then the model ends with
    the weights of the highest. The history is written to `results`, and goes to `tracker`. Raises UserError at a NaN,
    at a signal, and where there are too few batches for a step of the optimizer.
    """
    steps = len(batches)
    if settings.accumulate > (whole := settings.epochs * steps):
        raise UserError(
            f"train.accumulate is {settings.accumulate}, but all of the training has {whole} batches, and the network "
            "would stay as it is; lower it."
        )
    rate = schedule(settings, whole)
    compile_steps(model, optimizer=optimizer(model, settings, rate, whole))
    model.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(folder, results)
    state = checkpoints.restore(model)
    state.step = min(state.step, steps)  # of an adopted checkpoint the epoch may have been longer
    if state.epoch or state.step:
        inside = f" and {state.step} of {steps} steps" * bool(state.step)
        print(f"resuming after epoch {state.epoch} of {settings.epochs}{inside} from {folder}")
    if not over(state, settings):
        with Interrupt() as interrupt:
            live = LiveLog(
                results,
                rate,
                state,
                images=steps * batches.batch_size,
                steps=steps,
                every=settings.log_steps,
                tracker=tracker,
            )
            epochs = Epochs(model, batches, validation, settings, state)
            epochs.run(scorer, live, checkpoints, Save(checkpoints, state, checkpoint_steps, interrupt))
    if tracker:
        tracker.end()
    if state.best_epoch:
        checkpoints.load_best(model, state)
        print(f"validation AP was best after epoch {state.best_epoch}, {state.best_ap:.3f}: these weights are kept")
    else:
        assign_average(model)


def over(state: State, settings: Train) -> bool:
    return state.epoch >= settings.epochs or 0 < settings.patience <= state.stale


def validates(epoch: int, settings: Train) -> bool:
    """Whether there is a validation after an epoch, counted from 1."""
    every = settings.validate_epochs
    return every > 0 and (epoch % every == 0 or epoch == settings.epochs)


class Epochs:
    """Those of a training that are left, after `state`."""

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        validation: Batches,
        settings: Train,
        state: State,
    ):
        self.model = model
        self.batches = batches
        self.validation = validation
        self.settings = settings
        self.state = state
        validated = [validates(epoch, settings) for epoch in range(1, settings.epochs + 1)]
        self.progress = Progress(settings.batch_size, len(batches), len(validation), validated)
        self.stop_on_nan = StopOnNaN(state, batches.names_of, validation.names_of)

    def run(self, scorer: Scorer, live: LiveLog, checkpoints: Checkpoints, save: Save) -> None:
        model, state = self.model, self.state
        live.set_model(model)  # `fit` does, but there is none where a validation is all that is left of an epoch
        with self.progress.bar:
            while not over(state, self.settings):
                self.progress.begin(state.epoch, state.step)
                if state.step < len(self.batches):
                    self._train(live, save)
                    if validates(state.epoch + 1, self.settings):
                        checkpoints.save(model, state)
                losses = {name: float(value) for name, value in model.get_metrics_result().items()}
                began = time.perf_counter()
                validation: Losses = {}
                scores: Scores = {}
                if validates(state.epoch + 1, self.settings):
                    with validating(model):
                        validation, scores = self._validate(scorer, save)
                        if state.judge(scores["AP"] or 0.0):
                            checkpoints.save_best(model, state)
                live.log_epoch(losses, validation | scores, time.perf_counter() - began)
                state.next_epoch()
                checkpoints.save(model, state)
                self.progress.end(losses, validation, scores)
        live.end()

    def _train(self, live: LiveLog, save: Save) -> None:
        """What is left of the epoch."""
        self.batches.epoch = self.state.epoch
        with fed(RemainingBatches(self.batches, self.state.step)) as data:
            self.model.fit(
                data,
                initial_epoch=self.state.epoch,
                epochs=self.state.epoch + 1,
                shuffle=False,  # Keras' order would follow from no seed of ours; the batches have their own
                verbose=0,
                callbacks=[Count(self.state), self.stop_on_nan, live, self.progress, save],
            )

    def _validate(self, scorer: Scorer, save: Save) -> tuple[Losses, Scores]:
        with fed(self.validation) as data:
            found = self.model.evaluate(
                data, verbose=0, return_dict=True, callbacks=[self.stop_on_nan, self.progress, save]
            )
        losses = {metric.name: found[metric.name] for metric in self.model.metrics}  # Keras sorts them

        def after_batch(batch: int, batches: int) -> None:
            self.progress.scoring(batch, batches)
            save.on_test_batch_end(batch)

        scores = scorer(after_batch)  # by each process, as devices need all of them; they may round differently
        return losses, dict(zip(scores, hosts.of_first(list(scores.values())), strict=True))


class RemainingBatches(keras.utils.PyDataset):
    """The batches of an epoch from number `first` on."""

    def __init__(self, batches: Batches, first: int):
        super().__init__(workers=1)  # of Keras' own; 1 is none
        self.batches = batches
        self.first = first

    def __len__(self) -> int:
        return len(self.batches) - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.batches[self.first + index]


@contextmanager
def fed(batches: keras.utils.PyDataset) -> Iterator[Any]:
    """The batches for `fit`, one of them ahead of the step. What reading a batch raises is raised as it was:
    TensorFlow makes text of it in an error of its own."""
    if keras.backend.backend() != "tensorflow":
        with ThreadPoolExecutor(1) as thread:
            yield Ahead(batches, thread)
        return
    raised: list[Exception] = []
    try:
        yield _of_any_shape(batches, raised)
    except Exception:
        if raised:
            raise raised[0] from None
        raise


def _of_any_shape(batches: keras.utils.PyDataset, raised: list[Exception]) -> Any:
    """The batches as tf.data. Keras would take the height and width of the first two for those of all.

    tf.data prefetches one batch; `Batches` itself has more of them ready. It does so without autotuning: the thread of
    that sleeps for up to a minute, and where it is not woken an epoch ends as long after its last batch. `raised` gets
    the error that reading a batch raises.
    """
    import tensorflow as tf

    first = batches[0]
    ready = [first]  # for the first epoch: where there are more, they may have others

    def read() -> Iterator[Batch]:
        try:
            yield ready.pop() if ready else batches[0]
            yield from map(batches.__getitem__, range(1, len(batches)))
        except Exception as error:
            raised.append(error)
            raise

    shapes = {name: values.shape for name, values in first.items()} | {"images": (None, None, None, 3)}
    specs = {name: tf.TensorSpec(shapes[name], values.dtype) for name, values in first.items()}
    data = tf.data.Dataset.from_generator(read, output_signature=specs)
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.apply(tf.data.experimental.assert_cardinality(len(batches))).with_options(options).prefetch(1)
