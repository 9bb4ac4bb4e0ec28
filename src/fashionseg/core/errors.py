"""User errors as one sentence without traceback."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

# As TensorFlow (ResourceExhaustedError, OOM when allocating) and XLA (RESOURCE_EXHAUSTED) word it.
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|ResourceExhausted|OOM when allocating|[Oo]ut of memory")
# Errors of the file system, and what to do.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions"),
    errno.ENAMETOOLONG: "shorten it",
}


class UserError(Exception):
    """An error the user can fix; the message says all: file, row or key, what was expected, what to do."""


def first_line(error: BaseException) -> str:
    """What an error says, the first line of it; its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError, a file system error, out of memory, a killed worker process or Ctrl-C as one line and exits
    with status 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped by Ctrl-C; run the same command again.")
    except OSError as error:
        known = _of_tree(error)
        if known.errno not in DISK:
            raise
        where = f" for {known.filename}" * bool(known.filename)
        sys.exit(f"error: {known.strerror}{where}; {DISK[known.errno]}, then run again.")
    except BrokenExecutor:  # joblib's, too
        sys.exit(
            "error: a worker process was killed, most likely as memory ran out; lower machine.workers in params.yaml, "
            "then run again."
        )
    except Exception as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        sys.exit(
            "error: out of memory; lower train.batch_size (predict.batch_size in predict), images.side or train.rois, "
            "or set model.precision to mixed_bfloat16 (mixed_float16 on a T4)."
        )


def _of_tree(error: OSError) -> OSError:
    """The first of DISK among those that `shutil.copytree` collects as (source, target, text); any other as it is."""
    collected = error.args[0] if isinstance(error, shutil.Error) and isinstance(error.args[0], list) else []
    for _, target, text in collected:
        for number in DISK:
            if os.strerror(number) in text:
                return OSError(number, os.strerror(number), target)
    return error
