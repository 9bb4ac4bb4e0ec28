"""How stages are started: `stages/run` in a small project of its own, with a stage that tells which sources it ran."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGE = """
import sys
from pathlib import Path
from joblib.externals.loky import ProcessPoolExecutor
from fashionseg.which import name
with ProcessPoolExecutor(1) as pool:
    Path(sys.argv[1]).write_text(f"{name()} {pool.submit(name).result()}")
"""
DVC_YAML = """
stages:
  which:
    cmd: sh stages/run which out.txt
    deps: [src]
    outs:
    - out.txt: {cache: false}
"""

HOLDING = """
import sys
import time
from pathlib import Path
from fashionseg.core.stage import running
seed = Path("params.yaml").read_text()
with running():
    Path("begun", sys.argv[1]).touch()
    while Path("hold", sys.argv[1]).exists():
        time.sleep(0.05)
    Path(sys.argv[1]).write_text(seed)
"""
TWO_STAGES = """
stages:
  source:
    cmd: sh stages/run holding source.txt
    always_changed: true
    deps: [src]
    params: [seed]
    outs: [source.txt]
  train:
    cmd: sh stages/run holding train.txt
    deps: [src]
    params: [seed]
    outs: [train.txt]
"""


# All in one process, as each start of DVC takes a second; a queued run as the worker of `dvc queue start` does it,
# which itself waits ten seconds for more.
RUNS = """
import subprocess
from pathlib import Path
import dvc_task.proc.tasks  # a worker's celery knows it
from dvc.cli import main
from dvc.repo import Repo
from dvc.repo.experiments.queue.tasks import run_exp

def write(name):
    Path("src/fashionseg/which.py").write_text(f"def name(): return {name!r}")

def dvc(*arguments):
    assert main([*arguments, "-q"]) == 0, arguments

write("workspace")
dvc("init")
dvc("repro")
subprocess.run("git add -A && git commit -q -m start", shell=True, check=True)
write("queued")
dvc("exp", "run", "--queue", "-n", "queued")
write("temp")
dvc("exp", "run", "--temp", "-n", "temp")
write("workspace")
with Repo() as repo:
    (entry,) = repo.experiments.celery_queue.iter_queued()
run_exp(entry.asdict())
"""


def call(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=env or None, capture_output=True, text=True)


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With this interpreter as its environment."""
    folder = tmp_path / "a project"
    (folder / "src" / "fashionseg").mkdir(parents=True)
    (folder / "src" / "fashionseg" / "__init__.py").touch()
    (folder / "src" / "fashionseg" / "which.py").write_text("def name(): return 'workspace'")
    (folder / "stages").mkdir()
    shutil.copy(ROOT / "stages" / "run", folder / "stages")
    (folder / "stages" / "which.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    script(folder / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    (folder / ".gitignore").write_text(".*\n!.gitignore\n!.dvc\n")
    return folder


def test_every_way_of_running_runs_its_own_sources(project, tmp_path):
    """The workspace, a --temp and a queued experiment, and a worker process of each; the environment is not on the
    PATH, and installed in it are other sources."""
    script(tmp_path / "bin" / "dvc", f'exec "{sys.executable}" -m dvc "$@"')  # the queue calls it by name
    (tmp_path / ".gitconfig").write_text("[user]\nname = a\nemail = a@b.c\n")
    path = f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    assert call(project, "git", "init", "-q").returncode == 0
    env = {"PATH": path, "HOME": str(tmp_path), "SHELL": "/bin/sh", "PYTHONPATH": str(ROOT / "src")}
    done = call(project, sys.executable, "-c", RUNS, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "out.txt").read_text() == "workspace workspace"
    refs = call(project, "git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    found = {Path(ref).name: call(project, "git", "show", f"{ref}:out.txt").stdout for ref in refs}
    assert {name: found.get(name) for name in ("queued", "temp")} == {"queued": "queued queued", "temp": "temp temp"}


def test_two_experiments_at_once_are_refused_and_record_nothing_wrong(project, tmp_path, monkeypatch):
    """The second one writes its params into the folder in which the first one trains, which DVC, when that ends, would
    record as trained with them; so a run of these params would later be restored from the cache and be wrong."""
    shutil.copytree(ROOT / "src/fashionseg/core", project / "src/fashionseg/core", dirs_exist_ok=True)
    (project / "stages/holding.py").write_text(HOLDING)
    (project / "dvc.yaml").write_text(TWO_STAGES)
    (project / "params.yaml").write_text("seed: 0\n")
    for name in ("begun", "hold"):
        (tmp_path / "a project" / name).mkdir()
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "begun\nhold\n__pycache__\n")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b.c")
    dvc, options = (sys.executable, "-m", "dvc"), {"cwd": project, "capture_output": True, "text": True}
    for command in (
        ("git", "init", "-q"),
        (*dvc, "init", "-q"),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "start"),
    ):
        assert subprocess.run(command, **options).returncode == 0
    (project / "hold/train.txt").touch()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen((*dvc, "exp", "run", "-S", "seed=1"), cwd=project, **pipes) as first:
        while first.poll() is None and not (project / "begun/train.txt").exists():
            time.sleep(0.05)
        second = subprocess.run((*dvc, "exp", "run", "-S", "seed=2"), **options)
        (project / "hold/train.txt").unlink()
        _, said = first.communicate()
    assert "seed=1` (process " in sentence(second.stderr), second.stderr
    assert "params.yaml (seed) changed while train ran" in sentence(said), said
    alone = subprocess.run((*dvc, "exp", "run", "-S", "seed=2"), **options)
    assert (alone.returncode, (project / "train.txt").read_text()) == (0, "seed: 2\n"), alone.stderr


def sentence(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_stage_runs_from_anywhere(project, tmp_path):
    done = call(tmp_path, "sh", "a project/stages/run", "which", "out.txt", PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "workspace workspace"


def test_an_environment_without_the_packages_is_one_sentence(project):
    bare = project / ".venv" / "bin" / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: without site-packages
    done = call(project, "sh", "stages/run", "which", "out.txt", PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {bare} lacks the project's packages; run `make .venv/done`, which installs them into .venv.\n"
    )


def test_a_stage_of_another_tree_is_refused(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "split.py").write_text("from fashionseg.core.stage import running\nwith running(): 0\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = call(tmp_path, sys.executable, "stages/split.py", "data/raw", "data/split.csv", **env)
    assert done.returncode == 1
    assert done.stderr.endswith("`sh stages/run split ...` to run its own.\n")
