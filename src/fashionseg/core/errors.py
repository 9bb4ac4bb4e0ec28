"""What a user's mistake looks like: one sentence, no traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake the user can mend; the message is the whole report: file, row or key, what was expected, what to do."""


@contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError, or that the disk is full, as one line and ends the process with status 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(
            f"error: {error.strerror}{f' for {error.filename}' * bool(error.filename)}; make room, then run again."
        )
