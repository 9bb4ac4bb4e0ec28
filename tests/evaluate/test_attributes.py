"""AP_IoU+F1 against its authors' package and against its definition in loops, F1 against scikit-learn."""

import contextlib
import os
from typing import Any

import numpy as np
import pytest
from documents import document_of, random_document, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from sklearn.metrics import f1_score, precision_recall_fscore_support

from fashionseg.evaluate import attributes, matching
from fashionseg.evaluate.attributes import PrecisionRecall

GROUPS = {"APo": range(13), "APa": range(13, 27), "APp": range(27, 46)}  # FPEval's supercategories
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def evaluated(document: dict[str, Any], results: list[dict[str, Any]]) -> attributes.PrecisionRecall:
    return attributes.evaluate(matching.match(document, results), attributes.with_attributes(document))


def reference(document: dict[str, Any], results: list[dict[str, Any]], monkeypatch) -> Any:
    """FPEval as the package's readme runs it; results without boxes, whose area it would take for the mask's."""
    from fashionpedia.fp import Fashionpedia
    from fashionpedia.fp_eval import FPEval

    monkeypatch.setattr(np, "float", float, raising=False)  # NumPy no longer has it
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        truth = Fashionpedia()
        truth.dataset = document
        truth.createIndex()
        found = truth.loadRes([{key: value for key, value in row.items() if key != "bbox"} for row in results])
        evaluation = FPEval(truth, found, "segm")
        evaluation.run()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_fpeval(seed, monkeypatch):
    """Classes of all three groups, with attributes and without; 294 attributes, then so few that all may be present."""
    ids = np.arange(0, 588, 2) if seed % 2 else np.arange(3, 8)
    document, results = random_document(seed, list(range(46)), [0, 1, 5, 14, 20, 30, 31, 45], ids.tolist())
    theirs = reference(document, results, monkeypatch)
    scores = evaluated(document, results)
    ours = attributes.aggregates(scores)
    matched_all = 0
    for mode, values in zip(ours, (theirs.results, theirs.resultDet, theirs.resultF1), strict=True):
        for name, value in values.items():
            if name in GROUPS:
                group = PrecisionRecall(*(of_class[GROUPS[name]] for of_class in vars(scores).values()))
                here = attributes.aggregates(group)[mode]["AP"]
            else:
                here = ours[mode][name]
            assert here == pytest.approx(value if value > -1 else np.nan, abs=1e-9, nan_ok=True), (mode, name)
            matched_all += value > 0.01
    assert matched_all > 40
    assert sum(map(len, ours.values())) == sum(map(len, (theirs.results, theirs.resultDet, theirs.resultF1))) - 7


def plain_f1(first: set[int], second: set[int], every: set[int]) -> float:
    """Mean of the F1 of present and of absent attributes; an F1 of nothing is left out."""
    values = []
    for a, b in ((first, second), (every - first, every - second)):
        if a or b:
            values.append(2 * len(a & b) / (len(a) + len(b)))
    return sum(values) / len(values)


