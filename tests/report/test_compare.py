"""The page of several runs: what differs, mean and spread over seeds, a line a run, the same pictures."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from dvc.lock import LockError
from fsspec.implementations.dirfs import DirFileSystem
from outputs import NAMES, ROOT, documents, write
from reading import read

from fashionseg.core.errors import UserError
from fashionseg.report import compare

DECLARED = Path("plots/dvc.yaml")
SHORT = [name.partition(",")[0] for name in NAMES[:5]]  # as evaluate has them
PARAMS = "seed: {seed}\nmachine:\n  workers: {seed}\ntrain:\n  epochs: {epochs}\n  drops: [0.5]\n"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[compare.Run]:
    """Two seeds of one recipe and a recipe of one run, each in a folder of its own, read as DVC's are."""
    monkeypatch.chdir(ROOT)
    found = []
    for name, seed, epochs, ap in (("first", 1, 6, 0.25), ("<i>second</i>", 2, 6, 0.5), ("long", 1, 12, 0.75)):
        folder = tmp_path / str(len(found))
        document, predictions = documents()
        write(folder, document, predictions)
        for image in document["images"]:
            (folder / "data/images" / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / image["file_name"], folder / "data/images" / image["file_name"])
        (folder / "data/coco").mkdir()
        (folder / "data/coco/val.json").write_text(json.dumps(document))
        (folder / "predictions").mkdir()
        (folder / "predictions/val.json").write_text(json.dumps(predictions[: 2 + seed]))
        (folder / "params.yaml").write_text(PARAMS.format(seed=seed, epochs=epochs))
        scores = json.loads((folder / "metrics/evaluate.json").read_text())
        scores["segm"]["AP"] = ap
        (folder / "metrics/evaluate.json").write_text(json.dumps(scores))
        found.append(compare.Run(name, DirFileSystem(str(folder))))
    return found


def test_a_row_has_what_differs_and_the_scores(runs):
    table = compare.table(runs)
    assert [*table][:4] == ["run", "seed", "machine.workers", "train.epochs"]
    assert "train.drops" not in table
    assert table["train.epochs"].tolist() == ["6", "6", "12"]
    assert table["mask AP"].tolist() == [0.25, 0.5, 0.75]
    assert table["minutes"].tolist() == pytest.approx([183 / 60] * 3)


def test_seeds_of_a_recipe_are_one_row_with_mean_and_spread(runs):
    table = compare.recipes(runs)
    assert table["runs"].tolist() == ["first, <i>second</i>", "long"]
    assert table["train.epochs"].tolist() == ["6", "12"]
    assert table["n"].tolist() == [2, 1]
    assert table["mask AP"].tolist() == [0.375, 0.75]
    assert table["± mask AP"].iloc[0] == pytest.approx(statistics.stdev([0.25, 0.5]))
    assert compare.recipes(runs[1:]).empty
    again = compare.Run("workspace", runs[1].fs)  # as after `dvc exp run`: its last experiment once more
    assert compare.recipes([again, *runs]).drop(columns="runs").equals(table.drop(columns="runs"))


def test_a_named_run_without_scores_and_one_without_params_are_told(runs, monkeypatch, capsys):
    for folder in ("metrics", "results"):
        runs[0].fs.rm(folder, recursive=True)
    trees = iter((runs[0].fs, runs[1].fs, runs[1].fs))
    monkeypatch.setattr(compare, "DVCFileSystem", lambda root, rev: next(trees))
    found = compare.collect(["none", "HEAD"])
    assert [run.name for run in found] == ["HEAD"]
    assert "none: left out, it has no scores in metrics/" in capsys.readouterr().out
    runs[1].fs.rm("params.yaml")
    with pytest.raises(UserError, match=r"params\.yaml of HEAD is missing or not valid"):
        compare.collect(["HEAD"])


def test_the_page_lays_runs_over_each_other(runs):
    page = read(compare.build(runs, DECLARED))
    assert [heading.attributes["id"] for heading in page.all("h2")] == ["runs", "pictures", "curves", "classes"]
    charts = {
        figure.all("figcaption")[0].children[0]: json.loads(figure.all("script")[0].text)
        for figure in page.all("figure", class_="chart")
    }
    rows = charts["Mask AP on validation images during training: AP50"]["data"]["values"]
    assert [(row["rev"], row["AP50"]) for row in rows] == [
        (run.name, value) for run in runs for value in (0.2, 0.5, 0.4)
    ]
    assert not page.all("main")[0].all("i")
    assert [cell.text for row in page.all("table")[-1].all("tr") for cell in row.all()[:1]][1:] == SHORT


def test_pictures_are_the_same_and_each_is_of_its_run(runs):
    pictures = compare.build(runs, DECLARED)
    page = read(pictures)
    shown = [(image.attributes["alt"], image.attributes["src"]) for image in page.all("img")[:-1]]
    names = [alt.partition(": ")[::2] for alt, _ in shown]
    assert len(names) == 3 * 4
    assert {caption for _, caption in names} == {"truth", *(run.name for run in runs)}
    by_name = dict(zip(names, [source for _, source in shown], strict=True))
    assert by_name["2", "first"] == by_name["2", "long"]  # three predictions each, and the same
    assert by_name["3", "first"] == by_name["3", "<i>second</i>"]  # nothing found
    assert by_name["1", "truth"] != by_name["1", "first"]


