"""Networks of other experiments, in a small DVC project whose training writes its params; the picture of number x
is held out."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.cli import main
from dvc.repo import Repo

from fashionseg.core import files, paths
from fashionseg.core.errors import UserError
from fashionseg.ensemble import networks

DVC_YAML = """
stages:
  split:
    cmd: >-
      mkdir -p data; (echo image_id,subset; for i in 1 2 3; do grep -q "x: $i" params.yaml && echo $i,val ||
      echo $i,train; done) > data/split.csv
    params: [x]
    outs: [data/split.csv]
  train:
    cmd: mkdir -p models; cp params.yaml models/mask_rcnn.json; cp params.yaml models/mask_rcnn.weights.h5
    params: [x]
    outs: [models/mask_rcnn.json, models/mask_rcnn.weights.h5]
"""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Trainings with x = 1 (tag `one` and branch `side`), 2 (experiment `first`) and 3 (HEAD), and one without."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "project"
    folder.mkdir()
    files.write_text(home / ".gitconfig", "[user]\nname = a\nemail = a@b.c\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.chdir(folder)
        git("init", "-q")
        Repo.init().close()
        files.write_text(".gitignore", "/models/\n/data/\n")
        git("add", "-A")
        git("commit", "-q", "-m", "none")
        git("tag", "none")
        files.write_text("dvc.yaml", DVC_YAML)
        files.write_text("params.yaml", "x: 1\n")
        assert main(["repro", "-q"]) == 0
        git("add", "-A")
        git("commit", "-q", "-m", "one")
        git("tag", "-a", "one", "-m", "annotated")
        git("branch", "side")
        assert main(["exp", "run", "-q", "-n", "first", "-S", "x=2"]) == 0
        files.write_text("params.yaml", "x: 3\n")
        assert main(["repro", "-q"]) == 0
        git("commit", "-q", "-a", "-m", "three")
        yield folder


@pytest.mark.parametrize("checkout", [".", ".dvc/tmp/exps/tmpabc"])
def test_experiments_tags_and_commits_are_brought(project, monkeypatch, tmp_path, checkout):
    """Into the workspace or, from what DVC checks out below it for a queued experiment, into that."""
    Path(project, checkout).mkdir(parents=True, exist_ok=True)
    git("init", "-q", str(project / checkout))  # as DVC does, with the experiment's own commit alone
    monkeypatch.chdir(project / checkout)
    head = git("-C", str(project), "rev-parse", "HEAD")
    files.write_text("data/split.csv", "image_id,subset\n1,train\n2,train\n3,val\n")
    found = networks.bring(["one", "first", head[:8]], "models", "data/split.csv", "models/others")
    assert found[head[:8]].commit == head
    assert [origin.seen for origin in found.values()] == [1, 1, 0]
    assert files.read_json("models/others/origins.json") == {name: vars(origin) for name, origin in found.items()}
    for name, x in (("one", 1), ("first", 2), (head[:8], 3)):
        for file in paths.NETWORK:
            assert Path("models/others", name, file).read_text() == f"x: {x}\n"
    networks.bring([], "models", "data/split.csv", "models/others")
    assert os.listdir("models/others") == ["origins.json"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("second", r"second is no experiment, tag or commit; `dvc exp show`"),
        ("HEAD~7", r"HEAD~7 is no experiment, tag or commit"),
        ("HEAD~1", r"HEAD~1 is another commit tomorrow; name the one of today, [0-9a-f]{10}\."),
        ("HEAD", r"HEAD is another commit tomorrow"),
        ("side", r"side is another commit tomorrow"),
        ("none", r"none has no trained network, or DVC's cache no longer holds it; bring it with `dvc exp pull"),
    ],
)
def test_a_name_without_a_lasting_network_is_one_sentence(project, monkeypatch, tmp_path, name, sentence):
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=rf"predict\.models: {sentence}"):
        networks.bring([name], "models", "data/split.csv", tmp_path / "others")
    assert not list(tmp_path.iterdir())


def test_a_network_that_left_the_cache_is_one_sentence(project, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    shutil.rmtree(copy / ".dvc" / "cache")
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match="first has no trained network, or DVC's cache no longer holds it"):
        networks.bring(["first"], "models", "data/split.csv", tmp_path / "others")


def test_a_network_whose_split_is_lost_is_brought_all_the_same(project, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    monkeypatch.chdir(copy)
    first = "image_id,subset\n1,train\n2,val\n3,train\n"
    (lost,) = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file() and path.read_text() == first]
    lost.unlink()
    found = networks.bring(["first"], "models", "data/split.csv", "models/others")
    assert found["first"].seen is None
    assert {path.name for path in Path("models/others/first").iterdir()} == set(paths.NETWORK)
