"""COCO results on the disk, a file a batch, until all are there: a killed predict goes on after the last one."""

import json
from pathlib import Path
from typing import Any

from fashionseg.core import files

MADE_BY = "made_by"


class Parts:
    """Of the batches of `target`, the file that all results go to in the end, in .<its name>.unfinished beside it.

    made_by: a digest of all that results hang on; parts of another one are removed.
    """

    def __init__(self, target: str | Path, made_by: str):
        self.target = Path(target)
        self.folder = self.target.with_name(f".{self.target.stem}.unfinished")
        before = self.folder / MADE_BY
        if not before.exists() or before.read_text() != made_by:
            files.remove(self.folder)
            files.write_text(before, made_by)

    def count(self) -> int:
        """Batches that are done; they are done in their order."""
        return sum(1 for _ in self.folder.glob("[0-9]*.jsonl"))

    def add(self, batch: int, results: list[dict[str, Any]]) -> None:
        files.write_text(self._file(batch), "".join(json.dumps(result, allow_nan=False) + "\n" for result in results))

    def join(self) -> int:
        """Writes `target`, a result a line, without holding all in memory; removes the parts. Returns how many."""
        written = 0
        with files.replacing(self.target) as beside, beside.open("w", encoding="utf-8") as file:
            file.write("[")
            for batch in range(self.count()):
                for line in self._file(batch).read_text(encoding="utf-8").splitlines():
                    file.write((",\n" if written else "\n") + line)
                    written += 1
            file.write("\n]\n")
        files.remove(self.folder)
        return written

    def _file(self, batch: int) -> Path:
        return self.folder / f"{batch:06}.jsonl"
