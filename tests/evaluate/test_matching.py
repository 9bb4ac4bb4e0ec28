"""Matching and average precision against pycocotools on random documents."""

import numpy as np
import pytest
from documents import document_of, random_document, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from fashionseg.coco import average_precision
from fashionseg.evaluate import attributes, matching, mistakes

CATEGORIES = [3, 4, 8]


def documents(seed, **more):
    return random_document(seed, CATEGORIES, CATEGORIES, list(range(5)), **more)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_matches_equal_pycocotools(seed):
    """At IoU 0.5 the same predictions match the same instances."""
    document, results = documents(seed, images=5, ties=False)
    matched_all = matching.match(document, results)
    order = sorted(range(len(results)), key=lambda i: (results[i]["image_id"], -results[i]["score"]))
    true = sorted(document["annotations"], key=lambda a: a["image_id"])
    ours = {(order[p], true[t]["id"]) for p, t in enumerate(matched_all.matched) if t >= 0}
    theirs = set()
    for image in average_precision.evaluate(document, results)["segm"].evalImgs if results else []:
        if image and image["aRng"] == [0, 1e10]:
            theirs |= {(i - 1, int(t)) for i, t in zip(image["dtIds"], image["dtMatches"][0], strict=True) if t}
    assert ours == theirs


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_every_iou_equals_pycocotools(seed):
    document, results = documents(seed, images=4)
    matched_all = matching.match(document, results)
    true = sorted(document["annotations"], key=lambda a: a["image_id"])
    found = sorted(results, key=lambda r: (r["image_id"], -r["score"]))
    predictions, truth = matched_all.pairs
    both = {(p, t) for p, r in enumerate(found) for t, a in enumerate(true) if r["image_id"] == a["image_id"]}
    assert set(zip(predictions.tolist(), truth.tolist(), strict=True)) == both
    for prediction, annotation in both:
        masks = [found[prediction]["segmentation"]], [true[annotation]["segmentation"]]
        assert matched_all.iou_between(np.array(prediction), np.array(annotation)) == coco_mask.iou(*masks, [0])[0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["hit", "miss", "ignored"]), max_size=60), st.integers(0, 5), st.integers(2, 4))
def test_average_precision_equals_coco(kinds, missed, rows):
    """pycocotools' own accumulation of one class, in each of several rows at once."""
    kinds = np.array([np.roll(kinds, row) for row in range(rows)]).reshape(rows, -1)
    count = (kinds[0] == "hit").sum() + missed
    if not count:
        return
    evaluation = COCOeval(iouType="segm")
    evaluation.params.catIds, evaluation.params.imgIds = [1], [1]
    evaluation.params.areaRng, evaluation.params.maxDets = [[0, 1e10]], [100]
    evaluation.params.iouThrs = np.arange(rows)
    evaluation._paramsEval = evaluation.params
    evaluation.evalImgs = [
        {
            "dtScores": -np.arange(kinds.shape[1]),
            "dtMatches": (kinds == "hit").astype(int),
            "dtIgnore": kinds == "ignored",
            "gtIgnore": np.zeros(count),
        }
    ]
    evaluation.accumulate()
    expected = evaluation.eval["precision"][:, :, 0, 0, 0].mean(1)
    np.testing.assert_allclose(matching.average_precision(kinds == "hit", kinds == "miss", count), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([(0.6, 0.9, 0), (0.7, 0.8, 0)], 0),  # a better mask with worse attributes: the first raised both bars
        ([(0.6, 0.8, 0), (0.7, 0.9, 0)], 1),
        ([(0.6, 0.9, 0), (0.6, 0.9, 0)], 1),  # of equals the last
        ([(0.5, 0.5, 0)], 0),  # a threshold is reached by what equals it
        ([(0.49, 0.9, 0), (0.9, 0.49, 0)], -1),
        ([(0.6, 0.6, 0), (0.9, 0.9, 1)], 0),  # one to be ignored is for those that find no other
        ([(0.4, 0.6, 0), (0.9, 0.9, 1), (0.95, 0.95, 1)], 2),
    ],
)
def test_which_true_instance_is_taken(truth, expected):
    iou, f1, ignored = (np.array([values]) for values in zip(*truth, strict=True))
    half = np.array([0.5])
    assert matching.assign(iou[None], f1[None], ignored.astype(bool), half, half).ravel().tolist() == [expected]


