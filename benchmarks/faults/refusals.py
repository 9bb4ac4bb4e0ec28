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


def disk(reference: Path, folder: Path, count: int, seed: int, only: str = ""):
    """Yields (stage, outcome, what to look at or '') of `count` tries of each; there is room for a part of its outs."""

    @contextlib.contextmanager
    def full(_: str, outs: list[str], drawn: random.Random) -> Iterator[str]:
        size = sum(_size(reference / out) for out in outs)
        room = int(drawn.uniform(0, size))
        left = shutil.disk_usage(folder).free - room
        with (folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, left)
        yield f"{room} of {size} bytes"
        (folder / "filler").unlink()

    folder.mkdir(exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder), check=True)
    try:
        yield from _tries(reference, folder, count, seed, full, only)
    finally:
        subprocess.run(("umount", folder), check=True)


def rights(reference: Path, folder: Path, count: int, seed: int, only: str = ""):
    """Yields as `disk`, where a file that the stage reads may not be read, or the folder of an out not be written."""

    @contextlib.contextmanager
    def closed(name: str, outs: list[str], drawn: random.Random) -> Iterator[str]:
        read = [word for word in project.commands(folder)[name][3:] if word not in outs and (folder / word).exists()]
        place = drawn.choice([*outs, *read, "params.yaml"])
        path, mode = (folder / place, 0) if place not in outs else ((folder / place).parent, 0o555)
        before = path.stat().st_mode
        path.chmod(mode)
        yield f"{path.relative_to(folder)} {'not written' if mode else 'not read'}"
        path.chmod(before)

    yield from _tries(reference, folder, count, seed, closed, only, NO_RIGHTS)


def _tries(reference, folder, count, seed, refused, only, become=()):
    project.reference(reference, seed)
    stages = project.commands(reference)
    _copy(reference, folder)
    for name, words in stages.items():
        drawn, outs = random.Random(f"{seed} {name}"), list(project.outs(reference)[name])
        for _ in range(count if only in name else 0):
            for path in (*outs, "data/.images.unfinished", "checkpoints"):
                _remove(folder / path)
            with refused(name, outs, drawn) as what:
                done = project.run(folder, *become, *words)
            # a training's history grows where it is; the checkpoint has the part that counts
            left = [out for out in outs if (folder / out).exists() and not same(folder / out, reference / out)]
            left = [out for out in left if out != "results/train"]
            sentence = project.sentence(done.stderr)
            if left:
                yield name, "half an out", f"{what}: {left}"
            elif not done.returncode:
                yield name, "right", ""
            elif not sentence:
                yield name, "traceback", f"{what}: {done.stderr[-2000:]}"
            else:
                yield name, f"refused: {sentence.partition(' for ')[0]}", ""
        if any(not (folder / out).exists() for out in outs):
            again = project.run(folder, *become, *words)
            wrong = [out for out in outs if not same(folder / out, reference / out)]
            yield name, "then wrong" if wrong else "then right", wrong and f"{wrong} {again.stderr[-500:]}"


def _copy(reference: Path, folder: Path) -> None:
    """The project as after its run, with the sources of today; DVC's files are read-only."""
    ignored = shutil.ignore_patterns(".git", "cache", "tmp", "__pycache__")
    shutil.copytree(reference, folder, ignore=ignored, dirs_exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(project.ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def same(ours: Path, theirs: Path) -> bool:
    """Whether an out holds the same, but for what a clock gave and the page that shows it."""
    both = [
        {file.relative_to(root): file for file in (root, *root.rglob("*")) if file.is_file()} for root in (ours, theirs)
    ]
    clocks = (*project.CLOCKS, "metrics", "index")
    return both[0].keys() == both[1].keys() and all(
        path.stem in clocks or both[0][path].read_bytes() == both[1][path].read_bytes() for path in both[1]
    )
