"""Sends a submission to Kaggle with the official client."""

import contextlib
import gzip
import io
from pathlib import Path

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.download.kaggle import signed_in


def zipped(path: str | Path) -> Path:
    """Writes path.gz; the same file always gives the same bytes."""
    target = Path(f"{path}.gz")
    with files.replacing(target) as beside:
        beside.write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
    return target


def send(path: str | Path, message: str, competition: str) -> str:
    """Sends a file and returns Kaggle's answer. Raises UserError where Kaggle does not accept it."""
    printed = io.StringIO()  # the client prints why an upload failed
    broken = "Kaggle could not be reached ({error}); nothing was submitted."
    with signed_in(competition, broken) as api, contextlib.redirect_stdout(printed):
        answer = api.competition_submit(str(path), message, competition, quiet=True).message
    if answer == "Could not submit to competition":  # the client does not raise when the upload fails
        reason = " ".join(printed.getvalue().split()) or "no reason given"
        raise UserError(f"Kaggle did not accept the upload of {path} ({reason}); nothing was submitted, try again.")
    return answer
