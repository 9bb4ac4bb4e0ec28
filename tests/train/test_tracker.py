"""The history at a tracker: here stand-ins that write down what they are told, docs/training.md says what was tried."""

import math
import sys
from types import SimpleNamespace

import pytest
from small import fit, rows

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.train import tracker

CONFIG = {"seed": 3, "train.epochs": 2}


class Wandb:
    def __init__(self):
        self.runs, self.axes, self.logged, self.ended = [], {}, [], 0

    def init(self, project, id, resume, config):
        self.runs.append((project, id or "new", resume, config))
        return SimpleNamespace(id=id or "new", define_metric=self.define, log=self.logged.append, finish=self.finish)

    def define(self, name, step_metric=None):
        self.axes[name] = step_metric

    def finish(self):
        self.ended += 1


class MLflow:
    def __init__(self):
        self.runs, self.params, self.logged, self.ended = [], [], [], 0
        self.set_experiment = lambda name: self.runs.append(name)
        self.log_params = self.params.append

    def start_run(self, run_id):
        self.runs.append(run_id)
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "new"))

    def log_metrics(self, values, step, synchronous):
        assert not synchronous
        self.logged.append({**values, "step" if any(name.startswith("steps/") for name in values) else "epoch": step})

    def end_run(self):
        self.ended += 1


@pytest.mark.parametrize(("name", "stand_in"), [("wandb", Wandb), ("mlflow", MLflow)])
def test_it_gets_every_row_of_the_tables(name, stand_in, tmp_path, monkeypatch):
    service = stand_in()
    monkeypatch.setitem(sys.modules, name, service)
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, epochs=2, tracker=tracker.start(name, tmp_path / "checkpoints", CONFIG))
    assert service.ended == 1
    for group, counter in {"steps": "step", "train": "epoch", "eval": "epoch"}.items():
        told = [values for values in service.logged if counter in values]
        tables = sorted((tmp_path / "results/plots/metrics" / group).glob("*.tsv"))
        assert {f"{group}/{table.stem}" for table in tables} == {
            k for v in told for k in v if k.startswith(group + "/")
        }
        for table in tables:
            expected = rows(tmp_path / "results", f"{group}/{table.stem}")
            values = [(v[counter], v[f"{group}/{table.stem}"]) for v in told if f"{group}/{table.stem}" in v]
            assert [count for count, _ in values] == expected["step"].tolist()
            assert [value for _, value in values] == pytest.approx(expected[table.stem].tolist(), rel=1e-9)
    assert all(math.isfinite(value) for values in service.logged for value in values.values())
    told = len(service.logged)
    fit(tmp_path, epochs=2, tracker=tracker.start(name, tmp_path / "checkpoints", CONFIG))  # nothing is left to train
    assert (len(service.logged), service.ended) == (told, 2)


@pytest.mark.parametrize(("name", "stand_in"), [("wandb", Wandb), ("mlflow", MLflow)])
def test_a_training_that_goes_on_stays_in_its_run(name, stand_in, tmp_path, monkeypatch):
    service = stand_in()
    monkeypatch.setitem(sys.modules, name, service)
    assert tracker.start(name, tmp_path, CONFIG).id == "new"
    files.write_json(tmp_path / tracker.RUN, {name: "earlier"})
    assert tracker.start(name, tmp_path, CONFIG).id == "earlier"
    if name == "wandb":
        assert [run[1] for run in service.runs] == ["new", "earlier"]
        assert service.runs[1] == ("fashionseg", "earlier", "allow", CONFIG)
        assert service.axes == {"step": None, "epoch": None, "steps/*": "step", "train/*": "epoch", "eval/*": "epoch"}
    else:
        assert service.runs == ["fashionseg", None, "earlier"]
        assert service.params == [CONFIG, CONFIG]


def test_a_training_outlives_its_server(tmp_path, monkeypatch, capsys):
    """MLflow's client asks it at the end, even where nothing else waits for an answer."""
    service = MLflow()
    service.end_run = lambda: (_ for _ in ()).throw(ConnectionError("API request failed\nmore"))
    monkeypatch.setitem(sys.modules, "mlflow", service)
    tracker.start("mlflow", tmp_path, CONFIG).end()
    assert capsys.readouterr().out == "machine.tracker is mlflow, which was not told of the end: API request failed\n"


def test_what_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    assert tracker.start(None, tmp_path, CONFIG) is None
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"tracker is wandb.*pip install wandb"):
        tracker.start("wandb", tmp_path, CONFIG)
    service = Wandb()
    service.init = lambda **_: (_ for _ in ()).throw(ValueError("No API key configured.\nmore"))
    monkeypatch.setitem(sys.modules, "wandb", service)
    with pytest.raises(UserError, match=r"does not start: No API key configured\.$"):
        tracker.start("wandb", tmp_path, CONFIG)
    assert not (tmp_path / tracker.RUN).exists()
