"""Lists a local folder. Its pictures are read where they are; DVC sees changes by this list."""

import os
from pathlib import Path

from rich.progress import track

from fashionseg.core import digests, files, paths, pictures, stage
from fashionseg.core.errors import UserError
from fashionseg.download.config import Data

NEEDED_FILES, FOLDERS = ("train.csv", "sample_submission.csv"), ("train", "test")
FILES = (*NEEDED_FILES, "label_descriptions.json")
COCO_FILES = ("instances*.json", "image_info*.json")
MOUNTS = ("/kaggle/input/competitions/{}", "/kaggle/input/{}")  # in Kaggle notebooks: since 2026, and before
SHOWN = 5  # skipped entries that are printed


STATES = {
    "sizes": lambda file: file.stat().st_size,
    "times": lambda file: [file.stat().st_size, file.stat().st_mtime_ns],
    "contents": digests.md5,
}


def survey(data: Data, seed: int, listing: str | Path) -> None:
    """Writes the JSON file `listing`: {} for a download, {"seed": seed} for the demo, which is drawn by it, else
    {"folder": as the user wrote it, "files": {name: state}}, where STATES[data.watch] gives the state.

    Where the folder is missing but its listing exists, as after `dvc pull` on another machine, the listing is kept.
    Raises UserError where the folder is missing or incomplete, where DVC would remove some of it to make room for a
    stage's outs, and where a name is not UTF-8.
    """
    place = _in_place(data)
    if place is None:
        files.write_json(listing, {"seed": seed} if data.source == "demo" else {})
        return
    if not paths.of_user(place).exists() and Path(listing).exists() and files.read_json(listing).get("folder") == place:
        print(f"{place} is not on this machine; it is assumed to be as listed in {listing}")
        return
    folder = paths.of_user(place)
    names = _names(folder)
    _check_apart(folder, names)
    for name in names:
        try:
            str(name).encode()
        except UnicodeEncodeError:
            raise UserError(f"the name of {str(name)!a} is not UTF-8; rename the file.") from None
    names = track(names, f"listing {folder}")
    states = {str(name.relative_to(folder)): STATES[data.watch](name) for name in names}
    files.write_json(listing, {"folder": place, "files": states})


def _in_place(data: Data) -> str | None:
    """The folder whose pictures are read in place, as the user wrote it; None for the demo and a download."""
    if data.source == "local" and data.path is None:
        raise UserError("data.path is null; with data.source local it should be the folder that holds train.csv.")
    if data.source == "kaggle":
        return next(filter(os.path.isdir, (mount.format(data.competition) for mount in MOUNTS)), None)
    return data.path if data.source == "local" else None


def _names(source: Path) -> list[Path]:
    """The tables and pictures of a folder; prints what it skips."""
    if not source.is_dir():
        raise UserError(f"{source} (data.path) is no folder; expected is the one that holds train.csv or annotations/.")
    if paths.in_coco(source):
        if not (names := tables(source)):
            raise UserError(
                f"{source / paths.ANNOTATIONS} (data.path) holds no {' or '.join(COCO_FILES)}; rename them."
            )
        return [*(source / name for name in names), *pictures.below(source)]
    lacking = [name for name in NEEDED_FILES if not (source / name).is_file()]
    lacking += [f"{name}/" for name in FOLDERS if not (source / name).is_dir()]
    if lacking:
        inner = [path.parent for name in ("train.csv", paths.ANNOTATIONS) for path in sorted(source.glob(f"*/{name}"))]
        hint = f"{inner[0]} may be meant" if inner else "it should hold a competition's files, or annotations/ as COCO"
        raise UserError(f"{source} (data.path) lacks {', '.join(lacking)}; {hint}.")
    picture_files = [picture for name in FOLDERS for picture in pictures.find(source / name)]
    if others := sorted({entry for name in FOLDERS for entry in (source / name).iterdir()} - set(picture_files)):
        shown = ", ".join(map(str, others[:SHOWN])) + ", ..." * (len(others) > SHOWN)
        print(f"skipped, not pictures or broken links: {shown} ({len(others)} in all)")
    return [*(source / name for name in tables(source)), *picture_files]


def _check_apart(source: Path, names: list[Path]) -> None:
    whole = source.resolve()
    read = {whole / name.parent.relative_to(source) for name in names}
    for out in stage.outs():
        if any(folder.is_relative_to(out.resolve()) for folder in read):
            raise UserError(
                f"{source} (data.path) has files in {out}, which DVC removes before a stage writes it; move them "
                "elsewhere."
            )


def tables(source: Path) -> list[str]:
    """Names of a folder's CSV and JSON files, relative to it."""
    if paths.in_coco(source):
        documents = [path for form in COCO_FILES for path in sorted((source / paths.ANNOTATIONS).glob(form))]
        return [str(path.relative_to(source)) for path in documents]
    return [name for name in FILES if (source / name).is_file()]
