"""COCO scores of perfect, shifted and missing predictions; unknown ids are errors."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from documents import random_document
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fashionseg.coco import average_precision
from fashionseg.core.documents import apart
from fashionseg.core.errors import UserError
from fashionseg.evaluate import ap_tables

CATEGORIES = [{"id": 3, "name": "vest"}, {"id": 7, "name": "shoe, boot"}, {"id": 9, "name": "cape"}]


def instance(image_id: int, category_id: int, box: tuple[int, ...], side: int = 64, **more: Any) -> dict[str, Any]:
    """An annotation or result of a rectangle x, y, width, height in a square picture."""
    x, y, w, h = box
    bitmap = np.zeros((side, side), np.uint8, order="F")
    bitmap[y : y + h, x : x + w] = 1
    code = coco_mask.encode(bitmap)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": {"size": [side, side], "counts": code["counts"].decode()},
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "attribute_ids": [],
        **more,
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """Two pictures with three instances, and a third without any."""
    annotations = [instance(1, 3, (4, 4, 40, 40)), instance(1, 7, (50, 50, 10, 10)), instance(2, 7, (8, 8, 20, 30))]
    return {
        "images": [{"id": i, "file_name": f"train/{i}.jpg", "height": 64, "width": 64} for i in (1, 2, 3)],
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, 1)],
        "categories": CATEGORIES,
        "attributes": [{"id": 5, "name": "lined"}, {"id": 115, "name": "mini"}],
    }


@pytest.fixture
def perfect(document) -> list[dict[str, Any]]:
    return [{**annotation, "score": 0.9} for annotation in document["annotations"]]


@pytest.mark.parametrize("kind", average_precision.KINDS)
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_some_categories_at_a_time_are_all_at_once(kind, at_once, monkeypatch):
    document, results = random_document(3, [0, 1, 2, 3, 4], [0, 1, 3], list(range(5)), images=6)
    monkeypatch.setattr(average_precision, "CATEGORIES", at_once)
    found = average_precision.evaluate_kind(document, results, kind)
    truth = COCO()
    truth.dataset = document
    truth.createIndex()
    kept = [{key: value for key, value in result.items() if kind == "bbox" or key != "bbox"} for result in results]
    plain = COCOeval(truth, truth.loadRes(kept), kind)
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    np.testing.assert_array_equal(found.stats, plain.stats)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(found.eval[name], plain.eval[name])
    of_all_sizes = [image for image in plain.evalImgs if image and image["aRng"] == plain.params.areaRng[0]]
    results_of = [
        [(image["image_id"], image["category_id"], image["dtIds"], image["dtMatches"].tolist()) for image in images]
        for images in (found.evalImgs, of_all_sizes)
    ]
    assert results_of[0] == results_of[1]


def test_perfect_predictions(document, perfect):
    evaluations = average_precision.evaluate(document, perfect)
    for evaluation in evaluations.values():
        assert average_precision.summary(evaluation) == {
            "AP": 1, "AP50": 1, "AP75": 1, "APs": 1, "APm": 1, "APl": None, "AR100": 1,
        }  # fmt: skip
    table = ap_tables.by_class(document, evaluations, perfect)
    assert table.to_dict("list") == {
        "id": [3, 7], "name": ["vest", "shoe"], "supercategory": ["", ""], "truth": [1, 2], "predictions": [1, 2],
        "AP": [1, 1], "AP50": [1, 1], "box_AP": [1, 1],
    }  # fmt: skip
    curve = ap_tables.precision_recall(evaluations["segm"])
    assert len(curve) == 101
    assert (curve.drop(columns="recall") == 1).all().all()


def test_classes_keep_their_scores_in_any_order_of_ids(document, perfect):
    found = [one for one in perfect if one["category_id"] == 7]
    shuffled = {**document, "categories": [CATEGORIES[i] for i in (2, 1, 0)]}
    table = ap_tables.by_class(shuffled, average_precision.evaluate(shuffled, found), found).set_index("id")
    assert table["AP"].to_dict() == {7: 1, 3: 0}
    assert table["predictions"].to_dict() == {7: 2, 3: 0}


def test_ap_of_shifted_predictions(document, perfect):
    """IoU 39 / 41 of one of two classes passes all thresholds; 20 rows down, IoU 1 / 3, none."""
    perfect[0] = instance(1, 3, (5, 4, 40, 40), score=0.9)
    assert average_precision.summary(average_precision.evaluate(document, perfect)["segm"])["AP"] == 1
    perfect[0] = instance(1, 3, (4, 24, 40, 40), score=0.9)
    assert average_precision.summary(average_precision.evaluate(document, perfect)["segm"])["AP"] == 0.5


def test_recall_is_of_a_hundred_instances_an_image():
    found = [instance(1, 3, (5 * n, 0, 4, 60), score=0.9, id=n + 1) for n in range(12)]
    document = {"images": [{"id": 1, "height": 64, "width": 64}], "annotations": found, "categories": CATEGORIES}
    evaluations = average_precision.evaluate(document, found)
    assert {average_precision.summary(of_kind)["AR100"] for of_kind in evaluations.values()} == {1}


def test_masks_are_sized_by_their_own_area(document, perfect):
    """A small mask within a large box is a small detection for segm: loadRes alone would take the box's area."""
    lost = {**instance(2, 3, (0, 0, 10, 10)), "bbox": [0, 0, 60, 60], "score": 0.99}
    evaluations = average_precision.evaluate(document, [*perfect, lost])
    assert (
        average_precision.summary(evaluations["segm"])["APm"] == 1
    )  # a stray small detection does not count among the medium
    assert average_precision.summary(evaluations["bbox"])["APm"] < 1


