"""What a user's mistake looks like: one sentence, no traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


class UserError(Exception):
    """A mistake the user can mend; the message is the whole report: file, row or key, what was expected, what to do."""


@contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError, or that the disk is full, as one line and ends the process with status 1.

    So is a stage that runs beside other sources than the installed ones: what it leaves would be put down to its own.
    """
    try:
        script = Path(sys.argv[0]).resolve()
        if script.parent.name == "stages" and script.parents[1] != ROOT:
            raise UserError(
                f"{script} is about to run the sources in {ROOT}; `sh stages/run {script.stem} ...` runs its own."
            )
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(
            f"error: {error.strerror}{f' for {error.filename}' * bool(error.filename)}; make room, then run again."
        )
