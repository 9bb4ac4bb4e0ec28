"""COCO results on the disk, a file a batch, until all are there: a killed predict goes on after the last one."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionseg.core import files, stage

MADE_BY = "made_by"


@contextmanager
def parts_of(target: str | Path, made_by: str) -> Iterator["Parts"]:
    """Those of `target`, the file that all results go to in the end, in .<its name>.unfinished beside it.

    made_by: a digest of all that results hang on; parts of another one are removed. Raises UserError while another
    process makes the same file.
    """
    target = Path(target)
    folder = target.with_name(f".{target.stem}.unfinished")
    with files.locked(folder / "lock"):
        parts, before = Parts(target, folder), folder / MADE_BY
        if not before.exists() or before.read_text() != made_by:
            parts.clear()
            files.write_text(before, made_by)
        yield parts


@dataclass
class Parts:
    """Results of the first batches of `target`, in `folder`."""

    target: Path
    folder: Path

    def count(self) -> int:
        """Batches that are done up to the first that is not: a kill while parts are removed leaves any of them."""
        return next(batch for batch in itertools.count() if not self._file(batch).exists())

    def add(self, batch: int, results: list[dict[str, Any]]) -> None:
        files.write_text(self._file(batch), "".join(json.dumps(result, allow_nan=False) + "\n" for result in results))

    def join(self) -> int:
        """Writes `target`, a result a line, without holding all in memory; removes the parts. Returns how many."""
        written = 0
        with files.replacing(self.target) as beside, beside.open("w", encoding="utf-8") as file:
            file.write("[")
            for part in self._files():
                for line in part.read_text(encoding="utf-8").splitlines():
                    file.write((",\n" if written else "\n") + line)
                    written += 1
            file.write("\n]\n")
        stage.check()  # before the parts go, from which the file can be written again
        files.remove(self.folder)
        return written

    def clear(self) -> None:
        for part in self._files():
            part.unlink()

    def _file(self, batch: int) -> Path:
        return self.folder / f"{batch:06}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"))