def test_each_true_instance_is_taken_once_at_each_threshold():
    """Two predictions; at IoU 0.7 the first leaves what the second then takes."""
    iou = np.array([[[0.6, 0.55], [0.9, 0.5]]])
    places = matching.assign(iou, np.ones_like(iou), np.zeros((1, 2), bool), np.array([0.5, 0.7]), np.array([0.5]))
    assert places[0, :, :, 0].tolist() == [[0, -1], [1, 0]]


def test_batches_hold_each_group_once():
    predictions, truth = np.array([7, 3, 7, -1, 5, 3, 9]), np.array([3, 5, -1, 7, 3, 5, 8])
    groups = {}
    for found, true in matching.batches(predictions, truth, 1):
        for some, others in zip(found.tolist(), true.tolist(), strict=True):
            groups[predictions[some[0]]] = (some, others)
    assert groups == {7: ([0, 2], [3]), 3: ([1, 5], [0, 4]), 5: ([4], [1, 5])}
    assert not list(matching.batches(np.zeros(0, int), truth, 1))


def test_batches_are_split_without_loss(monkeypatch):
    document, results = documents(5)
    whole = matching.match(document, results).matched
    monkeypatch.setattr(matching, "BATCH_CELLS", 1)
    np.testing.assert_array_equal(matching.match(document, results).matched, whole)


def test_more_than_255_predictions():
    """pycocotools' area fails on lists longer than 255."""
    document = document_of([rectangle(1, 3, (10, 10, 60, 60))], 1, CATEGORIES, [])
    results = [rectangle(1, 3, (10, 10, 60, 1 + n % 60), score=n / 300) for n in range(300)]
    matched_all = matching.match(document, results)
    assert matched_all.predictions.areas.max() == 3600
    assert (matched_all.matched >= 0).sum() == 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_predictions_in_crowd_regions_count_as_in_pycocotools(seed):
    """In the AP of IoU and F1 at every F1, in the error table and in the confusions; a crowd is of one class."""
    document, results = documents(seed, images=6, ties=False)
    crowds = [{**row, "iscrowd": 1, "id": 1000 + row["id"]} for row in document["annotations"][::3]]
    document = {**document, "annotations": document["annotations"][1:], "crowds": crowds}
    found = matching.match(document, results)
    scores = attributes.aggregates(attributes.evaluate(found, np.zeros(len(CATEGORIES), bool)))["IoU alone"]
    evaluation = average_precision.evaluate(document, results)["segm"]
    expected = average_precision.summary(evaluation)
    for name, other in (("AP", "AP"), ("AP_IOU50", "AP50"), ("AP_IOU75", "AP75")):
        value = np.nan if expected[other] is None else expected[other]
        assert scores[name] == pytest.approx(value, abs=1e-5, nan_ok=True)
    images = [image for image in evaluation.evalImgs if results and image and image["aRng"] == [0, 1e10]]
    wrong = sum((~(image["dtMatches"][0] > 0) & ~image["dtIgnore"][0]).sum() for image in images)
    assert ((found.matched < 0) & ~found.ignored).sum() == wrong
    table = mistakes.breakdown(found).set_index("error")["count"]
    assert table.drop("missed").sum() == wrong
    shown = found.predictions.scores >= 0.5
    confused = mistakes.confusion(found, document)
    there = confused["count"][confused["predicted"] != "(missed)"].sum()
    assert there == (shown & ~found.ignored).sum()
