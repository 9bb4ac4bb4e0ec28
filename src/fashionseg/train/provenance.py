"""What a training came from: its checkpoints are for one and the same, and go on under another only when told to."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras

from fashionseg.core import digests, documents, files, paths, stage
from fashionseg.core.errors import UserError
from fashionseg.model import backbones
from fashionseg.model.config import Model
from fashionseg.train.checkpoint import checkpoints_in, forget_best

CODE = ("core", "coco", "data", "model", "train")  # packages that a training hangs on: those of its deps in dvc.yaml
FILES = ("weights", "backbone")  # of the params `model`: may name a file, or a folder
NO_FILES = (*backbones.WEIGHTS, *backbones.OWN, "")
MADE_BY, LOCK, DONE = "made_by.json", "lock", "done"  # beside the checkpoints
UNKNOWN = "what is not known"


MadeBy = dict[str, dict[str, Any]]


def made_by(config: SimpleNamespace, images: str | Path, *documents: str | Path) -> MadeBy:
    """All that a training's result hangs on: the values of params and the backend, and digests of files, which are the
    documents, the code, what params name and, by name and size alone, as there are many, the images."""
    sections = {name: asdict(getattr(config, name)) for name in ("images", "model", "augment", "train")}
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    named = {str(path): sorted(path.rglob("*")) or [path] for path in named_files(config.model).values()}
    contents = {**{str(document): [Path(document)] for document in documents}, **named}
    sizes = sorted((str(path.relative_to(images)), path.stat().st_size) for path in Path(images).rglob("*.*"))
    return {
        "values": {"seed": config.seed, "backend": keras.backend.backend(), **values},
        "files": {name: digests.of_files(found) for name, found in contents.items()}
        | {str(images): digests.of_text(json.dumps(sizes))}
        | digests.of_code(CODE),
    }


def named_files(model: Model) -> dict[str, Path]:
    """The params of FILES that name a file or a folder which is there, and mean nothing else."""
    values = {name: getattr(model, name) for name in FILES}
    named = {name: paths.of_user(value) for name, value in values.items() if value not in NO_FILES}
    return {name: path for name, path in named.items() if path.exists()}


def fingerprint(made_by: MadeBy) -> str:
    return digests.of_text(json.dumps(made_by, sort_keys=True))


def done(folder: Path, weights: Path) -> None:
    """Of a training whose outs are written, `weights` among them: until DVC has recorded them, its checkpoint can write
    them again."""
    if record := stage.record():
        files.write_text(folder / DONE, f"{record} {digests.md5(weights)}")
    else:
        files.remove(folder)


def forget_recorded(folder: Path) -> None:
    """Removes the checkpoints of all trainings whose outs DVC has recorded. This one's, too, as it was asked for again:
    all but its lock, the mark last."""
    record = stage.record()
    for path in [*folder.parent.iterdir()] if record else []:
        mark = path / DONE
        if path != folder and path.name.startswith("."):  # what a kill left of one
            files.remove(path)
        elif mark.exists() and _recorded(mark, record):
            own = sorted((file for file in folder.iterdir() if file.name != LOCK), key=mark.__eq__)
            for old in own if path == folder else [path]:
                files.remove(old)


def _recorded(mark: Path, record: str) -> bool:
    """By dvc.lock, which an older commit may have brought back, or by DVC's cache, which may lie elsewhere."""
    before, weights = mark.read_text(encoding="utf-8").split()
    return before != record or stage.cached(weights)


def mention_others(folder: Path, made_by: MadeBy) -> None:
    """Says what other trainings, of which some may yet go on, keep beside this one's folder, and how they differ. One
    that is at work is passed over, and one that ended before it kept anything, as at a wrong path of weights."""
    folders = [path for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder]
    kept = [path for path in folders if any(file.name not in (MADE_BY, LOCK) for file in path.iterdir())]
    others = [path for path in kept if not files.held(path / LOCK)]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file())
        print(f"unfinished trainings keep {size / 1e9:.2f} GB; delete them, or go on from one with train.resume:")
    for path in others:
        print(f"  {path}, differs in {', '.join(_changed(path, made_by))}")


def _changed(folder: Path, made_by: MadeBy) -> list[str]:
    """What a training's folder was made by and `made_by` do not have in common."""
    try:
        before = documents.read(folder / MADE_BY, {"values": {}, "files": {str: str}})
    except UserError:
        return [UNKNOWN]
    old, new = before["values"], made_by["values"]
    found = [f"{name} ({old.get(name)}, now {new.get(name)})" for name in new if old.get(name) != new[name]]
    return found + sorted({name for name, _ in before["files"].items() ^ made_by["files"].items()})


def adopt(source: Path, folder: Path, made_by: MadeBy, measured_by: Sequence[str]) -> None:
    """Makes the newest checkpoint of another training this one's, and its best weights, unless one of `measured_by`,
    names in `made_by` of what AP hangs on beside the network, has changed: then none is best so far."""
    if not (found := checkpoints_in(source)):
        raise UserError(f"train.resume is {source}, which holds no checkpoint; name a folder of checkpoints/, or null.")
    changed = [name for name in _changed(source, made_by) if not name.startswith("train.resume ")]
    comparable = not {name.partition(" (")[0] for name in changed} & {UNKNOWN, *measured_by}
    print(f"going on from {found[-1]}, which differs in {', '.join(changed) or 'nothing'}")
    if not comparable:
        print("its validation AP is not comparable: the best weights are those of the epochs to come")
    for best in source.glob("best-*") if comparable else []:
        with files.replacing(folder / best.name) as beside:
            shutil.copy(best, beside)
    with files.replacing(folder / found[-1].name) as beside:
        shutil.copytree(found[-1], beside)
        if not comparable:
            forget_best(beside)