def plain_ap(document: dict[str, Any], results: list[dict[str, Any]]) -> tuple[float, float]:
    """AP over all classes: headline and plain mean, by the definition, a pair of thresholds after the other."""
    every = {attribute["id"] for attribute in document["attributes"]}
    headline, plain = [], []
    for category in document["categories"]:
        true = [a for a in document["annotations"] if a["category_id"] == category["id"]]
        found = sorted((r for r in results if r["category_id"] == category["id"]), key=lambda r: -r["score"])
        if not true:
            continue
        limits = [*THRESHOLDS] if any(a["attribute_ids"] for a in true) else [-1]
        values = []
        for f1_limit in limits:
            of_limit = []
            for iou_limit in THRESHOLDS:
                taken, hits = set(), []
                for result in found:
                    iou_bar, f1_bar, best = iou_limit, f1_limit, None
                    for annotation in true:
                        if annotation["image_id"] != result["image_id"] or annotation["id"] in taken:
                            continue
                        iou = coco_mask.iou([result["segmentation"]], [annotation["segmentation"]], [0])[0, 0]
                        f1 = plain_f1(set(result["attribute_ids"]), set(annotation["attribute_ids"]), every)
                        if iou >= iou_bar and (f1_limit < 0 or f1 >= f1_bar):
                            iou_bar, f1_bar, best = iou, f1, annotation["id"]
                    hits.append(best is not None)
                    taken.add(best)
                points = [(sum(hits[:n]) / len(true), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
                recalls = np.linspace(0, 1, 101)
                of_limit.append(np.mean([max([p for r, p in points if r >= at], default=0) for at in recalls]))
            values.append(np.mean(of_limit))
        headline += values
        plain.append(np.mean(values))
    return float(np.mean(headline)), float(np.mean(plain))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_equal_to_the_definition(seed):
    """Any ids of categories and attributes; the classes with attributes are read off the truth. No tied scores: images
    are tried in the order of their ids, which a definition does not know."""
    document, results = random_document(seed, [90, 7, 12], [7, 12, 90], [2, 3, 5, 7], 3, 5, 5, ties=False)
    for row in [*document["annotations"], *results]:
        if row["category_id"] == 12:
            row["attribute_ids"] = []
    if not document["annotations"]:
        return
    scores = evaluated(document, results)
    headline, plain = plain_ap(document, results)
    assert attributes.aggregates(scores)["IoU and F1"]["AP"] == pytest.approx(headline, abs=1e-9)
    assert attributes.summary(scores)["AP_plain"] == pytest.approx(plain, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_f1_equals_scikit_learn(seed, count):
    random = np.random.default_rng(seed)
    first, second = random.random((2, 7, count)) < random.random((2, 7, 1))
    expected = [f1_score(a, b, average="macro") for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(attributes.f1_scores(first, second), expected, rtol=0, atol=1e-15)


def test_weights_of_the_headline():
    """A class with attributes, all wrong, and one without, all right: AP 1/11, plain mean 1/2."""
    box = (10, 10, 60, 60)
    truth = [rectangle(1, 7, box, attribute_ids=[1, 2]), rectangle(1, 9, box)]
    document = document_of(truth, 1, [7, 9], [1, 2, 3, 4])
    results = [rectangle(1, 7, box, attribute_ids=[3, 4], score=0.9), rectangle(1, 9, box, score=0.8)]
    summary = attributes.summary(evaluated(document, results))
    assert (summary["AP"], summary["AP_plain"]) == (round(1 / 11, 5), 0.5)
    assert (summary["APs"], summary["APm"], summary["APl"]) == (None, round(1 / 11, 5), None)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [([1], [2], True), ([], [2], False), ([1], [], False), ([1], None, False), ([1], "nothing predicted", True)],
)
def test_measurable(true, predicted, expected):
    """Not without attributes in the truth, nor where no prediction has any (no attribute head)."""
    document = document_of([rectangle(1, 7, (1, 1, 9, 9), attribute_ids=true)], 1, [7], [1, 2])
    result = rectangle(1, 7, (1, 1, 9, 9), score=0.5, attribute_ids=predicted)
    if predicted is None:
        del result["attribute_ids"]
    assert attributes.measurable(document, [] if predicted == "nothing predicted" else [result]) is expected


def test_attributes_below_the_score_do_not_count():
    result = {"attribute_ids": [3, 8, 9], "attribute_scores": [0.5, 0.49, 0.9]}
    assert matching.shown_attributes(result, 0.5) == [3, 9]
    assert matching.shown_attributes({"attribute_ids": [3]}, 0.5) == [3]
    assert matching.shown_attributes({}, 0.5) == []


@pytest.mark.parametrize("seed", range(3))
def test_f1_by_attribute_equals_scikit_learn(seed):
    ids = list(range(10, 20))
    document, results = random_document(seed, [1, 2], [1, 2], ids, images=30)
    matched_all = matching.match(document, results)
    table = attributes.by_attribute(matched_all, document)
    found = matched_all.matched >= 0
    true = matched_all.truth.attributes[matched_all.matched[found]]
    predicted = matched_all.predictions.attributes[found]
    values = precision_recall_fscore_support(true, predicted, zero_division=np.nan, average=None)
    places = [ids.index(id_) for id_ in table["id"]]
    for name, expected in zip(("precision", "recall", "F1", "matched"), values, strict=True):
        np.testing.assert_allclose(table[name], expected[places], atol=1e-5)
    counts = [sum(id_ in a["attribute_ids"] for a in document["annotations"]) for id_ in table["id"]]
    assert table["truth"].tolist() == counts
    frequent = table[table["truth"] >= 10]
    assert len(frequent) > 0
    assert attributes.macro_f1(table) == pytest.approx(frequent["F1"].mean(), abs=1e-5)
    groups = attributes.by_supercategory(table)
    assert groups["attributes"].sum() == len(frequent)
    assert attributes.macro_f1(table.head(0)) is None


def test_frequent_attributes_have_ten_instances():
    """Attribute 1 ten times, 2 nine times; all predicted right but the instance without 2, which is missed."""
    truth = [rectangle(i, 7, (10, 10, 60, 60), attribute_ids=[1] + [2] * (i > 1)) for i in range(1, 11)]
    document = document_of(truth, 10, [7], [1, 2])
    table = attributes.by_attribute(matching.match(document, [{**row, "score": 0.9} for row in truth[1:]]), document)
    assert table[["id", "truth", "matched", "frequent"]].values.tolist() == [[1, 10, 9, True], [2, 9, 9, False]]
    assert attributes.macro_f1(table) == 1
    assert attributes.by_supercategory(table.assign(supercategory=""))["supercategory"].tolist() == ["(none)"]


def test_a_mask_on_the_bound_of_two_sizes_is_of_both():
    """As in COCO: of 32 x 32 pixels small and medium."""
    truth = [rectangle(1, 7, (10, 10, 32, 32), attribute_ids=[1])]
    document = document_of(truth, 1, [7], [1, 2])
    summary = attributes.summary(evaluated(document, [{**truth[0], "score": 0.9}]))
    assert (summary["APs"], summary["APm"], summary["APl"]) == (1, 1, None)


@pytest.mark.parametrize(("strays", "recall"), [(99, 0.3), (100, 0)])
def test_a_hundred_predictions_of_a_class_count_in_an_image(strays, recall):
    """The last finds the instance, with IoU 25 / 40."""
    document = document_of([rectangle(1, 7, (10, 10, 40, 40))], 1, [7], [1])
    results = [rectangle(1, 7, (90, 90, 4, 4), score=0.9)] * strays + [rectangle(1, 7, (10, 10, 40, 25), score=0.5)]
    summary = attributes.summary(evaluated(document, results))
    assert summary["AR100"] == pytest.approx(recall)
    assert (summary["AP50"] > 0) == (recall > 0)
    assert summary["AP75"] == 0


def test_an_attribute_of_missed_instances_alone_counts_as_0():
    truth = [rectangle(i, 7, (10, 10, 60, 60), attribute_ids=[1]) for i in range(1, 11)]
    document = document_of(truth, 10, [7], [1, 2])
    results = [rectangle(1, 7, (10, 10, 60, 60), attribute_ids=[2], score=0.9)]
    table = attributes.by_attribute(matching.match(document, []), document)
    assert attributes.macro_f1(table) == 0
    assert attributes.by_supercategory(table)["F1"].tolist() == [0]
    table = attributes.by_attribute(matching.match(document, results), document)
    assert table["id"].tolist() == [1, 2]  # 2 is predicted and never true
