"""A run's outputs, and its scores."""

import json
from pathlib import Path

import pytest
from outputs import documents, write

from fashionseg.report.page import Outputs


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outputs:
    """In the working directory, as the stage finds it."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path, *documents())


@pytest.fixture
def scores(run: Outputs) -> dict:
    return json.loads((run.metrics / "evaluate.json").read_text())
