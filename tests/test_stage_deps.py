"""Which stages an edit repeats, asked of DVC itself on the real graph with stand-ins for the outs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
ALWAYS = {"source"}  # looks at every run whether the user's own files have changed


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Iterator[Repo]:
    """Stages, sources and params of this repository, recorded as if they had run."""
    folder = tmp_path_factory.mktemp("graph")
    for name in ("plots", "stages", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield recorded(Repo.init(no_scm=True))


def recorded(repo: Repo) -> Repo:
    for path in (Path(part.fs_path) for part in (*repo.index.outs, *repo.index.deps)):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
            (path / "file").touch()
    repo.commit(force=True)
    assert set(repo.status()) == ALWAYS
    return repo


def changed(repo: Repo, path: str, edit: Callable[[str], str]) -> set[str]:
    """The stages that `dvc status` names after an edit of a file, which is taken back."""
    file = Path(repo.root_dir, path)
    text = file.read_text()
    file.write_text(edit(text))
    assert file.read_text() != text
    try:
        return set(Repo(repo.root_dir).status()) - ALWAYS
    finally:
        file.write_text(text)


@pytest.mark.parametrize("name", [".rpn.py.swp", "rpn.py~", ".DS_Store", ".ipynb_checkpoints/rpn.py"])
def test_what_editors_leave_beside_the_code_repeats_nothing(repo, name):
    file = Path(repo.root_dir, "src/fashionseg/model", name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert set(Repo(repo.root_dir).status()) == ALWAYS
    file.unlink()


def comment(text: str) -> str:
    return text + "\n# a comment\n"


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("src/fashionseg/params.py", set()),
        ("src/fashionseg/console/progress.py", set()),
        ("src/fashionseg/__main__.py", set()),
        ("src/fashionseg/submit/config.py", {"tune", "submit"}),
        ("src/fashionseg/submit/send.py", {"tune", "submit"}),
        ("src/fashionseg/draw/overlay.py", {"preview", "evaluate"}),
        ("src/fashionseg/report/page.py", {"report"}),
        ("plots/dvc.yaml", {"report"}),
        ("plots/lines.json", {"report"}),
        ("src/fashionseg/evaluate/ap_tables.py", {"evaluate"}),
        ("src/fashionseg/ensemble/networks.py", {"ensemble"}),
        ("src/fashionseg/evaluate/overlays.py", {"evaluate"}),
        ("src/fashionseg/predict/fusion.py", {"predict@val", "predict@test"}),
        ("src/fashionseg/coco/masks.py", {"train", "predict@val", "predict@test", "evaluate", "tune", "submit"}),
        ("src/fashionseg/train/trainer.py", {"train"}),
        ("src/fashionseg/model/losses.py", {"train", "predict@val", "predict@test"}),
        ("src/fashionseg/data/augment.py", {"preview", "train", "predict@val", "predict@test"}),
        ("src/fashionseg/convert/split.py", {"split", "convert"}),
        ("src/fashionseg/download/kaggle.py", {"download"}),
        ("src/fashionseg_demo/label_descriptions.json", {"download"}),
        ("stages/tune.py", {"tune"}),
    ],
)
def test_an_edit_repeats_what_it_can_change(repo, path, stages):
    assert changed(repo, path, comment) == stages


def test_a_param_repeats_what_reads_it(repo):
    def set_to(section, key, value):
        def edit(text):
            tree = yaml.safe_load(text)
            tree[section][key] = value
            return yaml.safe_dump(tree)

        return changed(repo, "params.yaml", edit)

    assert set_to("machine", "workers", 7) == set()
    assert set_to("sending", "gzip", True) == set()
    assert set_to("tune", "trees", 7) == {"tune", "report"}
    assert set_to("submission", "min_area", 7) == {"tune", "submit", "report"}
    assert set_to("evaluate", "pictures", 7) == {"evaluate", "report"}
    assert set_to("predict", "flip", False) == {"predict@val", "predict@test", "report"}
    assert set_to("predict", "models", ["first"]) == {"ensemble", "predict@val", "predict@test", "report"}


def test_a_network_that_is_not_there_is_said_before_the_training(repo):
    order = [stage.name for stage in repo.reproduce(dry=True, force=True)]
    assert order.index("ensemble") < order.index("train")
