"""A disk that has too little room and files without the right to them, in every stage; root starts it.

The stage must end in one sentence and leave no half out; with room and rights the same command must then make what an
undisturbed run makes.
"""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import project

# root without the right to pass over permissions: as any other user, in an environment that may be root's alone
NO_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
DISK = 2**28  # bytes of the tmpfs


def disk(work: Path, count: int, seed: int, only: str):
    """Yields (stage, outcome, what to look at or '') of `count` tries of each; there is room for a part of its outs."""
    folder = work / "disk"

    @contextlib.contextmanager
    def full(outs: list[str], _: list[str], drawn: random.Random) -> Iterator[str]:
        every = [file for out in outs for file in (work / "reference" / out, *(work / "reference" / out).rglob("*"))]
        size = sum(file.stat().st_size for file in every if file.is_file())
        room = int(drawn.uniform(0, size))
        with (folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(folder).free - room)
        yield f"{room} of {size} bytes"
        (folder / "filler").unlink()

    folder.mkdir(exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder), check=True)
    try:
        yield from _tries(work, folder, count, seed, only, full)
    finally:
        subprocess.run(("umount", folder), check=True)


def rights(work: Path, count: int, seed: int, only: str):
    """Yields as `disk`, where a file that the stage reads may not be read, or the folder of an out not be written."""
    folder = work / "rights"

    @contextlib.contextmanager
    def closed(outs: list[str], read: list[str], drawn: random.Random) -> Iterator[str]:
        place = drawn.choice([*outs, *read, "params.yaml"])
        path, mode = (folder / place, 0) if place not in outs else ((folder / place).parent, 0o555)
        before = path.stat().st_mode
        path.chmod(mode)
        yield f"{path.relative_to(folder)} {'not written' if mode else 'not read'}"
        path.chmod(before)

    yield from _tries(work, folder, count, seed, only, closed, NO_RIGHTS)


def _tries(work, folder, count, seed, only, refused, become=()):
    reference = work / "reference"
    project.reference(reference, seed)
    _copy(reference, folder)
    for name, words in project.commands(reference).items():
        drawn, outs = random.Random(f"{seed} {name}"), project.outs(reference)[name]
        read = [word for word in words[3:] if word not in outs and (folder / word).exists()]
        for _ in range(count if only in name else 0):
            project.remove(folder, *outs, "data/.images.unfinished", "checkpoints")
            with refused(outs, read, drawn) as what:
                done = project.run(folder, *become, *words)
            # a training's history grows where it is; the checkpoint has the part that counts
            there = [out for out in outs if (folder / out).exists() and out != "results/train"]
            if half := project.different(folder, reference, there):
                yield name, "half an out", f"{what}: {half}"
            elif not done.returncode:
                yield name, "right", ""
            elif sentence := project.sentence(done.stderr):
                yield name, f"refused: {sentence.partition(' for ')[0]}", ""
            else:
                yield name, "traceback", f"{what}: {done.stderr[-2000:]}"
        if any(not (folder / out).exists() for out in outs):
            again = project.run(folder, *become, *words)
            wrong = project.different(folder, reference, outs)
            yield name, "then wrong" if wrong else "then right", wrong and f"{wrong} {again.stderr[-500:]}"


def _copy(reference: Path, folder: Path) -> None:
    """The project as after its run, with the sources of today; DVC's files are read-only."""
    ignored = shutil.ignore_patterns(".git", "cache", "tmp", "__pycache__")
    shutil.copytree(reference, folder, ignore=ignored, dirs_exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(project.ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
