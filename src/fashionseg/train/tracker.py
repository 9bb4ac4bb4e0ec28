"""The history of a training to Weights & Biases or MLflow, beside DVCLive's, as machine.tracker says."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from fashionseg.core import documents, files
from fashionseg.core.errors import UserError, first_line

PROJECT = "fashionseg"
RUN = "tracker.json"  # beside the checkpoints: the run that a training which goes on belongs to


class Tracker(Protocol):
    id: str  # of the run, given by the service

    def log(self, values: dict[str, float], counter: str, count: int) -> None:
        """Values by name at a count of `counter`, which is "step" or "epoch"."""

    def end(self) -> None: ...


def start(name: str | None, folder: Path, config: dict[str, Any]) -> Tracker | None:
    """The tracker of this name, None without one. config: params by name, shown with the run.

    A training whose checkpoints lie in `folder` goes on in the run that it began. Raises UserError where the package is
    not installed or the service refuses.
    """
    if name is None:
        return None
    try:
        package = import_module(name)
    except ImportError as error:
        raise UserError(
            f"machine.tracker is {name}, but it cannot be imported ({error}); run `.venv/bin/uv pip install {name}`."
        ) from None
    run = documents.read(folder / RUN, {str: str}).get(name) if (folder / RUN).exists() else None
    try:
        tracker = TRACKERS[name](package, run, config)
    except Exception as error:  # of the service, the network, the login
        raise UserError(f"machine.tracker is {name}, which does not start: {first_line(error)}") from None
    files.write_json(folder / RUN, {name: tracker.id})
    return tracker


class Wandb:
    """Where it writes and as whom, `wandb login` and WANDB_... in the environment say."""

    def __init__(self, wandb: Any, run: str | None, config: dict[str, Any]):
        self.run = wandb.init(project=PROJECT, id=run, resume="allow", config=config)
        self.id = self.run.id
        for counter, groups in {"step": ["steps"], "epoch": ["train", "eval"]}.items():
            self.run.define_metric(counter)
            for group in groups:
                self.run.define_metric(f"{group}/*", step_metric=counter)

    def log(self, values: dict[str, float], counter: str, count: int) -> None:
        self.run.log({**values, counter: count})

    def end(self) -> None:
        self.run.finish()


class MLflow:
    """Where it writes, MLFLOW_TRACKING_URI says."""

    def __init__(self, mlflow: Any, run: str | None, config: dict[str, Any]):
        self.mlflow = mlflow
        if run is None:
            mlflow.set_experiment(PROJECT)
        self.id = mlflow.start_run(run_id=run).info.run_id
        mlflow.log_params(config)

    def log(self, values: dict[str, float], counter: str, count: int) -> None:
        self.mlflow.log_metrics(values, step=count, synchronous=False)  # no training ends with the server

    def end(self) -> None:
        try:
            self.mlflow.end_run()
        except Exception as error:  # the server is gone: the training is whole all the same
            print(f"machine.tracker is mlflow, which was not told of the end: {first_line(error)}")


TRACKERS: dict[str, Callable[[Any, str | None, dict[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": MLflow}
