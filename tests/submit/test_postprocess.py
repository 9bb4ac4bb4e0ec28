"""Post-processing: which candidates are submitted, and its file."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.submit import postprocess
from fashionseg.submit.candidates import FEATURES, make_candidates
from fashionseg.submit.forest import Forest
from fashionseg.submit.postprocess import NEVER, Selector, Thresholds
from json_places import ODD, changed, places
from submission_scenes import PARAMS, PLAIN, document, prediction, rectangle

FOREST = Forest(("of_class", *FEATURES), [["score", 0.55, 0.9, ["of_class", 0.3, 0.1, 0.5]], 0.2])


def selected(changes, *predictions):
    post = replace(PLAIN, **changes)
    candidates = make_candidates(list(predictions), 100, 100, PARAMS)
    return post.select(candidates, post.gains(candidates))


def test_thresholds_by_class_and_the_best_of_an_image():
    rows = [
        prediction(rectangle(0, 0, 20, 20), 0.9),
        prediction(rectangle(30, 0, 20, 20), 0.6, category_id=2),
        prediction(rectangle(60, 0, 20, 20), 0.4, category_id=3),
    ]
    assert selected({}, *rows) == [0, 1]
    assert selected({"score_thresholds": Thresholds(0.3, {"1": 0.7})}, *rows) == [1, 0, 2]  # by gain
    assert selected({"score_thresholds": Thresholds(0.3, {"1": NEVER})}, *rows) == [1, 2]
    assert selected({"max_per_image": 1, "score_thresholds": Thresholds(0.3, {"1": 0.7})}, *rows) == [1]
    assert selected({"score_thresholds": Thresholds(0.95)}, *rows) == [0]  # an image with nothing submitted scores 0
    assert selected({"min_area": 500}, *rows) == []


def test_suppression():
    rows = [
        prediction(rectangle(0, 0, 40, 40), 0.9),
        prediction(rectangle(0, 0, 40, 30), 0.8),  # IoU 0.75, wholly inside
        prediction(rectangle(0, 0, 10, 10), 0.7),  # IoU 0.06, wholly inside
        prediction(rectangle(0, 0, 10, 10), 0.7, category_id=2),
    ]
    assert selected({}, *rows) == [0, 1, 2, 3]
    assert selected({"nms_iou": 0.7}, *rows) == [0, 2, 3]
    assert selected({"mask_overlap": 0.9}, *rows) == [0, 3]
    assert selected({"nms_iou": 0.7, "score_thresholds": Thresholds(0.85)}, *rows) == [0]


@pytest.mark.parametrize("instances", [0.4, 3.0, 8.0])
def test_the_submitted_set_has_the_highest_expected_jaccard(instances):
    """Compared with all subsets of the candidates that suppression leaves."""
    random = np.random.default_rng(3)
    post = replace(PLAIN, nms_iou=0.5, selector=Selector(0.0, Thresholds(0.0), FOREST, instances))
    rows = [prediction(rectangle(10 * i, 0, 9, 9), 0.5) for i in range(7)]
    rows.insert(1, rows[0])  # a duplicate
    candidates = make_candidates(rows, 100, 100, PARAMS)
    for _ in range(20):
        gains = random.random(8)
        kept = post.select(candidates, gains)
        best = max(gains[:2])
        values = [best, *gains[2:]]
        sets = itertools.chain.from_iterable(itertools.combinations(values, count) for count in range(1, 8))
        expected = max(sum(s) / (len(s) + max(instances - sum(s), 0)) for s in sets)
        total = gains[kept].sum()
        assert total / (len(kept) + max(instances - total, 0)) == pytest.approx(expected)
        assert not {0, 1} <= set(kept)


def test_attribute_thresholds_by_category():
    post = replace(PLAIN, attribute_thresholds=Thresholds(0.5, {"2/5": 0.3}))
    rows = [{"category_id": c, "attribute_ids": [5, 9], "attribute_scores": [0.4, 0.5]} for c in (1, 2)]
    assert post.attribute_sets(rows) == [{9}, {5, 9}]


def test_attributes_never_seen_in_training_are_dropped():
    """However high they score; training has attribute 5 in class 1, and 9 in class 2."""
    training = document(1, {"category_id": 1, "attribute_ids": [5]}, {"category_id": 2, "attribute_ids": [9]})
    training["annotations"] += [{"category_id": 1, "attribute_ids": []}, {"category_id": 3}]
    post = replace(PLAIN, attribute_pairs=postprocess.attribute_pairs(training))
    assert post.attribute_pairs == {"1": [5], "2": [9]}
    rows = [{"category_id": c, "attribute_ids": [5, 9], "attribute_scores": [0.99, 0.99]} for c in (1, 2, 3)]
    rows.append({"category_id": 1, "attribute_ids": [5, 9], "attribute_scores": [0.99, 0.1]})
    assert post.attribute_sets(rows) == [{5}, {9}, set(), {5}]
    assert post.dropped_attributes(rows) == 4  # the last 9 is below its threshold anyway


def test_forest_predicts_the_mean_of_its_trees():
    columns = np.zeros((3, 1 + len(FEATURES)))
    columns[:, 0], columns[:, 1] = [0.1, 0.3, 0.4], [0.5, 0.6, 0.6]
    assert FOREST.predict(columns) == pytest.approx([0.55, 0.15, 0.35])
    assert FOREST.predict(columns[:0]).shape == (0,)
    with pytest.raises(ValueError, match="NaN"):
        FOREST.predict(columns * np.nan)


def test_the_file_keeps_the_post_processing(tmp_path):
    path = tmp_path / "postprocessing.json"
    of_class = Thresholds(0.3, {"1": 0.5})
    for selector in (None, Selector(0.25, of_class, FOREST), Selector(0.0, of_class, FOREST, true_per_image=6.5)):
        own = Thresholds(0.4, {"1/5": 0.2})
        post = replace(PLAIN, selector=selector, attribute_thresholds=own, max_per_image=1, mask_threshold=0.45)
        postprocess.write(path, post, {"strategy": "noted"})
        assert postprocess.read(path, document(1)) == post
    assert files.read_json(path)["strategy"] == "noted"


def test_a_wrong_file_is_an_error(tmp_path):
    path = tmp_path / "postprocessing.json"
    files.write_json(path, {"threshold": 1})
    with pytest.raises(UserError, match=r"postprocessing\.json is not a post-processing file of this version"):
        postprocess.read(path, document(1))
    postprocess.write(path, replace(PLAIN, categories=[1, 2]), {})
    with pytest.raises(UserError, match="tuned for other classes"):
        postprocess.read(path, document(1))
    postprocess.write(path, replace(PLAIN, attribute_thresholds=Thresholds(0.5, {"1/77": 0.4})), {})
    with pytest.raises(UserError, match="tuned for other attributes"):
        postprocess.read(path, document(1))
    postprocess.write(path, replace(PLAIN, attribute_pairs={"1": [77]}), {})
    with pytest.raises(UserError, match="tuned for other attributes"):
        postprocess.read(path, document(1))
    files.write_json(path, {**files.read_json(path), "attribute_pairs": [[1, 77]]})
    with pytest.raises(UserError, match="not a post-processing file of this version"):
        postprocess.read(path, document(1))
    unknown = Forest(("of_class", *FEATURES), [["wings", 0.5, 0.1, 0.2]])
    postprocess.write(path, replace(PLAIN, selector=Selector(0.0, Thresholds(0.0), unknown)), {})
    with pytest.raises(UserError, match="not a post-processing file of this version"):
        postprocess.read(path, document(1))
    forest = Forest(("score",), [0.5])
    postprocess.write(path, replace(PLAIN, selector=Selector(0.0, Thresholds(0.0), forest)), {})
    with pytest.raises(UserError, match="not a post-processing file of this version"):
        postprocess.read(path, document(1))


def test_a_file_with_any_value_in_any_place_works_or_is_refused(tmp_path):
    path = tmp_path / "postprocessing.json"
    own = Thresholds(0.3, {"1": 0.5})
    selector = Selector(0.25, own, FOREST, true_per_image=6.5)
    postprocess.write(path, replace(PLAIN, selector=selector, score_thresholds=own, attribute_pairs={"1": [5]}), {})
    saved, refused = files.read_json(path), 0
    candidates = make_candidates([prediction(rectangle(0, 0, 20, 20), 0.9)], 100, 100, PARAMS)
    for keys in places(saved):
        for odd in ODD:
            path.write_text(json.dumps(changed(saved, keys, odd)))
            try:
                post = postprocess.read(path, document(1))
            except UserError:
                refused += 1
            else:
                post.select(candidates, post.gains(candidates))
                post.attribute_sets(candidates.predictions)
    assert refused > 300


def test_the_selector_sees_the_attributes_that_are_submitted():
    forest = Forest(("of_class", *FEATURES), [["attributes", 1.5, 0.2, 0.7]])
    row = {**prediction(rectangle(0, 0, 20, 20), 0.9), "attribute_ids": [5, 9], "attribute_scores": [0.9, 0.1]}
    post = replace(PLAIN, selector=Selector(0.0, Thresholds(0.0), forest))
    assert post.gains(make_candidates([row], 100, 100, PARAMS)).tolist() == [0.2]
