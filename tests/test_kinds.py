"""Competitions of other kinds, from their folder to a checked submission, with params alone; the truth stands in for a
network."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ruamel.yaml import YAML

from fashionseg import params
from fashionseg.__main__ import main
from fashionseg.core import files, rle
from fashionseg.submit.candidates import grid_size
from kinds import KINDS, draw
from submission_scenes import prediction

ROOT = Path(__file__).parents[1]
DOCUMENTS = [f"data/coco/{name}" for name in ("train.json", "val.json", "sample_submission.csv")]
PRESETS = {"imaterialist_2019": "imaterialist_2019", "one_class": "one_class"}
CHANGES = {
    "data": {"source": "local", "path": "competition"},
    "split": {"folds": 3},
    "images": {"side": 64},
    "machine": {"workers": 1},
    "predict": {"scales": [1.0]},
    "tune": {"formula": "jaccard", "folds": 2, "trees": 5},  # for precision one instance an image is enough
    "submission": {"min_area": 4},
}
COLUMNS = {
    "imaterialist_2019": "ImageId,EncodedPixels,ClassId",
    "imaterialist_2020": "ImageId,EncodedPixels,ClassId,AttributesIds",
    "one_class": "ImageId,EncodedPixels",
    "coco": "ImageId,EncodedPixels,ClassId,AttributesIds",
}


def stage(name: str, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", ROOT / "stages" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


def results(document: dict, truth: pd.DataFrame, random: np.random.Generator) -> list[dict]:
    """The truth as predictions, and as many wrong ones of low score."""
    numbers = {image["ImageId"]: image["id"] for image in document["images"]}
    found = []
    for row in truth.itertuples():
        size = [int(row.Height)], [int(row.Width)]
        bitmap = rle.from_kaggle([row.EncodedPixels], *size).decode(0)
        known = {
            "attribute_ids": [int(text) for text in row.AttributesIds.split(",") if text],
            "attribute_scores": [0.9] * len(list(filter(None, row.AttributesIds.split(",")))),
        }
        score = round(float(random.uniform(0.7, 0.95)), 3)
        found.append({**prediction(bitmap, score, int(row.ClassId), numbers[row.ImageId]), **known})
        wrong = np.zeros_like(bitmap)
        y, x = random.integers(0, wrong.shape[0] - 8), random.integers(0, wrong.shape[1] - 8)
        wrong[y : y + 8, x : x + 8] = 1
        found.append(
            prediction(wrong, round(float(random.uniform(0.05, 0.3)), 3), int(row.ClassId), numbers[row.ImageId])
        )
    return found


def as_rows(document: dict) -> pd.DataFrame:
    """The annotations of a document in the form of train.csv."""
    images = {image["id"]: image for image in document["images"]}
    encoded = rle.from_coco([row["segmentation"] for row in document["annotations"]]).to_kaggle()
    return pd.DataFrame(
        [
            {
                "ImageId": images[row["image_id"]]["ImageId"],
                "EncodedPixels": pixels,
                "Height": images[row["image_id"]]["height"],
                "Width": images[row["image_id"]]["width"],
                "ClassId": row["category_id"],
                "AttributesIds": ",".join(map(str, row["attribute_ids"])),
            }
            for row, pixels in zip(document["annotations"], encoded, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("drawn") / "competition"
    return folder, draw(folder, 25)


@pytest.fixture(scope="module", params=KINDS)
def made(request, drawn, tmp_path_factory) -> SimpleNamespace:
    """A folder where all stages but the network ran."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    shutil.copytree(drawn[0], folder / "competition")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        truth = KINDS[kind](folder / "competition", drawn[1])
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
        if kind in PRESETS:
            params.apply(ROOT / "presets" / f"{PRESETS[kind]}.yaml")
        yaml = YAML()
        tree = yaml.load(Path("params.yaml"))
        for section, values in CHANGES.items():
            tree[section].update(values)
        yaml.dump(tree, Path("params.yaml"))
        stage("source", "data/source.json")
        stage("download", "data/source.json", "data/raw")
        stage("split", "data/raw", "data/split.csv")
        stage("convert", "data/raw", "data/split.csv", "data/coco", "data/images", "results/data")
        documents = {name: json.loads(Path(f"data/coco/{name}.json").read_text()) for name in ("train", "val", "test")}
        random = np.random.default_rng(0)
        files.write_json("predictions/val.json", results(documents["val"], as_rows(documents["val"]), random))
        files.write_json("predictions/test.json", results(documents["test"], truth, random))
        stage("tune", *DOCUMENTS, "predictions/val.json", "results/post.json", "results/tune", "metrics/tune.json")
        stage("submit", "data/coco/test.json", "predictions/test.json", "results/post.json", DOCUMENTS[2], "s.csv")
        yield SimpleNamespace(kind=kind, truth=truth, submission=params.load("submission").submission, **documents)


