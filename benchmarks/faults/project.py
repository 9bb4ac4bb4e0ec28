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

from fashionseg_demo.competition import draw_competition

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 48
PARAMS = {
    "machine": {"workers": 1, "checkpoint_steps": 4},
    "data": {"source": "local", "path": "competition"},
    "split": {"folds": 3},
    "images": {"side": 64},
    "model": {"fpn_channels": 16, "proposals": 16, "detections": 10},
    "train": {"epochs": 2, "rois": 8, "warmup_steps": 2, "validate_epochs": 1},
    "predict": {"score": 0.01},
    "evaluate": {"pictures": 2},
    "tune": {"trees": 5},
}
CLOCKS = ("seconds", "images_per_second")
IDENTITY = {f"GIT_{role}_{what}": "someone@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {**os.environ, **IDENTITY, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
DVC = (sys.executable, "-m", "dvc")


def reference(folder: Path, seed: int) -> dict[str, float]:
    """The project after an undisturbed run, made where it is not there yet; the seconds that each stage took."""
    log = folder / "seconds.json"
    if not log.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, seed)
        seconds = {}
        for name in commands(folder):
            began = time.monotonic()
            run(folder, *DVC, "repro", "--single-item", name, check=True)
            seconds[name] = time.monotonic() - began
        log.write_text(json.dumps(seconds))
    return json.loads(log.read_text())


def _make(folder: Path, seed: int) -> None:
    files_of(folder, seed)
    for command in (("git", "init", "-q"), (*DVC, "init", "-q")):
        run(folder, *command, check=True)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc")
    for command in (("git", "add", "-A"), ("git", "commit", "-q", "-m", "start")):
        run(folder, *command, check=True)


def files_of(folder: Path, seed: int, images: int = IMAGES) -> None:
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
    options = {"env": ENVIRONMENT, "capture_output": True, "text": True, **options}
    return subprocess.run(command, cwd=folder, **options)


@functools.cache
def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each stage, in the order in which they run."""
    found = {}
    for name, stage in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].items():
        for subset in stage.get("matrix", {}).get("subset", [""]):
            found[f"{name}@{subset}" if subset else name] = stage["cmd"].replace("${item.subset}", subset).split()
    return found


def outs(folder: Path) -> dict[str, dict[str, str]]:
    """Of each stage the md5 of its outs, as dvc.lock has them."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in stages.items()}


def differences(folder: Path, other: Path) -> list[str]:
    """The outs of a whole run that are not those of the other; what a clock gave does not count, nor the report's page,
    which shows it."""
    both = [{path: md5 for outs_ in outs(root).values() for path, md5 in outs_.items()} for root in (folder, other)]
    found = sorted({path for path, _ in both[0].items() ^ both[1].items()} - {"results/train", "reports/index.html"})
    return found + ["results/train"] * (history(folder) != history(other))


def history(folder: Path) -> dict[str, str]:
    """What a training logged, without what a clock gave."""
    plots = folder / "results/train/plots/metrics"
    found = {str(file.relative_to(plots)): file.read_text() for file in plots.rglob("*.tsv") if file.stem not in CLOCKS}
    last = json.loads((folder / "results/train/metrics.json").read_text())
    kept = {name: value for name, value in last["train"].items() if name not in CLOCKS}
    return found | {"metrics.json": json.dumps({**last, "train": kept})}


def stage(command: list[str]) -> None:
    """Runs a stage of this repository in this process, here."""
    spec = util.spec_from_file_location(f"stage_{command[2]}", ROOT / "stages" / f"{command[2]}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*command[3:])


def sentence(stderr: str) -> str:
    """The one line that says what is wrong, '' where there is none or a traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in stderr else ""
