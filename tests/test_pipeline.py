"""`dvc repro` from data to submission on a few drawn pictures, as a user runs it, in a repository of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import jupytext
import pandas as pd
import pytest
from pycocotools.coco import COCO
from ruamel.yaml import YAML

from fashionseg_demo.competition import draw_competition

ROOT = Path(__file__).parents[1]
CHANGES = {
    "machine": {"workers": 0},  # another process imports as long as it works here
    "data": {"source": "local"},
    "split": {"folds": 3},
    "images": {"side": 64},
    "model": {
        "backbone": "efficientnet_lite0",
        "frozen_stages": 4,
        "fpn_channels": 16,
        "proposals": 16,
        "detections": 10,
    },
    "train": {"epochs": 1, "optimizer": "sgd", "ema": 0.0, "rois": 8, "warmup_steps": 2},
    "predict": {"score": 0.0, "scales": [1.0]},
    "evaluate": {"pictures": 4},
    "tune": {"trees": 10},
}
COMPETITION = "competitions/some"

APART = {"rev", "filename", "field", "filename::field"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def dvc(folder: Path, *arguments: str) -> str:
    done = run(folder, sys.executable, "-m", "dvc", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A few drawn pictures, as Kaggle mounts a competition; it is not part of the repository."""
    folder = tmp_path_factory.mktemp("input")
    draw_competition(folder / COMPETITION, seed=3, images=15)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, inputs) -> Path:
    """The repository's files with small params, before the first `dvc repro`."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("plots", "presets", "stages", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, values in CHANGES.items():
        params[section].update(values)
    params["data"]["path"] = str(inputs / COMPETITION)
    yaml.dump(params, folder / "params.yaml")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    assert run(folder, "git", "init", "-q").returncode == 0
    dvc(folder, "init", "-q")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    for command in (["add", "-A"], ["commit", "-q", "-m", "start"]):
        assert run(folder, "git", *who, *command).returncode == 0
    return folder


# `dvc repro` in parts, each with what it adds to the one before, so that the stage that fails or takes long is seen.


@pytest.fixture(scope="module")
def converted(project) -> Path:
    dvc(project, "repro", "convert", "ensemble")
    return project


@pytest.fixture(scope="module")
def trained(converted) -> Path:
    dvc(converted, "repro", "--single-item", "train")
    return converted


@pytest.fixture(scope="module")
def predicted(trained) -> Path:
    dvc(trained, "repro", "--single-item", "predict@val")
    return trained


@pytest.fixture(scope="module")
def evaluated(predicted) -> Path:
    dvc(predicted, "repro", "--single-item", "predict@test", "evaluate")
    return predicted


@pytest.fixture(scope="module")
def submitted(evaluated) -> Path:
    dvc(evaluated, "repro", "--single-item", "tune", "submit")
    return evaluated


@pytest.fixture(scope="module")
def pipeline(submitted) -> Path:
    dvc(submitted, "repro")
    return submitted


def read(path: Path):
    return json.loads(path.read_text())


def test_documents_are_coco(converted, inputs):
    rows = pd.read_csv(inputs / COMPETITION / "train.csv")
    documents = {name: COCO(converted / f"data/coco/{name}.json") for name in ("train", "val", "test")}
    assert sum(len(document.anns) for document in documents.values()) == len(rows)
    assert [len(document.imgs) for document in documents.values()] == [8, 4, 3]
    areas = rows["EncodedPixels"].map(lambda text: sum(map(int, text.split()[1::2])))
    assert sum(a["area"] for d in documents.values() for a in d.anns.values()) == areas.sum()


def test_the_network_knows_its_classes_and_its_history(trained):
    network, document = read(trained / "models/mask_rcnn.json"), read(trained / "data/coco/train.json")
    assert network["categories"] == document["categories"]
    assert network["network"]["classes"] == len(document["categories"])
    assert len(pd.read_table(trained / "results/train/plots/metrics/train/loss.tsv")) == 1


def test_predictions_are_coco_results(predicted):
    found = COCO(predicted / "data/coco/val.json").loadRes(str(predicted / "predictions/val.json"))
    sizes = {image["id"]: [image["height"], image["width"]] for image in found.dataset["images"]}
    attributes = {attribute["id"] for attribute in read(predicted / "data/coco/val.json")["attributes"]}
    for result in found.dataset["annotations"]:
        assert result["segmentation"]["size"] == sizes[result["image_id"]]
        assert 0 < result["score"] <= 1
        assert result["attribute_ids"] == sorted(set(result["attribute_ids"]) & attributes)
        assert len(result["attribute_scores"]) == len(result["attribute_ids"])


def test_the_network_is_scored(evaluated):
    metrics = read(evaluated / "metrics/evaluate.json")
    assert set(metrics) >= {"segm", "bbox"}
    assert set(metrics["segm"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "AP_frequent"}


def test_the_submission_holds_every_test_image(submitted, inputs):
    rows = pd.read_csv(submitted / "submissions/submission.csv", keep_default_na=False)
    sample = pd.read_csv(inputs / COMPETITION / "sample_submission.csv")
    assert rows["ImageId"].drop_duplicates().tolist() == sample["ImageId"].tolist()


def test_only_attributes_seen_in_training_can_be_submitted(submitted):
    seen = {}
    for annotation in read(submitted / "data/coco/train.json")["annotations"]:
        seen.setdefault(str(annotation["category_id"]), set()).update(annotation["attribute_ids"])
    pairs = read(submitted / "results/postprocessing.json")["attribute_pairs"]
    assert {category: set(ids) for category, ids in pairs.items()} == {c: ids for c, ids in seen.items() if ids}


def test_metrics_and_plots_are_there(pipeline):
    metrics = read(pipeline / "metrics/evaluate.json")
    assert read(pipeline / "metrics/tune.json").keys() >= {"value", "score", "rule"}
    shown = json.loads(dvc(pipeline, "metrics", "show", "--json"))
    assert shown[""]["data"]["metrics/evaluate.json"]["data"] == metrics
    report = (pipeline / "reports/index.html").read_text()
    assert f"<b>{metrics['segm']['AP']:.3f}</b>" in report
    pictures, preview = (pipeline / "results" / name for name in ("evaluate/pictures", "preview"))
    counts = [len(list(folder.glob("*.jpg"))) for folder in (pictures, preview)]
    assert all(counts)
    assert report.count("data:image/jpeg") == counts[0] + min(6, counts[1])
    drawn = json.loads(dvc(pipeline, "plots", "show", "--json"))["data"]
    assert {"results/evaluate/pictures", "results/preview"} <= {str(Path(name).parent) for name in drawn}
    filled = [plot["content"] for plots in drawn.values() for plot in plots if plot["type"] == "vega"]
    shown = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*)</script>', report)]
    of_report, of_dvc = {s["description"]: rows(s) for s in shown}, {s["title"]: rows(s) for s in filled}
    assert of_report.keys() == of_dvc.keys()
    for title, expected in of_dvc.items():
        for row, other in zip(of_report[title], expected, strict=True):
            assert row == pytest.approx(other, abs=1e-7), title  # the report keeps 8 decimals


def rows(spec) -> list[dict]:
    """What is drawn, but for the columns that tell runs, files and fields apart; DVC hands numbers over as text."""

    def plain(value):
        try:
            return float(value)
        except (TypeError, ValueError):
            return value or None

    return [
        {name.replace("dvc_inferred_y_value", "value"): plain(row[name]) for name in row.keys() - APART}
        for row in spec["data"]["values"]
    ]


def test_pictures_are_on_the_disk_once(pipeline, inputs):
    """DVC's cache links them; that takes `hardlink` as the first of cache.type, else it copies on most file systems."""
    for path in (*(pipeline / "data/raw").rglob("*.jpg"), *(pipeline / "data/images").rglob("*.jpg")):
        assert path.stat().st_nlink == 2, path
    originals = list(inputs.rglob("*.jpg"))
    assert originals
    assert all(path.stat().st_nlink == 1 and path.stat().st_mode & 0o200 for path in originals)


