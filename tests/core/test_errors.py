"""What a user reads where something goes wrong, and that nothing else is taken for it."""

import shutil
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from fashionseg.core.errors import UserError, reported


class ResourceExhaustedError(Exception):
    """TensorFlow's, by its name."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("train.csv, row 3: no class."), "error: train.csv, row 3: no class."),
        (
            OSError(28, "No space left on device", "data/raw/a.jpg"),
            "error: No space left on device for data/raw/a.jpg; free some space, then run again.",
        ),
        (
            PermissionError(13, "Permission denied", "data/raw/a.jpg"),
            "error: Permission denied for data/raw/a.jpg; change its permissions, then run again.",
        ),
        (
            OSError(36, "File name too long", "a.jpg"),
            "error: File name too long for a.jpg; shorten it, then run again.",
        ),
        (ResourceExhaustedError("{{node conv}} failed"), "error: out of memory; lower train.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 9 bytes"), "error: out of memory; lower"),
        (MemoryError(), "error: out of memory; lower"),
        (BrokenProcessPool("A child process terminated abruptly"), "error: a worker process was killed"),
        (TerminatedWorkerError("A worker process managed by the executor was"), "error: a worker process was killed"),
        (KeyboardInterrupt(), "error: stopped by Ctrl-C; run the same command again."),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, line):
    with pytest.raises(SystemExit) as ended, reported():
        raise error
    assert ended.value.code.startswith(line)
    assert "\n" not in ended.value.code


def test_a_full_disk_in_a_folder_that_is_copied_is_one_line(tmp_path):
    """copytree collects the errors of its files into one without a number."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").touch()

    def full(source, target):
        raise OSError(28, "No space left on device", target)

    with pytest.raises(SystemExit) as ended, reported():
        shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=full)
    assert ended.value.code.startswith(f"error: No space left on device for {tmp_path / 'b/file'}; free some space")
    with pytest.raises(shutil.Error), reported():
        shutil.move(tmp_path / "a", tmp_path / "a/b")


def test_a_real_lack_of_memory_is_one_line():
    with pytest.raises(SystemExit, match="error: out of memory"), reported():
        np.ones((1 << 60,), np.uint8)


@pytest.mark.parametrize("error", [OSError(2, "No such file"), RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), reported():
        raise error
