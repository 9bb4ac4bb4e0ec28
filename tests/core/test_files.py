"""Files appear whole or not at all."""

import multiprocessing
import shutil
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from fashionseg.core import files
from fashionseg.core.errors import UserError


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a" / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_folders_are_replaced_whole(tmp_path):
    folder = tmp_path / "folder"
    for name in ("one", "two"):
        with files.replacing(folder) as beside:
            beside.mkdir()
            (beside / name).touch()
    assert [p.name for p in folder.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/text.txt").write_text("mine")
    with pytest.raises(UserError, match=r"thesis is a folder, which a file would replace; name a file\.$"):
        files.write_text(tmp_path / "thesis", "page")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["thesis", "thesis/text.txt"]


@pytest.mark.parametrize("below", ["", "further"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path, below):
    (tmp_path / "photo").write_text("mine")
    with pytest.raises(UserError, match=r"photo.* is or lies below a file, so no folder; name another one\.$"):
        files.write_text(tmp_path / "photo" / below / "out.json", "{}")
    assert (tmp_path / "photo").read_text() == "mine"


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    with files.replacing(tmp_path / "folder") as beside:
        leftover = beside
        beside.mkdir()
    leftover.mkdir()
    (leftover / "half").touch()
    with files.replacing(tmp_path / "folder") as beside:
        assert not beside.exists()
        beside.mkdir()
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_kill_leaves_no_part_of_a_folder_under_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    files.write_text(folder / "a", "1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        files.remove(folder)
    assert not folder.exists()
    files.write_text(folder / "b", "2")
    files.remove(folder)
    assert not [*tmp_path.iterdir()]


def test_whether_a_lock_is_held(tmp_path):
    assert not files.held(tmp_path / "none" / "lock")
    assert not (tmp_path / "none").exists()
    with files.locked(tmp_path / "lock"):
        assert files.held(tmp_path / "lock")
    assert not files.held(tmp_path / "lock")


def test_json_and_csv_round_trip(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [1, "ü"]})
    assert files.read_json(tmp_path / "a.json") == {"a": [1, "ü"]}
    files.write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [1], "b": ["x,y"]}))
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,"x,y"\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert files.read_json(tmp_path / "a.json") == {"a": [1, "ü"]}


def test_unreadable_json_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.json is missing; run `dvc repro`"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"half\.json is not valid JSON"):
        files.read_json(tmp_path / "half.json")


def hold(path, held, done):
    with files.locked(path):
        held.set()
        done.wait(20)


def test_a_lock_is_exclusive_and_falls_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "lock", held, done))
    holder.start()
    assert held.wait(300)
    with pytest.raises(UserError, match="another run holds"), files.locked(tmp_path / "lock"):
        pass
    holder.kill()
    holder.join()
    with files.locked(tmp_path / "lock"):
        pass


def test_a_json_file_without_the_right_to_it_is_no_broken_one(monkeypatch):
    """Root may read any file, so it is refused here."""
    monkeypatch.setattr(Path, "read_text", mock.Mock(side_effect=PermissionError))
    with pytest.raises(PermissionError):
        files.read_json("a.json")
