"""What the Makefile gives its recipes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_recipes_run_in_utf_8_whatever_the_locale():
    """Under LC_ALL=C Python 3.11 cannot read the path of an editable install in a folder called gr\u00f6\u00dfe."""
    show = "show:\n\t@printenv LC_ALL\n"
    command = ["make", "-f", "Makefile", "-f", "-", "show"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "LC_ALL": "C"}, input=show, capture_output=True, text=True
    )
    assert done.stdout == "C.UTF-8\n", done.stderr