def test_the_submission_is_the_truth(made, capsys):
    """Pixels on the grid of the kind, classes and attributes, in the columns of the sample, each picture there."""
    main(["check", "s.csv", "data/coco/test.json", DOCUMENTS[2]])
    assert "s.csv is valid" in capsys.readouterr().out
    rows = pd.read_csv("s.csv", dtype=str, keep_default_na=False)
    assert ",".join(rows) == COLUMNS[made.kind]
    assert set(rows["ImageId"]) == {image["ImageId"] for image in made.test["images"]}
    seen = json.loads(Path("results/post.json").read_text())["attribute_pairs"]  # others are never submitted
    expected = {}
    for row in made.truth.itertuples():
        size = int(row.Height), int(row.Width)
        mask = rle.from_kaggle([row.EncodedPixels], *([side] for side in size)).resize(
            *grid_size(*size, made.submission)
        )
        known = map(str, seen.get(row.ClassId, []))
        attributes = ",".join(sorted(set(row.AttributesIds.split(",")) & set(known), key=int))
        expected[row.ImageId, row.ClassId, mask.to_kaggle()[0]] = attributes
    claims = rows[~rows["EncodedPixels"].isin(["", "1 1"])]
    found = {
        (row.ImageId, getattr(row, "ClassId", "1"), row.EncodedPixels): getattr(row, "AttributesIds", None)
        for row in claims.itertuples()
    }
    assert found.keys() == expected.keys()
    if "AttributesIds" in rows:
        assert found == expected


def test_what_is_read_is_what_was_drawn(made):
    """Names, attributes, ids and pictures without instances, as each kind has them."""
    images = [image for subset in (made.train, made.val) for image in subset["images"]]
    attributes = {attribute["id"] for attribute in made.train["attributes"]}
    assert not pd.read_csv("results/data/dropped.csv")["count"].any()
    if made.kind == "one_class":
        assert made.train["categories"] == [{"id": 1, "name": "object"}]
        assert attributes == set()
        assert Path(images[0]["file_name"]).suffix == ".png"
        answered = {row["image_id"] for subset in (made.train, made.val) for row in subset["annotations"]}
        assert len({image["id"] for image in images} - answered) == 2
    else:
        assert attributes
        assert len(made.train["categories"]) == 46
        assert attributes > {number for row in made.train["annotations"] for number in row["attribute_ids"]} != set()
    if made.kind == "coco":
        for name, subsets in (("train", (made.train, made.val)), ("val", (made.test,))):
            source = json.loads(Path(f"competition/annotations/instances_{name}2017.json").read_text())
            ids = {image["file_name"]: image["id"] for image in source["images"]}
            assert {image["ImageId"]: image["id"] for subset in subsets for image in subset["images"]} == ids
        crowds = [row for subset in (made.train, made.val) for row in subset["annotations"] if row["iscrowd"]]
        assert [row["image_id"] for row in crowds] == [700]
    else:
        assert sorted(image["id"] for image in images) == list(range(1, len(images) + 1))


def test_coco_results_load_into_the_source(made):
    """predictions/test.json is of the ids that a COCO folder has."""
    if made.kind != "coco":
        pytest.skip("of a COCO folder alone")
    truth = COCO("competition/annotations/instances_val2017.json")
    found = truth.loadRes("predictions/test.json")
    assert set(found.getImgIds()) == set(truth.getImgIds())
    evaluation = COCOeval(truth, found, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0.99
