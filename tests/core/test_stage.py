"""What DVC would record wrongly ends a stage in one sentence."""

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from fashionseg.core import stage

SECTIONS = {"seed": 1, "train": {"epochs": 2}, "tune": {"trees": 3}}
DVC_YAML = """
stages:
  train:
    cmd: sh stages/run train
    deps: [stages/train.py, src/fashionseg/train, data/coco]
    params: [seed, train]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which DVC runs the stage train."""
    for name in ("stages/train.py", "src/fashionseg/train/loop.py", "src/fashionseg/tune.py", "data/coco/train.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(json.dumps(SECTIONS))
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr("sys.argv", [str(stage.ROOT / "stages/train.py")])
    stage._made_from.cache_clear()
    yield tmp_path
    stage._made_from.cache_clear()


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("params.yaml", json.dumps(SECTIONS | {"train": {"epochs": 9}}), "params.yaml (train) changed"),
        ("params.yaml", "", "params.yaml (seed), params.yaml (train) changed"),
        ("src/fashionseg/train/loop.py", "1", "src/fashionseg/train/loop.py changed"),
        ("src/fashionseg/train/new.py", "1", "src/fashionseg/train/new.py changed"),
        ("src/fashionseg/train/page.css", "1", "src/fashionseg/train/page.css changed"),
        ("src/fashionseg/train/.loop.py.swp", "1", ""),
        ("src/fashionseg/train/loop.py~", "1", ""),
        ("stages/train.py", "1", "stages/train.py changed"),
        ("params.yaml", json.dumps(SECTIONS | {"tune": {}}, indent=1), ""),
        ("params.yaml", json.dumps(dict(reversed(SECTIONS.items()))), ""),
        ("src/fashionseg/tune.py", "1", ""),
        ("src/fashionseg/train/loop.py", "0", ""),
    ],
)
def test_what_changed_while_a_stage_ran_is_not_recorded(project, file, content, named):
    def run():
        with stage.running():
            (project / file).write_text(content)

    if not named:
        run()
        return
    with pytest.raises(SystemExit, match="error: ") as ended:
        run()
    assert str(ended.value).startswith(f"error: {named} while train ran")


def test_what_editors_leave_is_passed_over_by_dvc_too():
    assert [line.rstrip("/") for line in Path(stage.ROOT, ".dvcignore").read_text().split()] == list(stage.PASSED_OVER)


@pytest.mark.parametrize("content", ["", "{", "stages: {tune: {}}"])
def test_a_dvc_yaml_that_lost_the_stage_is_one_sentence(project, content):
    with (
        pytest.raises(SystemExit, match=r"^error: dvc\.yaml is damaged or has no stage train any more"),
        stage.running(),
    ):
        (project / "dvc.yaml").write_text(content)


def test_a_key_is_watched_and_not_its_section(project):
    (project / "dvc.yaml").write_text(DVC_YAML.replace("train]", "train.epochs]"))
    (project / "params.yaml").write_text(json.dumps(SECTIONS | {"train": {"epochs": 1, "rate": 1}}))
    with stage.running():
        (project / "params.yaml").write_text(json.dumps(SECTIONS | {"train": {"epochs": 1, "rate": 2}}))
    stage._made_from.cache_clear()
    with pytest.raises(SystemExit, match=r"params\.yaml \(train\.epochs\) changed"), stage.running():
        (project / "params.yaml").write_text(json.dumps(SECTIONS | {"train": {"epochs": 2, "rate": 2}}))


def test_without_dvc_nothing_is_recorded(project, monkeypatch):
    monkeypatch.delenv("DVC_STAGE")
    with stage.running():
        (project / "params.yaml").write_text("")


@pytest.fixture
def stranger() -> int:
    """A process that is none of those above this one."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def at_work(pid: int, command: str) -> None:
    """As DVC notes who uses which file."""
    info = {"pid": pid, "cmd": f"/bin/dvc {command}"}
    Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": {"/models": info}, "read": {"/data": [info]}}))


@pytest.mark.parametrize("command", ["exp run -S seed=2", "repro"])
def test_an_experiment_beside_another_run_is_refused(project, monkeypatch, stranger, command):
    at_work(stranger, command)
    with stage.running():  # `dvc repro`, which changes no params
        pass
    monkeypatch.setenv("DVC_EXP_NAME", "some")
    with pytest.raises(SystemExit, match="at work in this folder") as ended, stage.running():
        pass
    assert str(ended.value).startswith(f"error: `/bin/dvc {command}` (process {stranger}) is at work")


def test_an_experiment_beside_a_dead_run_or_a_look_at_the_state_goes_on(project, monkeypatch, stranger):
    monkeypatch.setenv("DVC_EXP_NAME", "some")
    for pid, command in ((stranger, "data status"), (2**22 + 1, "exp run")):  # beyond the highest id of Linux
        at_work(pid, command)
        with stage.running():
            pass
    Path(".dvc/tmp/rwlock").write_text("")  # DVC is writing it
    with stage.running():
        pass


def test_an_experiment_ends_where_its_params_are_no_longer_its_own(project, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "some")
    at_work(os.getppid(), "exp run -S seed=1")
    with stage.running():
        pass
    (project / "params.yaml").write_text(json.dumps(SECTIONS | {"tune": {}}))  # between two stages
    with pytest.raises(SystemExit, match="has changed since this experiment began"), stage.running():
        pass


@pytest.mark.parametrize("noted", [True, False])
def test_the_next_experiment_has_params_of_its_own(project, monkeypatch, noted):
    """Though its process has the number of an earlier one, or DVC noted none."""
    monkeypatch.setenv("DVC_EXP_NAME", "some")
    for number in (1, 2):
        monkeypatch.setattr(psutil.Process, "create_time", lambda _, began=number: began)
        if noted:
            at_work(os.getppid(), f"exp run -S seed={number}")
        (project / "params.yaml").write_text(json.dumps(SECTIONS | {"seed": number}))
        stage._made_from.cache_clear()
        with stage.running():
            pass


@pytest.mark.parametrize("name", ["train@val", "dvc.yaml:train", "sub/dvc.yaml:train@val"])
def test_a_stage_of_a_matrix_is_watched(project, monkeypatch, name):
    monkeypatch.setenv("DVC_STAGE", name)
    with pytest.raises(SystemExit, match="changed while train ran"), stage.running():
        (project / "stages/train.py").write_text("1")


def test_plots_are_watched_too(project):
    (project / "plots").mkdir()
    (project / "dvc.yaml").write_text(DVC_YAML.replace("data/coco", "plots"))
    with pytest.raises(SystemExit, match=r"plots/losses\.json changed"), stage.running():
        (project / "plots/losses.json").write_text("1")


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_run_that_reads_or_writes_alone_is_one_beside(project, monkeypatch, stranger, kind):
    info = {"pid": stranger, "cmd": "dvc repro"}
    noted = {"read": {"/data": [info]}} if kind == "read" else {"write": {"/models": info}}
    Path(".dvc/tmp/rwlock").write_text(json.dumps(noted))
    monkeypatch.setenv("DVC_EXP_NAME", "some")
    with pytest.raises(SystemExit, match="at work in this folder"), stage.running():
        pass
