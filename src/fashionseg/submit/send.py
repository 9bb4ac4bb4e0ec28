"""A submission to Kaggle by the official client."""

import contextlib
import gzip
import io as streams
from pathlib import Path

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.download.kaggle import signed_in


def zipped(path: str | Path) -> Path:
    """Writes path.gz, the same bytes for the same file."""
    target = Path(f"{path}.gz")
    with files.replacing(target) as beside:
        beside.write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
    return target


def send(path: str | Path, message: str, competition: str) -> str:
    """Sends a file and gives Kaggle's answer; raises UserError where it is not taken."""
    said = streams.StringIO()  # the client prints why an upload failed
    broken = "Kaggle could not be reached ({error}); nothing was submitted."
    with signed_in(competition, broken) as api, contextlib.redirect_stdout(said):
        answer = api.competition_submit(str(path), message, competition, quiet=True).message
    if answer == "Could not submit to competition":  # the client raises nothing when the upload itself fails
        reason = " ".join(said.getvalue().split()) or "no reason given"
        raise UserError(f"Kaggle did not take the upload of {path} ({reason}); nothing was submitted, try again.")
    return answer
