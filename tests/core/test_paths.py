"""Paths of params.yaml in the workspace and in DVC's checkouts below it."""

from pathlib import Path

import pytest

from fashionseg.core import paths


@pytest.mark.parametrize("checkout", [".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc", "."])
def test_what_git_does_not_track_is_found_from_a_checkout(tmp_path, monkeypatch, checkout):
    here = tmp_path / checkout
    here.mkdir(parents=True, exist_ok=True)
    (tmp_path / "coco.pth").touch()
    monkeypatch.chdir(here)
    assert paths.project().resolve() == tmp_path
    assert paths.of_user("coco.pth").resolve() == tmp_path / "coco.pth"
    assert paths.of_user(str(tmp_path / "coco.pth")) == tmp_path / "coco.pth"
    assert paths.of_user("none/at.all").absolute() == tmp_path / "none/at.all"
    (here / "own").touch()  # what Git tracks is of the experiment
    assert paths.of_user("own") == Path("own")


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.of_user("~/a.pth") == tmp_path / "a.pth"