def test_without_predictions_ap_is_0(document):
    evaluations = average_precision.evaluate(document, [])
    scores = average_precision.summary(evaluations["segm"])
    assert (scores["AP"], scores["AR100"], scores["APl"]) == (0, 0, None)
    json.dumps(scores, allow_nan=False)
    assert ap_tables.by_class(document, evaluations, [])["AP"].tolist() == [0, 0]


def test_image_scores_and_choice_of_overlays(document, perfect):
    from fashionseg.evaluate import overlays

    del perfect[1]
    scores = overlays.image_scores(average_precision.evaluate(document, perfect)["segm"])
    assert scores == {1: 0.5, 2: 1.0}  # the third picture has no truth
    stray = instance(2, 9, (40, 40, 8, 8), score=0.8)
    assert overlays.image_scores(average_precision.evaluate(document, [*perfect, stray])["segm"])[2] == 0.5
    crowd = {**instance(2, 9, (40, 40, 10, 10)), "id": 99, "iscrowd": 1}
    crowded = apart({**document, "annotations": [*document["annotations"], crowd]})
    assert overlays.image_scores(average_precision.evaluate(crowded, [*perfect, stray])["segm"]) == {1: 0.5, 2: 1.0}
    chosen = overlays._best_and_worst({i: -i for i in range(20)}, 8)
    assert chosen == {"best": list(range(8)), "worst": list(range(19, 11, -1))}
    assert overlays._best_and_worst({1: 0.5, 2: 0.7, 3: 0.6}, 16) == {"best": [2, 3], "worst": [1]}


def test_overlays_are_drawn(document, perfect, tmp_path):
    import cv2

    from fashionseg.evaluate import overlays

    (tmp_path / "train").mkdir()
    for i in (1, 2, 3):
        cv2.imwrite(str(tmp_path / f"train/{i}.jpg"), np.full((32, 32, 3), 127, np.uint8))
    wrong = pd.DataFrame(
        [(0, 1, "shirt", 0.9, 0.3, "", 0.0), (1, 1, "shirt", 0.8, 0.3, "", 0.0)],
        columns=["prediction", "image_id", "name", "score", "IoU", "other", "other_IoU"],
    )
    chosen = {"scores": {1: 0.5, 2: 1.0}, "wrong": wrong, "count": 4}
    table = overlays.draw_overlays(document, perfect, tmp_path, tmp_path / "out", **chosen)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["01_best_2.jpg", "02_worst_1.jpg", "03_wrong_1.jpg"] == table["file"].tolist()
    assert table["kind"].tolist() == ["best", "worst", "wrong"]
    assert table["caption"].tolist() == ["1.00 found", "0.50 found", "shirt 0.90: IoU 0.30 with a true shirt"]
    (tmp_path / "train/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1\.jpg is missing or not a valid image .*; run `dvc repro`, which writes"):
        overlays.draw_overlays(document, perfect, tmp_path, tmp_path / "out", **chosen)
    drawn = cv2.imread(str(tmp_path / "out" / files[0]))
    assert drawn.std() > 5
    assert drawn.shape[1] > drawn.shape[0]


def test_classes_without_a_supercategory(document, perfect):
    table = ap_tables.by_class(document, average_precision.evaluate(document, perfect), perfect)
    assert ap_tables.by_supercategory(table)["supercategory"].tolist() == ["(none)"]


@pytest.mark.parametrize(
    ("iou", "other_iou", "what"),
    [(0.3, 0.6, "IoU 0.30 with a true vest"), (0.05, 0.6, "IoU 0.60 with a true cape"), (0.05, 0.05, "nothing there")],
)
def test_the_caption_says_what_is_there(iou, other_iou, what):
    from fashionseg.evaluate import overlays

    row = pd.Series({"name": "vest", "score": 0.9, "IoU": iou, "other": "cape", "other_IoU": other_iou})
    (row,) = row.to_frame().T.itertuples()
    assert overlays._mistake_caption(row) == f"vest 0.90: {what}"
    assert [overlays._note(["a (b)", "c", "d"][:n]) for n in range(4)] == ["", "a", "a, c", "a, c +1"]


def test_overlays_show_truth_beside_predictions_from_the_shown_score_on(document, perfect, tmp_path, monkeypatch):
    from PIL import Image

    from fashionseg.evaluate import overlays

    (tmp_path / "train").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"train/{i}.jpg")
    drawn = []
    monkeypatch.setattr(overlays.overlay, "draw", lambda image, instances, names: drawn.append(instances) or image)
    results = [
        {**perfect[2], "score": 0.6},
        {**perfect[2], "category_id": 9, "score": 0.7},
        {**perfect[0], "score": 0.4},
    ]
    columns = ["prediction", "image_id", "name", "score", "IoU", "other", "other_IoU"]
    wrong = pd.DataFrame([(1, 2, "cape", 0.7, 0, "", 0), (0, 1, "vest", 0.6, 0, "", 0)], columns=columns)
    chosen = {"scores": {1: 0.5}, "wrong": wrong, "count": 1}
    overlays.draw_overlays(document, results, tmp_path, tmp_path / "out", **chosen)
    assert [instances.classes.tolist() for instances in drawn] == [[0, 1], [], [1], [2]]
