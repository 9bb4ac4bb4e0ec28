"""kill -9 at a random moment of each stage. `dvc repro` after it must end with what an undisturbed run gives.

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
from pathlib import Path

import project

EPOCH = re.compile(r"^epoch (\d+)/\d+ in ", re.MULTILINE)


def faults(reference: Path, folder: Path, count: int, seed: int):
    """Yields (kind, outcome, what to look at or '') of each kill, all in one run, and of that run's end."""
    seconds, drawn = project.reference(reference, seed), random.Random(seed)
    names = list(seconds)
    _anew(reference, folder)
    epochs: list[str] = []
    for place in sorted(number % len(names) for number in range(count)):
        whose = drawn.choice(["the stage", "dvc", "all"])
        hit, said = _kill(folder, names[place], whose, drawn.uniform(0, seconds[names[place]]))
        if not hit:
            break  # the run had come to its end before the kill
        epochs += EPOCH.findall(said)
        print(f"kill -9 of {whose} in {hit}", flush=True)
        yield f"kill -9 of {whose}", f"in {hit}", said[-2000:] if "Traceback" in said else ""
    end = project.run(folder, *project.DVC, "repro")
    fault = _fault(folder, reference, end, epochs + EPOCH.findall(end.stdout))
    yield "run to its end", fault[:60] or "equal outs, no epoch lost", fault


def _anew(reference: Path, folder: Path) -> None:
    """The project as it was before its first run."""
    shutil.rmtree(folder, ignore_errors=True)
    kept = shutil.ignore_patterns("dvc.lock", "cache", "tmp")
    shutil.copytree(reference, folder, ignore=kept)
    project.run(folder, "git", "clean", "-qfdx", "-e", ".dvc", check=True)


def _kill(folder: Path, name: str, whose: str, after: float) -> tuple[str, str]:
    """Kills `dvc repro` some seconds from the start of a stage. Returns the stage that was at work by then, or "DVC",
    or "" at the end; and all that was printed."""
    words = project.commands(folder)
    due = list(words)[list(words).index(name) :]  # the stage itself may be done by now
    with (folder / "log").open("w+") as log:
        options = {"cwd": folder, "env": project.ENVIRONMENT, "stdout": log, "stderr": log}
        dvc = subprocess.Popen((*project.DVC, "repro"), **options)
        while dvc.poll() is None and not any(_stage(pid, words) in due for pid in _tree(dvc.pid)):
            time.sleep(0.03)
        time.sleep(after)
        tree = _tree(dvc.pid) if dvc.poll() is None else []
        at_work = {pid: stage for pid in tree if (stage := _stage(pid, words))}
        hit = next(iter(at_work.values()), "DVC" if tree else "")
        for pid in {"the stage": [*at_work] or tree[:1], "dvc": tree[:1], "all": tree}[whose]:
            with _gone():
                os.kill(pid, signal.SIGKILL)
        dvc.wait()
        said = _text(log)
        if whose == "dvc" and at_work:
            beside = subprocess.run((*project.DVC, "repro", "--single-item", hit), **options, check=False)
            said = _text(log)
            if beside.returncode and not project.sentence(said):
                said += "Traceback wanting: the second run ended without a sentence"
            while any(_stage(pid, words) for pid in at_work):
                time.sleep(0.1)
    return hit, said


def _stage(pid: int, words: dict[str, list[str]]) -> str:
    """The stage whose Python process this is, '' for another process."""
    with _gone():
        found = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1]
        for name, (_, _, stage, *arguments) in words.items():
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
    return Path(log.name).read_text(errors="replace")


def _fault(folder: Path, reference: Path, end: subprocess.CompletedProcess, epochs: list[str]) -> str:
    """What is wrong at the end of a run that was killed again and again and then left alone, '' for nothing."""
    if end.returncode:
        return f"it does not go on: {end.stderr[-2000:]}"
    if twice := len(epochs) - len(set(epochs)):
        return f"{twice} epochs lost"
    if different := project.differences(folder, reference):
        return f"other outs: {', '.join(different)}"
    half = [path.name for path in folder.rglob(".*.partial*") if ".dvc" not in path.parts]
    return f"half-written: {', '.join(half)}" if half else ""
