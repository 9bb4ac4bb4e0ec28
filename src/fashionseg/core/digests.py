"""What tells that files or code are the same as before: unfinished work goes on from what was made by the same."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def of_files(found: Sequence[Path]) -> str:
    """Of the contents of files, in this order; folders among them are passed over."""
    digest = hashlib.sha256()
    for path in found:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def md5(path: Path) -> str:
    """As DVC names contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def of_code(packages: Sequence[str]) -> dict[str, str]:
    """Of each module of packages of fashionseg, by its path in it."""
    modules = [file for name in packages for file in sorted((PACKAGE / name).rglob("*.py"))]
    return {str(file.relative_to(PACKAGE)): of_files([file]) for file in modules}


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
