"""A small pipeline in a folder of its own: the repository's files, few drawn pictures, params for seconds."""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import yaml
from ruamel.yaml import YAML

from fashionseg.core import files
from fashionseg_demo.competition import draw_competition

ROOT = Path(__file__).resolve().parents[2]
PARAMS = {
    "machine": {"workers": 1, "checkpoint_steps": 4},
    "data": {"source": "local", "path": "competition"},
    "split": {"folds": 3},
    "images": {"side": 64},
    "model": {"fpn_channels": 16, "proposals": 16, "detections": 10},
    "train": {"epochs": 4, "rois": 8, "accumulate": 2, "ema": 0.9, "warmup_steps": 2, "validate_epochs": 1},
    "predict": {"score": 0.01, "scales": [1.0]},
    "evaluate": {"pictures": 2},
    "tune": {"trees": 5},
}
OF_CLOCKS = ("seconds.tsv", "images_per_second.tsv", "metrics.json", "index.html")  # of a run that took another time
IDENTITY = {f"GIT_{role}_{what}": "someone@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {**os.environ, **IDENTITY, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
DVC = (sys.executable, "-m", "dvc")


def reference(folder: Path, seed: int) -> dict[str, float]:
    """The project after an undisturbed run, made where it is not there yet; the seconds that each stage took."""
    log = folder / "seconds.json"
    if not log.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make(folder, seed, images=48)
        for command in (("git", "init", "-q"), (*DVC, "init", "-q")):
            run(folder, *command, check=True)
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc")
        for command in (("git", "add", "-A"), ("git", "commit", "-q", "-m", "start")):
            run(folder, *command, check=True)
        seconds = {}
        for name in commands(folder):
            began = time.monotonic()
            run(folder, *DVC, "repro", "--single-item", name, check=True)
            seconds[name] = time.monotonic() - began
        log.write_text(json.dumps(seconds))
    return json.loads(log.read_text())


def make(folder: Path, seed: int, images: int) -> None:
    """The project as it is before its first commit, with a drawn competition."""
    for name in ("plots", "stages", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    writer = YAML()
    params = writer.load(ROOT / "params.yaml")
    for section, values in PARAMS.items():
        params[section].update(values)
    writer.dump(params, folder / "params.yaml")
    draw_competition(folder / "competition", seed, images)


def run(folder: Path, *command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, **options)


@functools.cache
def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each stage, in the order in which they run."""
    found = {}
    for name, stage in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].items():
        for subset in stage.get("matrix", {}).get("subset", [""]):
            found[f"{name}@{subset}" if subset else name] = stage["cmd"].replace("${item.subset}", subset).split()
    return found


def outs(folder: Path) -> dict[str, list[str]]:
    """Of each stage, as dvc.lock has them."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {name: [out["path"] for out in stage["outs"]] for name, stage in stages.items()}


def different(folder: Path, other: Path, found: list[str]) -> list[str]:
    """The outs, of those found, that do not hold the same in both folders, but for what a clock gave."""
    return [out for out in found if _contents(folder / out) != _contents(other / out)]


def _contents(path: Path) -> dict[Path, bytes]:
    every = [file for file in (path, *path.rglob("*")) if file.is_file()]
    return {file.relative_to(path): b"" if file.name in OF_CLOCKS else file.read_bytes() for file in every}


def remove(folder: Path, *paths: str) -> None:
    for path in paths:
        files.remove(folder / path)


def stage(*names: str) -> None:
    """Runs stages of this repository in this process, here."""
    for name in names:
        _, _, script, *arguments = commands(Path())[name]
        spec = util.spec_from_file_location(f"stage_{script}", ROOT / "stages" / f"{script}.py")
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(*arguments)


def sentence(stderr: str) -> str:
    """The one line that says what is wrong, '' where there is none or a traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in stderr else ""
