"""Metrics and tables with and without attributes, and the columns that the plots of dvc.yaml need."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from documents import document_of, random_document, rectangle
from ruamel.yaml import YAML

from fashionseg.evaluate.scores import compute_scores

ROOT = Path(__file__).parents[2]
COCO = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"}


def random(attributes=(2, 3, 5, 7, 9), **more):
    return random_document(1, [1, 2, 4], [1, 2, 4], list(attributes), **more)


def without(rows):
    return [{key: value for key, value in row.items() if key != "attribute_ids"} for row in rows]


def test_with_attributes():
    document, results = random(images=30)
    metrics, tables, _ = compute_scores(document, results, 0.5)
    assert {name: set(values) for name, values in metrics.items()} == {
        "segm": COCO | {"AP_frequent"},
        "bbox": COCO | {"AP_frequent"},
        "iou_f1": COCO | {"AP_plain"},
        "attributes": {"macro_f1"},
    }
    assert 0 < metrics["iou_f1"]["AP"] < metrics["segm"]["AP"]
    assert metrics["attributes"]["macro_f1"] > 0.5
    assert len(tables["attributes"]) == 5
    by_class = tables["ap_by_class"]
    assert by_class["AP_IoU_F1"].mean() == pytest.approx(metrics["iou_f1"]["AP_plain"], abs=1e-4)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_ap_of_frequent_classes_is_that_of_a_truth_without_the_rare_ones(kind):
    document, results = random(images=30)
    rare = document["annotations"][0]["category_id"]
    of_rare = [a for a in document["annotations"] if a["category_id"] == rare]
    others = [a for a in document["annotations"] if a["category_id"] != rare]
    assert min(Counter(a["category_id"] for a in others).values()) >= 10
    for kept in (9, 10):
        left = {**document, "annotations": [*of_rare[:kept], *others]}
        without_rare = {**document, "annotations": others} if kept < 10 else left
        found = compute_scores(left, results, 0.5)[0][kind]
        assert found["AP_frequent"] == pytest.approx(
            compute_scores(without_rare, results, 0.5)[0][kind]["AP"], abs=2e-5
        )
        assert (found["AP_frequent"] == pytest.approx(found["AP"], abs=2e-5)) == (kept == 10)
    few = {**document, "annotations": of_rare[:9]}
    assert compute_scores(few, results, 0.5)[0][kind]["AP_frequent"] is None


def test_attributes_below_the_score_do_not_count():
    document, results = random()
    weak = [{**r, "attribute_ids": [2, 3, 5, 7, 9], "attribute_scores": [0.1] * 5} for r in results]
    none = [{**r, "attribute_scores": [0.9] * len(r["attribute_ids"])} for r in results]
    assert compute_scores(document, weak, 0.5)[0]["attributes"] == {"macro_f1": 0}
    assert compute_scores(document, none, 0.5)[0] == compute_scores(document, results, 0.5)[0]


@pytest.mark.parametrize("side", ["truth", "predictions", "both"])
def test_without_attributes(side):
    """No scores and no rows, which would look like those of a model that finds no attributes."""
    document, results = random()
    if side != "predictions":
        document = {**document, "annotations": without(document["annotations"]), "attributes": []}
        results = [{**result, "attribute_ids": []} for result in results]
    if side != "truth":
        results = without(results)
    metrics, tables, _ = compute_scores(document, results, 0.5)
    assert metrics.keys() == {"segm", "bbox"}
    assert tables["attributes"].empty
    assert tables["attribute_groups"].empty
    assert "iou_f1" not in tables
    assert "AP_IoU_F1" not in tables["ap_by_class"]


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("found", [True, False])
def test_without_truth_or_predictions(truth, found):
    row = rectangle(1, 4, (1, 1, 9, 9), attribute_ids=[3])
    document = document_of([row] * truth, 2, [1, 4], [3])
    metrics, tables, _ = compute_scores(document, [{**row, "score": 0.5}] * found, 0.5)
    json.dumps(metrics, allow_nan=False)
    assert metrics["segm"]["AP"] == (float(found) if truth else None)
    assert len(tables["confusion"]) == (truth or found)
    assert len(tables["errors"]) == 6


def test_sizes_and_supercategories():
    document, results = random(images=20)
    metrics, tables, _ = compute_scores(document, results, 0.5)
    sizes = tables["ap_by_size"]
    assert sizes["AP"].tolist() == [metrics["segm"][name] for name in ("APs", "APm", "APl")]
    assert sizes["box_AP"].tolist() == [metrics["bbox"][name] for name in ("APs", "APm", "APl")]
    assert sizes["truth"].sum() == len(document["annotations"])
    groups, classes = tables["ap_by_supercategory"].set_index("supercategory"), tables["ap_by_class"]
    assert groups["truth"].to_dict() == classes.groupby("supercategory")["truth"].sum().to_dict()
    one_and_four = classes[classes["name"].isin(["class 1", "class 4"])]
    assert groups["classes"].to_dict() == {"group 1": 2, "group 2": 1}
    assert groups["AP"]["group 1"] == pytest.approx(np.mean(one_and_four["AP"]), abs=1e-5)


def test_every_plot_finds_its_columns():
    _, tables, _ = compute_scores(*random(), 0.5)
    plotted = set()
    for plot in YAML(typ="safe").load(ROOT / "plots/dvc.yaml")["plots"]:
        for settings in plot.values() if isinstance(plot, dict) else ():
            for file, columns in settings["y"].items():
                if file.startswith("../results/evaluate/"):
                    table = tables[Path(file).stem]
                    assert {settings["x"], *([columns] if isinstance(columns, str) else columns)} <= set(table.columns)
                    plotted.add(Path(file).stem)
    assert plotted == tables.keys() - {"attributes", "iou_f1", "wrong"}


def test_masks_that_are_a_part_of_their_boxes():
    """IoU of the masks 31 / 40 and 25 / 40, of the boxes 1; class 4 is predicted and never true."""
    boxes = [10, 10, 40, 40], [70, 10, 40, 40]
    document = document_of([rectangle(1, n, box) for n, box in enumerate(boxes, 1)], 1, [1, 2, 4], [])
    results = [
        {**rectangle(1, n, (*box[:3], height), score=0.9), "bbox": box}
        for n, (box, height) in enumerate(zip(boxes, (31, 25), strict=True), 1)
    ]
    metrics, tables, _ = compute_scores(document, [*results, rectangle(1, 4, (9, 70, 40, 40), score=0.8)], 0.5)
    assert (metrics["segm"]["AP"], metrics["bbox"]["AP"]) == (0.45, 1)
    classes = tables["ap_by_class"].set_index("id")
    assert classes["predictions"].to_dict() == {1: 1, 2: 1, 4: 1}
    assert classes.loc[[1, 2], ["AP", "AP50", "box_AP"]].values.tolist() == [[0.6, 1, 1], [0.3, 1, 1]]
    assert tables["precision_recall"].drop(columns="recall").mean().tolist() == pytest.approx([1, 0.5, 0.45])
    assert tables["ap_by_size"].iloc[1].tolist()[1:] == [2, 0.45, 0.45, 1]
    assert tables["ap_by_size"]["AR100"].isna().tolist() == [True, False, True]
