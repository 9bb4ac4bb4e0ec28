"""Errors by kind against the package tidecv (golden/tide.json), confusions against loops over the definition."""

import json
from collections import Counter
from pathlib import Path

import pytest
from documents import document_of, random_document, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fashionseg.coco import average_precision
from fashionseg.evaluate import matching, mistakes

CASES = json.loads((Path(__file__).parents[1] / "golden" / "tide.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=["many", "crowded", "few"])
def test_equal_to_tidecv(case):
    truth = [rectangle(image, class_, box) for image, class_, *box in case["truth"]]
    document = document_of(truth, max(row[0] for row in case["truth"]), [3, 4, 8], [])
    results = [rectangle(image, class_, box, score=score) for image, class_, *box, score in case["found"]]
    table = mistakes.breakdown(matching.match(document, results)).set_index("error")
    assert table["count"].to_dict() == case["count"]
    assert (100 * table["dAP"]).to_dict() == pytest.approx(case["dAP"], abs=1e-3)
    scores = average_precision.summary(average_precision.evaluate(document, results)["segm"])
    assert scores["AP50"] == pytest.approx(case["ap"] / 100, abs=1e-5)


def test_without_truth_or_predictions():
    """Without truth every prediction is background; without predictions every instance is missed."""
    box = (10, 10, 60, 60)
    empty = document_of([], 1, [3], [])
    invented = mistakes.breakdown(matching.match(empty, [rectangle(1, 3, box, score=0.9)]))
    assert invented["count"].tolist() == [0, 0, 0, 0, 1, 0]
    missed = mistakes.breakdown(matching.match(document_of([rectangle(1, 3, box)], 1, [3], []), []))
    assert missed["count"].tolist() == [0, 0, 0, 0, 0, 1]
    assert mistakes.breakdown(matching.match(empty, []))["count"].sum() == 0
    assert mistakes.confusion(matching.match(empty, []), empty).empty


def test_classes_without_truth_do_not_count_in_the_mean():
    """Predicted as a class without truth: AP50 is 0, and 1 when the class is corrected."""
    box = (10, 10, 60, 60)
    document = document_of([rectangle(1, 3, box)], 1, [3, 4], [])
    table = mistakes.breakdown(matching.match(document, [rectangle(1, 4, box, score=0.9)])).set_index("error")
    assert (table["count"]["class"], table["dAP"]["class"]) == (1, 1)
    assert table["count"].sum() == 1


@pytest.mark.parametrize(("strays", "expected"), [(0, 0.5), (1, 0)])
def test_a_class_of_missed_instances_alone(strays, expected):
    """Without its truth it does not count in the mean; with predictions of the class its AP stays 0, as in tidecv."""
    a, b, c = (0, 0, 40, 40), (50, 50, 40, 40), (0, 60, 40, 40)
    document = document_of([rectangle(1, 3, a), rectangle(1, 4, b)], 1, [3, 4], [])
    results = [rectangle(1, 3, a, score=0.9)] + [rectangle(1, 4, c, score=0.9)] * strays
    table = mistakes.breakdown(matching.match(document, results)).set_index("error")
    assert (table["count"]["missed"], table["dAP"]["missed"]) == (1, expected)


def plain_confusion(document, results) -> Counter:
    """Two rounds over the predictions, best first: of the instance's own class, then of any."""
    names = {category["id"]: category["name"].split(",")[0] for category in document["categories"]}
    shown = sorted((r for r in results if r["score"] >= 0.5), key=lambda r: -r["score"])
    taken = {}  # annotation id: place in shown
    for of_class in (True, False):
        for place, result in enumerate(shown):
            if place in taken.values():
                continue
            best, bar = None, 0.5
            for annotation in document["annotations"]:
                if annotation["image_id"] != result["image_id"] or annotation["id"] in taken:
                    continue
                if of_class and annotation["category_id"] != result["category_id"]:
                    continue
                iou = coco_mask.iou([result["segmentation"]], [annotation["segmentation"]], [0])[0, 0]
                if iou >= bar:
                    best, bar = annotation["id"], iou
            if best:
                taken[best] = place
    pairs = Counter()
    for annotation in document["annotations"]:
        found = annotation["id"] in taken
        predicted = names[shown[taken[annotation["id"]]]["category_id"]] if found else "(missed)"
        pairs[names[annotation["category_id"]], predicted] += 1
    for place, result in enumerate(shown):
        if place not in taken.values():
            pairs["(invented)", names[result["category_id"]]] += 1
    return pairs


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_confusions_by_definition(seed):
    document, results = random_document(seed, [3, 4, 8], [3, 4, 8], list(range(4)), images=4, ties=False)
    table = mistakes.confusion(matching.match(document, results), document)
    assert table.set_index(["truth", "predicted"])["count"].to_dict() == plain_confusion(document, results)


def test_confusion_by_hand():
    """Matched, confused, missed, false positive and below SHOWN_SCORE; the own class comes before the higher score."""
    a, b, c = (0, 0, 40, 40), (50, 50, 40, 40), (0, 60, 40, 40)
    document = document_of([rectangle(1, 3, a), rectangle(1, 4, b), rectangle(1, 8, c)], 2, [3, 4, 8], [])
    results = [
        rectangle(1, 4, a, score=0.9),
        rectangle(1, 3, a, score=0.6),
        rectangle(1, 8, b, score=0.5),
        rectangle(1, 8, c, score=0.49),
        rectangle(2, 3, a, score=0.7),
        rectangle(2, 3, b, score=0.7),
    ]
    table = mistakes.confusion(matching.match(document, results), document)
    assert table.columns.tolist() == ["truth", "predicted", "count"]
    assert table.iloc[0].tolist() == ["(invented)", "class 3", 2]
    assert sorted(table.iloc[1:].itertuples(index=False, name=None)) == [
        ("(invented)", "class 4", 1),
        ("class 3", "class 3", 1),
        ("class 4", "class 8", 1),
        ("class 8", "(missed)", 1),
    ]


def plain_wrong(document, results) -> list:
    """Predictions of score 0.5 or more without IoU 0.5 with their class, with the best of own and other classes."""
    names = {category["id"]: category["name"].split(",")[0] for category in document["categories"]}
    rows = []
    for result in results:
        ious = {True: [(0, "")], False: [(0, "")]}
        for annotation in document["annotations"]:
            if annotation["image_id"] == result["image_id"]:
                iou = coco_mask.iou([result["segmentation"]], [annotation["segmentation"]], [0])[0, 0]
                own = annotation["category_id"] == result["category_id"]
                ious[own].append((iou, names[annotation["category_id"]] if iou else ""))
        own, other = max(ious[True])[0], max(ious[False], key=lambda pair: pair[0])
        if result["score"] >= 0.5 and own < 0.5:
            rows.append((result["score"], result["image_id"], names[result["category_id"]], own, other[0]))
    return sorted(rows, reverse=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_confident_mistakes_by_definition(seed):
    document, results = random_document(seed, [3, 4, 8], [3, 4, 8], list(range(4)), images=5, ties=False)
    table = mistakes.confident_mistakes(matching.match(document, results), document)
    ordered = sorted(results, key=lambda result: (result["image_id"], -result["score"]))
    expected = plain_wrong(document, results)
    assert len(table) == len(expected)
    for row, (score, image_id, name, own, other) in zip(table.itertuples(), expected, strict=True):
        assert (row.score, row.image_id, row.name) == (score, image_id, name)
        assert (row.IoU, row.other_IoU) == pytest.approx((own, other), abs=1e-5)
        assert (row.other == "") == (other == 0)
        assert (ordered[row.prediction]["score"], ordered[row.prediction]["image_id"]) == (score, image_id)


def test_the_best_on_another_class_is_named():
    document = document_of([rectangle(7, 4, (0, 0, 40, 40)), rectangle(7, 3, (0, 0, 40, 10))], 7, [3, 4], [])
    results = [rectangle(7, 3, (0, 0, 40, 40), score=0.9), rectangle(2, 3, (0, 0, 40, 40), score=0.8)]
    table = mistakes.confident_mistakes(matching.match(document, results), document)
    assert table.to_dict("records") == [
        dict(prediction=1, image_id=7, name="class 3", score=0.9, IoU=0.25, other="class 4", other_IoU=1.0),
        dict(prediction=0, image_id=2, name="class 3", score=0.8, IoU=0.0, other="", other_IoU=0.0),
    ]


def test_mistakes_name_their_image_in_any_order_of_ids():
    """As those of a COCO folder, whose ids do not rise."""
    box = (0, 0, 40, 40)
    document = document_of([], 2, [3], [])
    document["images"].reverse()
    results = [rectangle(1, 3, box, score=0.9), rectangle(2, 3, box, score=0.8)]
    table = mistakes.confident_mistakes(matching.match(document, results), document)
    assert table[["prediction", "image_id"]].values.tolist() == [[0, 1], [1, 2]]


def test_a_prediction_in_a_crowd_region_is_no_mistake():
    """A prediction in the background is the only error; without it AP50 is 1."""
    box, background = (0, 0, 40, 40), rectangle(1, 3, (0, 60, 9, 9), score=0.95)
    document = document_of([rectangle(1, 3, box)], 1, [3], [])
    document["crowds"] = [rectangle(1, 3, (50, 50, 60, 60))]
    results = [background, rectangle(1, 3, (60, 60, 40, 40), score=0.9), rectangle(1, 3, box, score=0.8)]
    found = matching.match(document, results)
    assert mistakes.confident_mistakes(found, document)["score"].tolist() == [0.95]
    assert mistakes.breakdown(found).set_index("error")["dAP"]["background"] == 0.5


def test_an_iou_of_a_half_is_a_hit_and_no_mistake():
    document = document_of([rectangle(1, 3, (0, 0, 40, 40)), rectangle(1, 4, (60, 0, 9, 9))], 1, [3, 4], [])
    results = [rectangle(1, 3, (0, 0, 40, 20), score=0.5), rectangle(1, 3, (0, 60, 40, 20), score=0.5)]
    table = mistakes.confident_mistakes(matching.match(document, results), document)
    assert table[["prediction", "other"]].values.tolist() == [[1, ""]]