def test_crowd_regions_are_no_instances(runs, tmp_path):
    before = [image.attributes for image in read(compare.build(runs, DECLARED)).all("img")]
    file = tmp_path / "0/data/coco/val.json"
    document = json.loads(file.read_text())
    crowd = {**document["annotations"][2], "id": 9, "image_id": 1, "iscrowd": 1}
    file.write_text(json.dumps({**document, "annotations": [*document["annotations"], crowd]}))
    runs[0] = compare.Run("first", DirFileSystem(str(tmp_path / "0")))
    assert [image.attributes for image in read(compare.build(runs, DECLARED)).all("img")] == before


def locked(folder, epochs, predictions="same"):
    """A dvc.lock of a run of so many epochs, whose `evaluate` read `predictions`."""
    made = {"path": "predictions/val.json", "md5": "same"}
    stages = {
        "train": {
            "outs": [{"path": "models", "md5": "network.dir"}],
            "params": {"params.yaml": {"train": {"epochs": epochs, "drops": [0.5]}, "seed": 1}},
        },
        "predict@val": {
            "deps": [{"path": "models/mask_rcnn.json", "md5": "network"}],
            "outs": [made],
            "params": {"params.yaml": {"predict.models": []}},
        },
        "evaluate": {"deps": [made | {"md5": predictions}, {"path": "src", "md5": "code"}]},
    }
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    return compare.Run(folder.name, DirFileSystem(str(folder)))


def test_params_are_those_that_made_the_scores(runs, tmp_path, capsys):
    """A killed `dvc exp run -S` leaves its values in params.yaml, beside the scores of the run before."""
    run = locked(tmp_path / "0", epochs=6.0)
    assert not capsys.readouterr().out
    assert run.params == runs[0].params
    run = locked(tmp_path / "0", epochs=2)
    assert capsys.readouterr().out == "0: train.epochs is 6 in params.yaml, its scores are of 2\n"
    assert run.params == runs[0].params | {"train.epochs": "2"}
    assert run.scores == runs[0].scores


def test_a_stage_that_is_yet_to_run_has_no_scores(runs, tmp_path, capsys):
    run = locked(tmp_path / "0", epochs=6, predictions="of another run")
    assert capsys.readouterr().out == (
        "0: evaluate has not run on what the stages before it made; its scores are left out\n"
    )
    assert run.scores.keys() == {"score", "minutes"}


def test_what_tune_made_of_another_run_is_left_out(runs, tmp_path, capsys):
    """As after `dvc exp run -S ... evaluate`, which leaves metrics/tune.json and its entry in dvc.lock as they were."""
    locked(tmp_path / "0", epochs=6)
    lock = json.loads((tmp_path / "0/dvc.lock").read_text())
    old = {"path": "predictions/val.json", "md5": "old"}
    lock["stages"]["tune"] = {"deps": [old], "params": {"params.yaml": {"train": {"epochs": 99}}}}
    (tmp_path / "0/dvc.lock").write_text(json.dumps(lock))
    run = compare.Run("0", DirFileSystem(str(tmp_path / "0")))
    assert "0: tune has not run on what" in capsys.readouterr().out
    assert run.params == runs[0].params
    assert run.scores.items() == {k: v for k, v in runs[0].scores.items() if k != "score"}.items()


def test_a_damaged_file_is_named_with_its_run(runs, tmp_path):
    (tmp_path / "0/metrics/evaluate.json").write_text("<<<<<<< HEAD")
    with pytest.raises(UserError, match=r"^metrics/evaluate\.json of first is not valid JSON; mend it, or leave first"):
        compare.Run("first", DirFileSystem(str(tmp_path / "0")))


def test_what_a_run_lacks_is_left_out(runs, tmp_path):
    (tmp_path / "1/data/images/train/2.jpg").unlink()
    for name in ("results", "predictions", "metrics/tune.json"):
        path = tmp_path / "0" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lacking = compare.Run("lacking", DirFileSystem(str(tmp_path / "0")))
    assert lacking.scores.keys() & {"minutes", "score"} == set()
    page = read(compare.build([lacking, runs[1]], DECLARED))
    shown = [image.attributes["alt"].partition(": ")[::2] for image in page.all("img")[:-1]]
    assert {caption for _, caption in shown} == {"truth", "<i>second</i>"}
    assert {name for name, _ in shown} == {"1", "3"}
    assert [heading.attributes["id"] for heading in read(compare.build([lacking], DECLARED)).all("h2")] == ["runs"]


def test_without_a_project_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no DVC project here; go to the folder of dvc\.yaml"):
        compare.collect()


def test_while_dvc_is_at_work_it_asks_to_wait(monkeypatch):
    def busy():
        raise LockError("Unable to acquire lock. Most likely another DVC process is running")

    monkeypatch.setattr(compare, "Repo", busy)
    with pytest.raises(UserError, match=r"another DVC command is at work in this folder; try again in a moment"):
        compare.collect()
