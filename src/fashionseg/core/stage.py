"""What holds while a stage runs under DVC: its own sources, params.yaml for it alone, and a true record at its end."""

import fnmatch
import functools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from fashionseg.core import digests, files, paths
from fashionseg.core.errors import UserError, reported

ROOT = Path(__file__).resolve().parents[3]
NOTES = Path(".dvc", "tmp")  # DVC's own, and what this module notes
PARAMS = Path("params.yaml")
CODE = ("src/", "stages/", "plots")
PASSED_OVER = ("__pycache__", ".*.sw?", "*~", ".DS_Store", ".ipynb_checkpoints")  # as .dvcignore
QUEUE = "queue experiments: `dvc exp run --queue -S ...`, then `dvc queue start`"


@contextmanager
def running() -> Iterator[None]:
    """Of each stage: its errors as `reported` prints them; ends it where what it does would be recorded wrongly."""
    with reported():
        _own_sources()
        if "DVC_EXP_NAME" in os.environ:
            _alone()
        _made_from()
        yield
        check()


def check() -> None:
    """Raises UserError where the params or the code that dvc.yaml names for this stage are not what they were when it
    began: DVC looks at them once it has ended, and would record them as what its outs were made from."""
    if changed := sorted({name for name, _ in _made_from().items() ^ _state().items()}):
        raise UserError(
            f"{', '.join(changed)} changed while {_name()} ran, and DVC would record its outs as made from what is "
            "there now; run it again, or change that back first: train and predict then only write their outs."
        )


@functools.cache
def _made_from() -> dict[str, str]:
    """`_state` when the stage began."""
    return _state()


def _state() -> dict[str, str]:
    """What tells if the params and the code changed that dvc.yaml names for the stage that DVC runs; {} without DVC.
    Code is all that lies in its folders, but for what .dvcignore names."""
    if not _name():
        return {}
    described = _stages().get(_name())
    if not isinstance(described, dict):
        raise UserError(f"dvc.yaml is damaged or has no stage {_name()} any more; mend it and run again.")
    folders = [Path(path) for path in described.get("deps", []) if path.startswith(CODE)]
    found = [file for path in folders for file in ([path] if path.is_file() else path.rglob("*"))]
    code = [file for file in found if file.is_file() and not any(map(_passed_over, file.parts))]
    try:
        params = yaml.safe_load(PARAMS.read_bytes())
        values = {f"{PARAMS} ({key})": _value(params, key) for key in described.get("params", [])}
    except (AttributeError, OSError, ValueError, yaml.YAMLError):  # `params.load` tells what is wrong with it
        values = {}
    return values | {str(file): digests.of_files([file]) for file in code}


def _passed_over(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in PASSED_OVER)


def _value(params: dict[str, Any], key: str) -> str:
    """Of a key such as predict.models, as text in which the order of keys tells nothing."""
    value = functools.reduce(lambda tree, part: tree.get(part), key.split("."), params)
    return json.dumps(value, sort_keys=True, default=str)


def record() -> str | None:
    """What dvc.lock holds of the stage that DVC runs, as a digest that changes once DVC has recorded its outs. None
    without DVC, and in a queued or --temp experiment, whose folder goes with it."""
    if not _name() or paths.project() != Path():
        return None
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        lock = None
    return digests.of_text(json.dumps(lock and lock.get("stages", {}).get(_name()), default=str))


def cached(md5: str) -> bool:
    """Whether DVC's cache in this folder has a file of these contents: it gets all outs before dvc.lock names them."""
    return Path(".dvc/cache/files/md5", md5[:2], md5[2:]).exists()


def outs() -> list[Path]:
    """What the stages of dvc.yaml write, which DVC removes before they do."""
    named = [out for stage in _stages().values() for kind in ("outs", "metrics") for out in stage.get(kind, [])]
    return [Path(next(iter(out)) if isinstance(out, dict) else out) for out in named]


def _stages() -> dict[str, Any]:
    """What dvc.yaml says of each stage; {} where it is not there or damaged, which DVC itself refuses."""
    try:
        return dict(yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"])
    except (KeyError, OSError, TypeError, ValueError, yaml.YAMLError):
        return {}


def _name() -> str:
    """Of the stage in dvc.yaml that DVC runs, '' without DVC."""
    return os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")[0]


def _own_sources() -> None:
    """Refuses a stage of another checkout than the imported sources: DVC would record the wrong dependencies."""
    script = Path(sys.argv[0]).resolve()
    if script.parents[1] != ROOT:
        raise UserError(
            f"{script} would run the sources in {ROOT}; use `sh stages/run {script.stem} ...` to run its own."
        )


def _alone() -> None:
    """Refuses a stage of `dvc exp run` while another run of DVC works in this folder, and where params.yaml is not what
    it was in the experiment's first stage: each writes its own values into it."""
    above, own = {process.pid: process for process in psutil.Process().parents()}, []
    for pid, command in _at_work().items():
        if pid in above:
            own.append([pid, above[pid].create_time()])
        elif {"run", "repro"} & {*command.split()} and psutil.pid_exists(pid):
            raise UserError(
                f"`{command}` (process {pid}) is at work in this folder, and {PARAMS} now holds the values of this "
                f"experiment for both; {QUEUE}."
            )
    note, began = NOTES / "experiment.json", {"run": own, "params": digests.of_files([PARAMS])}
    before = files.read_json(note) if note.exists() else began
    if own and before["run"] == own and before != began:
        raise UserError(
            f"{PARAMS} has changed since this experiment began, by hand or by another `dvc exp run`; run it again, or "
            f"{QUEUE}."
        )
    files.write_json(note, began)


def _at_work() -> dict[int, str]:
    """The commands, by process, that DVC has noted as users of files of this folder."""
    locks = {}
    with suppress(FileNotFoundError, ValueError):  # ValueError: while DVC is writing it
        locks = json.loads((NOTES / "rwlock").read_text())
    noted = [*locks.get("write", {}).values(), *(info for infos in locks.get("read", {}).values() for info in infos)]
    return {info["pid"]: info["cmd"] for info in noted}
