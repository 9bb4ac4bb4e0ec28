"""kill -9 at a random moment of each stage; `dvc repro` after it must end with what an undisturbed run gives.

Killed is the stage alone, DVC alone, or both with all that they started. Where DVC alone was killed its stage goes on,
and `dvc repro` of that stage is tried beside it: it may be refused in one sentence, or do the work again.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import project

WHOM = ("stage", "dvc", "all")
EPOCH = re.compile(r"^epoch (\d+)/\d+ in ", re.MULTILINE)
SECONDS = {"train": 45.0, "predict@val": 15.0, "predict@test": 15.0, "preview": 7.0}  # about what a stage takes
FEW_SECONDS = 3.0  # and the others


def try_all(reference: Path, folder: Path, count: int, seed: int) -> tuple[Counter, list[str]]:
    """Kills `count` times in as many runs as that takes. Outcomes counted by the stage that was hit, and findings."""
    drawn = random.Random(seed)
    stages = list(project.commands(reference))
    outcomes, findings, done = Counter(), [], 0
    while done < count:
        chosen = sorted(drawn.sample(range(len(stages)), min(count - done, len(stages))))
        _prepare(reference, folder)
        epochs: list[str] = []
        for place in chosen:
            name, whose = stages[place], WHOM[done % len(WHOM)]
            after = drawn.uniform(0, SECONDS.get(name, FEW_SECONDS))
            hit, said = _kill(folder, name, whose, after)
            epochs += EPOCH.findall(said)
            done += 1
            outcomes["kill -9", hit] += 1
            print(f"kill {done}: {whose}, {after:.1f} s from the start of {name}; {hit} was at work", flush=True)
            if "Traceback" in said:
                findings.append(f"kill {done} of {whose} in {hit}: {said[-2000:]}")
        end = project.repro(folder)
        epochs += EPOCH.findall(end.stdout)
        if fault := _fault(folder, reference, end, epochs):
            findings.append(f"after kill {done}: {fault}")
        outcomes["run to its end", fault or "equal outs, no epoch lost"] += 1
    return outcomes, findings


def _prepare(reference: Path, folder: Path) -> None:
    """The project as it was before its first run."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reference, folder, symlinks=True)
    for name in ("dvc.lock", ".dvc/cache", ".dvc/tmp"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    project.run(folder, "git", "clean", "-qfdx", "-e", ".dvc", check=True)


def _kill(folder: Path, name: str, whose: str, after: float) -> tuple[str, str]:
    """Kills `dvc repro` some seconds from the start of a stage. Returns the stage that was at work by then, or "between
    stages", or "the end"; and all that was printed, but for what the killing itself makes DVC or a stage say."""
    words = project.commands(folder)
    with (folder / "log").open("w+") as log:
        options = {"cwd": folder, "env": project.ENVIRONMENT, "stdout": log, "stderr": log}
        dvc = subprocess.Popen((*project.DVC, "repro"), **options)
        due = list(words)[list(words).index(name) :]  # the stage itself may be done by now
        while dvc.poll() is None and not any(_stage(pid, words) in due for pid in _tree(dvc.pid)):
            time.sleep(0.03)
        time.sleep(after)
        tree = _tree(dvc.pid) if dvc.poll() is None else []
        at_work = {pid: stage for pid in tree if (stage := _stage(pid, words))}
        hit = next(iter(at_work.values()), "between stages" if tree else "the end")
        victims = {"stage": [*at_work] or tree[:1], "dvc": tree[:1], "all": tree}[whose]
        for pid in victims:
            with _gone():
                os.kill(pid, signal.SIGKILL)
        dvc.wait()
        said = _text(log)
        if whose == "dvc" and at_work:
            log.truncate(0)
            beside = subprocess.run((*project.DVC, "repro", "--single-item", hit), **options, check=False)
            said += "" if beside.returncode == 0 or project.sentence(_text(log)) else "Traceback of the second:"
            while any(_stage(pid, words) for pid in at_work):
                time.sleep(0.1)
            said += _text(log)
    return hit, said


def _stage(pid: int, words: dict[str, list[str]]) -> str:
    """The stage whose Python process this is, '' for another process."""
    with _gone():
        found = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1]
        for name, (_, stage, *arguments) in words.items():
            if found and found[0].endswith(f"stages/{stage}.py") and found[1:] == arguments:
                return name
    return ""


def _tree(root: int) -> list[int]:
    """A process and all below it, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with _gone():
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _gone():
    """A process may end while one looks at it."""
    return contextlib.suppress(FileNotFoundError, ProcessLookupError)


def _text(log) -> str:
    log.flush()
    return Path(log.name).read_text(errors="replace").replace("\0", "")


def _fault(folder: Path, reference: Path, end: subprocess.CompletedProcess, epochs: list[str]) -> str:
    """What is wrong at the end of a run that was killed again and again and then left alone, '' for nothing."""
    if end.returncode:
        return f"it does not go on: {end.stderr[-2000:]}"
    if twice := len(epochs) - len(set(epochs)):
        return f"{twice} epochs lost"
    if different := project.differences(folder, reference):
        return f"other outs: {', '.join(different)}"
    return f"half-written: {', '.join(half)}" if (half := project.leftovers(folder)) else ""
