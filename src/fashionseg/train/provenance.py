"""What a training came from: its checkpoints are for one and the same, and go on under another only when told to."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras

from fashionseg.core import digests, documents, files, paths
from fashionseg.core.errors import UserError
from fashionseg.model.config import Model
from fashionseg.train.checkpoint import checkpoints_in

CODE = ("core", "coco", "data", "model", "train")  # packages that a training hangs on: those of its deps in dvc.yaml
FILES = ("weights", "backbone")  # of the params `model`: may name a file, or a folder
MADE_BY = "made_by.json"  # beside the checkpoints


def made_by(config: SimpleNamespace, *inputs: str | Path) -> dict[str, dict[str, Any]]:
    """All that a training's result hangs on: the values of params and the backend, and digests of files, which are the
    documents, the code and what params name."""
    sections = {name: asdict(getattr(config, name)) for name in ("images", "model", "augment", "train")}
    del sections["train"]["resume"]
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    named = {str(path): sorted(path.rglob("*")) or [path] for path in named_files(config.model).values()}
    contents = {**{str(document): [Path(document)] for document in inputs}, **named}
    return {
        "values": {"seed": config.seed, "backend": keras.backend.backend(), **values},
        "files": {name: digests.of_files(found) for name, found in contents.items()} | digests.of_code(CODE),
    }


def named_files(model: Model) -> dict[str, Path]:
    """The params of FILES that name a file or a folder which is there."""
    paths_by_name = {name: paths.of_user(getattr(model, name)) for name in FILES}
    return {name: path for name, path in paths_by_name.items() if path.exists()}


def fingerprint(origin: dict[str, dict[str, Any]]) -> str:
    return digests.of_text(json.dumps(origin, sort_keys=True))


def mention_others(folder: Path, origin: dict[str, dict[str, Any]]) -> None:
    """Says what other trainings, of which some may yet go on, keep beside this one's folder, and how they differ."""
    others = [path for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file())
        print(f"unfinished trainings keep {size / 1e9:.2f} GB; delete them, or go on from one with train.resume:")
    for path in others:
        print(f"  {path}, differs in {_changed(path, origin)}")


def _changed(folder: Path, origin: dict[str, dict[str, Any]]) -> str:
    """What a training's folder was made by and `origin` do not have in common."""
    try:
        before = documents.read(folder / MADE_BY, {"values": {}, "files": {str: str}})
    except UserError:
        return "what is not known"
    old, new = before["values"], origin["values"]
    found = [f"{name} ({old.get(name)}, now {new.get(name)})" for name in new if old.get(name) != new[name]]
    return ", ".join(found + sorted({name for name, _ in before["files"].items() ^ origin["files"].items()}))


def adopt(source: Path, folder: Path, origin: dict[str, dict[str, Any]]) -> None:
    """Makes the newest checkpoint of another training, and its best weights, this one's."""
    if not (found := checkpoints_in(source)):
        raise UserError(f"train.resume is {source}, which holds no checkpoint; name a folder of checkpoints/, or null.")
    print(f"going on from {found[-1]}, which differs in {_changed(source, origin)}")
    for best in source.glob("best-*"):
        with files.replacing(folder / best.name) as beside:
            shutil.copy(best, beside)
    with files.replacing(folder / found[-1].name) as beside:
        shutil.copytree(found[-1], beside)