def test_a_second_repro_does_nothing(pipeline):
    """But for a look at the user's files."""
    assert re.findall("Running stage '(.*)'", dvc(pipeline, "repro")) == ["source"]


def test_an_experiment_repeats_only_what_it_changes(pipeline):
    """A new submission grid neither trains nor predicts. What is repeated works in two processes as well."""
    text = (pipeline / "params.yaml").read_text()
    assert "workers: 0 " in text
    changed = text.replace("longest_side: 1024", "longest_side: 512").replace("workers: 0 ", "workers: 2 ")
    (pipeline / "params.yaml").write_text(changed)
    changed = dvc(pipeline, "status")
    assert "submit" in changed
    assert "tune" in changed
    for stage in ("train", "predict", "convert", "split", "download", "evaluate"):
        assert stage + ":" not in changed
    assert re.findall("Running stage '(.*)'", dvc(pipeline, "repro", "submit")) == ["source", "tune", "submit"]
    (pipeline / "params.yaml").write_text(text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ((r"epochs: 1\b", "epoch: 1"), "error: params.yaml: unknown key 'train.epoch'; did you mean 'epochs'?"),
        ((r"path: /.*", "path: nowhere"), "error: nowhere (data.path) is no folder; expected is"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(pipeline, change, sentence):
    text = (pipeline / "params.yaml").read_text()
    changed, count = re.subn(*change, text)
    assert count == 1
    (pipeline / "params.yaml").write_text(changed)
    stage = "source" if "path" in change[0] else "train"
    arguments = {
        "source": ["data/new.json"],
        "train": ["data/coco/train.json", "data/coco/val.json", "data/raw", "data/images", "models/new", "results/new"],
    }[stage]
    done = run(pipeline, "sh", "stages/run", stage, *arguments)
    (pipeline / "params.yaml").write_text(text)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stderr
    assert not (pipeline / arguments[-1]).exists()


def session(folder: Path, **settings) -> str:
    """What notebooks/kaggle.py prints, run as a script with these settings; `folder` gets working/ and scratch/."""
    cells = (ROOT / "notebooks/kaggle.py").read_text().split("\n# %%")
    (place,) = (number for number, cell in enumerate(cells) if cell.startswith(' tags=["parameters"]'))
    settings |= {"PRESET": None, "GPU": ""}
    settings |= {name: str(folder / name.lower()) for name in ("WORKING", "SCRATCH")}
    cells[place] += "\n" + "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    (folder / "notebook.py").write_text("\n# %%".join(cells))
    done = run(folder, sys.executable, "notebook.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def stopped(pipeline, inputs, tmp_path) -> dict:
    """A session that had no time; settings of the next one, with its output mounted. What an earlier session made is
    added: this one made nothing."""
    dvc(pipeline, "repro")  # other tests leave an experiment's submission
    settings = {"CODE": str(pipeline), "INPUT": str(inputs), "CHANGES": {"evaluate": {"pictures": 3}}}
    first = tmp_path / "first"
    for path in (first, inputs / "notebooks/someone/fashionseg"):
        path.mkdir(parents=True)
    assert "Out of time" in session(first, HOURS=1e-9, **settings)
    assert not (first / "working/submission.csv").exists()
    state = inputs / "notebooks/someone/fashionseg/fashionseg.tar"
    shutil.copy(first / "working/fashionseg.tar", state)
    with tarfile.open(state, "a") as tar:
        for name in ("dvc.lock", ".dvc/cache"):
            tar.add(pipeline / name, name)
    return settings


def test_the_kaggle_notebook_goes_on_in_the_next_session(pipeline, stopped, tmp_path):
    said = session(tmp_path, HOURS=1.0, **stopped)
    assert "going on from" in said
    assert "submission.csv is there" in said
    files = [folder / "submission.csv" for folder in (tmp_path / "working", pipeline / "submissions")]
    assert files[0].read_bytes() == files[1].read_bytes()
    log = (tmp_path / "working/run.log").read_text()
    assert re.findall("Running stage '(.*)'", log) == ["source", "evaluate", "report"]


def test_the_method_notebook_runs_on_what_was_trained(pipeline, tmp_path):
    (tmp_path / "IPython").mkdir()  # stands in for Jupyter's
    (tmp_path / "IPython/display.py").write_text("def display(picture):\n    print('drawn', picture.size)\n")
    shutil.copy(ROOT / "notebooks/method.py", tmp_path)
    done = run(pipeline, sys.executable, str(tmp_path / "method.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("drawn") == 10
    assert re.search(r"\d+ proposals of 1023 anchors", done.stdout)
    assert re.search(rf"\n{read(pipeline / 'data/coco/val.json')['images'][0]['ImageId']},\d+ \d+", done.stdout)


@pytest.mark.parametrize("script", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_is_what_its_script_makes(script):
    """`make notebooks` was not forgotten."""
    made, there = jupytext.read(script), json.loads(script.with_suffix(".ipynb").read_text())
    assert there["cells"]
    assert [(c["cell_type"], c["source"]) for c in made["cells"]] == [
        (c["cell_type"], "".join(c["source"])) for c in there["cells"]
    ]
