"""Pictures at the model's size.

What a killed run left is taken over if this file, among other things, is the same; so it holds nothing else.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
from PIL import Image
from rich.progress import track

from fashionseg.convert.competition import Competition
from fashionseg.core import digests, files, pictures
from fashionseg.core.errors import UserError

QUALITY = 95  # of the resized JPEGs


@contextmanager
def resizing(competition: Competition, folder: str | Path, side: int, workers: int) -> Iterator[Competition]:
    """Resizes all pictures to a long side of `side` pixels, JPEG, RGB; yields the competition without the training
    pictures that cannot be decoded. All appear in `folder`, by `Competition.file_name`, when the block ends without an
    error.

    Until then each picture stays in .<folder's name>.unfinished beside it, whatever happens, and the next call takes it
    over if side, source (name, size and time of change) and the code are the same. Small pictures grow too, as the
    model always sees a square of that side. Raises UserError where many pictures cannot be decoded, or one is a test
    picture, and while another call works on `folder`.
    """
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    paths = [*competition.train_images.values(), *competition.test_images.values()]
    with files.locked(unfinished / "lock"):
        code = digests.of_files([Path(__file__), Path(pictures.__file__)])
        targets = {path: unfinished / f"{_key(path, competition.file_name(path), side, code)}.jpg" for path in paths}
        missing = [(path, target) for path, target in targets.items() if not target.exists()]
        if len(missing) < len(targets):
            print(f"{len(targets) - len(missing)} of {len(targets)} pictures are taken over from {unfinished}")
        tasks = (joblib.delayed(_resize)(path, target, side, competition.sizes[path]) for path, target in missing)
        done = joblib.Parallel(max(1, workers), return_as="generator_unordered")(tasks)
        broken = {path for path in track(done, f"resizing to {side} pixels", total=len(missing)) if path}
        for path in sorted(broken & set(competition.test_images.values())):
            raise UserError(f"{path} is damaged or no picture, and every test picture must be answered; get it again.")
        yield competition.without(broken)
        with files.replacing(folder) as beside:
            for path in targets.keys() - broken:
                place = beside / competition.file_name(path)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(targets[path], place)
        files.remove(unfinished)


def _key(source: Path, name: str, side: int, code: str) -> str:
    """Of all that a resized picture follows from."""
    state = source.stat()
    return digests.of_text(f"{code} {side} {name} {state.st_size} {state.st_mtime_ns}")


def _resize(source: Path, target: Path, side: int, size: tuple[int, int]) -> Path | None:
    """Writes one picture of (height, width) `size`; returns `source` where it cannot be decoded."""
    try:
        image = pictures.read(source, side)
    except UserError:
        return source
    with files.replacing(target) as beside:
        Image.fromarray(pictures.resized(image, side, size)).save(beside, quality=QUALITY)
    return None
