"""The only place that writes files: whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionseg.core.errors import UserError

if TYPE_CHECKING:  # every stage starts with this module, and pandas takes a second
    import pandas as pd


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path`, to be written as a file or a folder, and renames it on success.

    An error removes what was written and leaves the old contents of `path`; after a kill the partial file stays under
    a name that nothing reads, and the next run removes it. Raises UserError where a file would replace a folder, and
    where a file stands in the place of a folder above.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path.parent} is or lies below a file, so no folder; name another one.") from None
    beside = path.with_name(f".{path.name}.partial{path.suffix}")
    remove(beside)
    try:
        yield beside
        if path.is_dir():
            if not beside.is_dir():
                raise UserError(f"{path} is a folder, which a file would replace; name a file.")
            remove(path)
        os.replace(beside, path)
    finally:
        remove(beside)


def check_replaceable(folder: str | Path, mark: str, inputs: Iterable[Path] = ()) -> None:
    """Raises UserError where a new `folder` in its place would cost the user something: where there is one that no
    earlier run wrote, which leaves a file `mark` in it, where it holds one of `inputs`, and where the user is in it."""
    place = Path(folder).resolve()
    if place == Path.cwd() or place in Path.cwd().parents:
        raise UserError(f"{folder} would be replaced, and you are in it; name another folder.")
    if place.exists() and not (place / mark).exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{folder} exists and is of no earlier run; name another folder.")
    if inside := [path for path in inputs if place in path.resolve().parents]:
        raise UserError(f"{inside[0]} lies in {folder}, which is replaced; name another folder.")


def shortened(name: str) -> str:
    """A name, or its start, as a part of a file's name, which may have 255 bytes."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def remove(path: str | Path) -> None:
    """Removes a file or a folder, if it is there. A kill leaves no part of a folder under its name: it is renamed
    first, and what is left is removed with the next one of that name."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        removed = path.with_name(f".{path.name}.removed")
        if removed.exists():
            shutil.rmtree(removed)
        shutil.rmtree(path.replace(removed))
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, allow_nan=False)
        file.write("\n")


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    with replacing(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


def read_json(path: str | Path) -> Any:
    """Raises UserError where the file is missing or not valid JSON; `documents.read` also checks its schema."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # other programs write a byte order mark
        return json.loads(text, parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it.") from None
    except PermissionError:  # `errors.reported` tells what to do
        raise
    except (ValueError, RecursionError, OSError) as error:  # ValueError also for bytes that are not UTF-8
        raise UserError(f"{path} is not valid JSON: {error}.") from None


def _refuse(constant: str) -> None:
    """NaN and infinities, which Python reads and `write_json` could not write again."""
    raise ValueError(f"it holds {constant}, which is no number in JSON")


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds an exclusive lock for as long as the process lives; raises UserError where another one holds it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run holds {path}; wait for it or end it.") from None
        yield


def held(path: str | Path) -> bool:
    """Whether a process holds the lock `path`; without such a file none does."""
    try:
        with locked(path) if Path(path).exists() else nullcontext():
            return False
    except UserError:
        return True
