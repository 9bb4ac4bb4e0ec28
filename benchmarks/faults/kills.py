"""kill -9 at a random moment of each stage. `dvc repro` after it must end with what an undisturbed run gives.

Killed is the stage alone, DVC alone, or both with all that they started. Where DVC alone was killed its stage goes on,
to its end or to be killed later, and `dvc repro` of that stage is tried beside it: it may be refused in one sentence,
or do the work again; a stage whose outs DVC removed for that ends in one, too.
"""

import random
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import project
import psutil

LEFT = ("dvc.lock", ".dvc/tmp/rwlock", ".dvc/cache/runs")  # where empty ones stop DVC; `make repro` removes them, too
EPOCH = re.compile(r"^epoch (\d+)/\d+ in ", re.MULTILINE)


def faults(work: Path, count: int, seed: int, only: str):
    """Yields (whose kill, outcome, what to look at or '') of each, all in one run, and of that run's end."""
    reference, folder = work / "reference", work / "kills"
    seconds, drawn, epochs = project.reference(reference, seed), random.Random(seed), []
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reference, folder, ignore=shutil.ignore_patterns("dvc.lock", "cache", "tmp"))
    project.run(folder, "git", "clean", "-qfdx", "-e", ".dvc", check=True)
    names = [name for name in seconds if only in name]
    places = [*names, *["train"] * count][:count]  # train has most to lose
    order = sorted((list(seconds).index(name), drawn.random() < 1 / 3, name) for name in places)
    for _, alone, name in order:
        whose = "dvc" if alone else drawn.choice(["the stage", "all"])
        hit, said = _kill(folder, name, whose, seconds[name], drawn)
        epochs += EPOCH.findall(said)
        yield f"kill -9 of {whose}", f"in {hit}", said[-2000:] if "Traceback" in said else ""
        left = project.run(folder, "find", *LEFT, "-empty", "-print", "-delete").stdout.split()
        if left:
            yield "DVC", f"left empty and removed: {' '.join(left)}"[:60], ""
    end = project.run(folder, *project.DVC, "repro")
    fault = _fault(folder, reference, end, epochs + EPOCH.findall(end.stdout))
    yield "run to its end", fault[:60] or "equal outs, no epoch lost", fault


def _kill(folder: Path, name: str, whose: str, seconds: float, drawn: random.Random) -> tuple[str, str]:
    """Kills `dvc repro` within the time that a stage takes, or soon after its end or a checkpoint of it. Returns the
    stage that was at work by then, or "DVC", or "nothing" at the end; and all that was printed."""
    words = project.commands(folder)
    due = list(words)[list(words).index(name) :]  # the stage itself may be done by now
    with (folder / "log").open("w+") as log:
        options = {"cwd": folder, "env": project.ENVIRONMENT, "stdout": log, "stderr": log}
        dvc = psutil.Popen((*project.DVC, "repro"), **options)
        found: list[psutil.Process] = []
        while dvc.poll() is None and not found:
            time.sleep(0.03)
            found = [one for one in _tree(dvc) if _stage(one, words) in due]
        saved, until = _saved(folder), time.monotonic() + drawn.uniform(0, seconds)
        while _saved(folder) == saved and time.monotonic() < until and any(_stage(one, words) for one in found):
            time.sleep(0.03)
        time.sleep(drawn.uniform(0, 2))
        tree = _tree(dvc)
        at_work = {one: stage for one in tree if (stage := _stage(one, words))}
        hit = next(iter(at_work.values()), "DVC" if tree else "nothing")
        _end({"the stage": [*at_work] or tree[:1], "dvc": tree[:1], "all": tree}[whose])
        dvc.wait()
        refused = 0
        if whose == "dvc" and at_work:
            refused = subprocess.run((*project.DVC, "repro", "--single-item", hit), **options, check=False).returncode
            psutil.wait_procs(at_work, timeout=drawn.uniform(0, seconds))
            _end(at_work)
            psutil.wait_procs(at_work)
        said = Path(log.name).read_text(errors="replace")
        if whose == "dvc" and at_work and refused and "\nerror: " not in said:
            said += "Traceback wanting: the second run ended without a sentence"
    return hit, said


def _tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it, parents first."""
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)] if process.status() != psutil.STATUS_ZOMBIE else []
    return []


def _stage(process: psutil.Process, words: dict[str, list[str]]) -> str:
    """The stage whose Python process this is, '' for another process."""
    with suppress(psutil.Error):
        found = process.cmdline()[1:]
        for name, (_, _, stage, *arguments) in words.items():
            if found and found[0].endswith(f"stages/{stage}.py") and found[1:] == arguments:
                return name
    return ""


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _saved(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoints/*/epoch-*")}


def _fault(folder: Path, reference: Path, end: subprocess.CompletedProcess, epochs: list[str]) -> str:
    """What is wrong at the end of a run that was killed again and again and then left alone, '' for nothing."""
    if end.returncode:
        return f"it does not go on: {end.stderr[-2000:]}"
    if twice := len(epochs) - len(set(epochs)):
        return f"{twice} epochs lost"
    every = [out for outs in project.outs(reference).values() for out in outs]
    if different := project.different(folder, reference, every):
        return f"other outs: {', '.join(different)}"
    half = [path.name for path in folder.rglob(".*.partial*") if ".dvc" not in path.parts]
    return f"half-written: {', '.join(half)}" if half else ""
