"""What a user's mistake looks like: one sentence, no traceback."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# What TensorFlow (ResourceExhaustedError, OOM when allocating) and XLA (RESOURCE_EXHAUSTED) call it.
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|ResourceExhausted|OOM when allocating|[Oo]ut of memory")
# What a disk may refuse, and what to do.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "get yourself the right to it"),
}


class UserError(Exception):
    """A mistake the user can mend; the message is the whole report: file, row or key, what was expected, what to do."""


@contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError, a disk's refusal, or that the memory is full, as one line and ends the process with status 1.

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
