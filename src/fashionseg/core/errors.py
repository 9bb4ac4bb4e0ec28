"""User errors as one sentence without traceback."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# As TensorFlow (ResourceExhaustedError, OOM when allocating) and XLA (RESOURCE_EXHAUSTED) word it.
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|ResourceExhausted|OOM when allocating|[Oo]ut of memory")
# Errors of the file system, and what to do.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions"),
}


class UserError(Exception):
    """An error the user can fix; the message says all: file, row or key, what was expected, what to do."""


@contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError, a file system error or out of memory as one line and exits with status 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f" for {error.filename}" * bool(error.filename)
        sys.exit(f"error: {error.strerror}{where}; {DISK[error.errno]}, then run again.")
    except Exception as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        sys.exit(
            "error: out of memory; lower train.batch_size (predict.batch_size in predict), images.side or train.rois, "
            "or set model.precision to mixed_bfloat16 (mixed_float16 on a T4)."
        )
