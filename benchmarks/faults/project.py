"""A small pipeline in a folder of its own: the repository's files, few drawn pictures, params for seconds."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import yaml
from ruamel.yaml import YAML

from fashionseg_demo.competition import draw_competition

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 48
EPOCHS = 3
PARAMS = {
    "machine": {"workers": 1, "checkpoint_steps": 4},
    "data": {"source": "local", "path": "competition"},
    "split": {"folds": 3},
    "images": {"side": 64},
    "model": {"fpn_channels": 16, "proposals": 16, "detections": 10},
    "train": {"epochs": EPOCHS, "rois": 8, "warmup_steps": 2, "learning_rate": 0.003},
    "predict": {"score": 0.01},
    "evaluate": {"pictures": 2},
    "tune": {"trees": 5},
}
IDENTITY = {f"GIT_{role}_{what}": "someone@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {**os.environ, **IDENTITY, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
DVC = (sys.executable, "-m", "dvc")


def make(folder: Path, seed: int) -> Path:
    """The project, nothing run yet."""
    for name in ("plots", "stages", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    writer = YAML()
    params = writer.load(ROOT / "params.yaml")
    for section, values in PARAMS.items():
        params[section].update(values)
    writer.dump(params, folder / "params.yaml")
    draw_competition(folder / "competition", seed, IMAGES)
    for command in (("git", "init", "-q"), (*DVC, "init", "-q")):
        run(folder, *command, check=True)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    for command in (("git", "add", "-A"), ("git", "commit", "-q", "-m", "start")):
        run(folder, *command, check=True)
    return folder


def run(folder: Path, *command: str, **options) -> subprocess.CompletedProcess:
    options = {"env": ENVIRONMENT, "capture_output": True, "text": True, **options}
    return subprocess.run(command, cwd=folder, **options)


def repro(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run(folder, *DVC, "repro", *arguments)


def commands(folder: Path) -> dict[str, list[str]]:
    """What follows `sh` in the command of each stage, in the order in which DVC runs them."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    found = {}
    for name, stage in stages.items():
        for subset in stage.get("matrix", {}).get("subset", [""]):
            words = stage["cmd"].replace("${item.subset}", subset).split()[1:]
            found[f"{name}@{subset}" if subset else name] = words
    return found


def outs(folder: Path) -> dict[str, str]:
    """The md5 of each out that dvc.lock records."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def history(folder: Path) -> dict[str, str]:
    """What the training logged, without what a clock gives."""
    plots = folder / "results/train/plots/metrics"
    clocks = ("seconds", "images_per_second")
    found = {str(f.relative_to(plots)): f.read_text() for f in sorted(plots.rglob("*.tsv")) if f.stem not in clocks}
    last = json.loads((folder / "results/train/metrics.json").read_text())
    for clock in clocks:
        last["train"].pop(clock)
    return found | {"metrics.json": json.dumps(last)}


def differences(folder: Path, reference: Path) -> list[str]:
    """The outs that are not those of the reference; of the training's history what a clock gives does not count, nor
    of the page which shows it."""
    ours, theirs = outs(folder), outs(reference)
    found = sorted({path for path, _ in ours.items() ^ theirs.items()})
    if history(folder) == history(reference):
        found = [path for path in found if path != "results/train"]
    if _page_again(folder):
        found = [path for path in found if path != "reports/index.html"]
    return found


def _page_again(folder: Path) -> bool:
    """Whether the report's page is that of the outs beside it."""
    again = folder / "reports/again.html"
    *arguments, page = commands(folder)["report"][2:]
    with working_in(folder):
        stage("report")(*arguments, str(again))
    same = again.read_bytes() == (folder / page).read_bytes()
    again.unlink()
    return same


def stage(name: str):
    """`main` of a stage of this repository, for a call in this process."""
    spec = util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@contextmanager
def working_in(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def sentence(stderr: str) -> str:
    """The one line that says what is wrong, '' where there is none or a traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in stderr else ""


def leftovers(folder: Path) -> list[str]:
    """What is half-written: files that are written beside their place."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*.partial*") if ".dvc" not in path.parts]
