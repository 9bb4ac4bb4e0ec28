"""What the Makefile gives its recipes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_recipes_run_in_utf_8_whatever_the_locale():
    """Under LC_ALL=C Python 3.11 cannot read the path of an editable install in a folder called gr\u00f6\u00dfe."""
    show = "show:\n\t@printenv LC_ALL\n"
    command = ["make", "-f", "Makefile", "-f", "-", "show"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "LC_ALL": "C"}, input=show, capture_output=True, text=True
    )
    assert done.stdout == "C.UTF-8\n", done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
@pytest.mark.parametrize(
    ("options", "shell", "expected"), [([], "", ""), (["GPU=1"], "", "jax"), (["GPU=1"], "tensorflow", "tensorflow")]
)
def test_a_gpu_environment_computes_on_jax(tmp_path, options, shell, expected):
    """Whatever machine.backend says: TensorFlow is not in its lock."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    show = "show:\n\t@echo $$KERAS_BACKEND\n"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_BACKEND": shell} if shell else {}
    command = ["make", "-f", "Makefile", "-f", "-", *options, "show"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, input=show, capture_output=True, text=True)
    assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_repro_removes_what_a_kill_of_dvc_may_leave(tmp_path):
    """An empty list of locks, which it calls corrupted, and an empty folder of its cache of runs, a TypeError."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml", ".venv/done", "dvc.lock", ".dvc/tmp/rwlock", ".dvc/tmp/lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("dvc", "python"):
        (tmp_path / ".venv/bin").mkdir(exist_ok=True)
        (tmp_path / ".venv/bin" / name).write_text(f"#!/bin/sh\necho {name} $*\n")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    (tmp_path / ".dvc/cache/runs/ab/empty").mkdir(parents=True)
    (tmp_path / ".dvc/cache/runs/ab/whole").mkdir()
    (tmp_path / ".dvc/cache/runs/ab/whole/run").write_text("cmd: a")
    done = subprocess.run(["make", "repro"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("dvc repro\npython -m fashionseg summary\n"), done.stdout + done.stderr
    left = [path.relative_to(tmp_path / ".dvc").as_posix() for path in (tmp_path / ".dvc").rglob("*")]
    assert sorted(left) == [
        "cache",
        "cache/runs",
        "cache/runs/ab",
        "cache/runs/ab/whole",
        "cache/runs/ab/whole/run",
        "tmp",
        "tmp/lock",
    ]
    assert not (tmp_path / "dvc.lock").exists()
