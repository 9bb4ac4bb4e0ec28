"""A submission to Kaggle by the official client, once it is found faultless.

python -m fashionseg.sending FILE DOCUMENT SAMPLE MESSAGE
"""

import contextlib
import gzip
import io as streams
import sys
from pathlib import Path

from fashionseg import io, params
from fashionseg.errors import UserError, reported
from fashionseg.kaggle_client import signed_in
from fashionseg.submission import check, sample_ids


def zipped(path: str | Path) -> Path:
    """Writes path.gz, the same bytes for the same file."""
    target = Path(f"{path}.gz")
    with io.replacing(target) as beside:
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


def main(path: str, document: str, sample: str, message: str) -> None:
    settings = params.load("data", "submission", "sending")
    if settings.data.source == "demo":
        raise UserError("data.source is demo: Kaggle knows none of its pictures; nothing was sent.")
    if not message:
        raise UserError("say what is sent: make submit MESSAGE='forest, 12 epochs'.")
    if faults := check(path, io.read_json(document), sample_ids(sample), settings.submission):
        raise UserError(f"{path} has {len(faults)} faults, the first: {faults[0]}; nothing was sent.")
    print(send(zipped(path) if settings.sending.gzip else path, message, settings.data.competition))


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
