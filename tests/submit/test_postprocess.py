"""Which candidates become claims, and the file that says so."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from claims_scenes import PARAMS, document, prediction, rectangle

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.submit import postprocess
from fashionseg.submit.candidates import FEATURES, candidates
from fashionseg.submit.forest import Forest
from fashionseg.submit.postprocess import NEVER, Rule, Selector, Thresholds

PLAIN = Rule(None, 1.0, 1.0, 4, Thresholds(0.5), Thresholds(0.5), None, [1, 2, 3])
FOREST = Forest(("of_class", *FEATURES), [["score", 0.55, 0.9, ["of_class", 0.3, 0.1, 0.5]], 0.2])


def chosen(changes, *predictions):
    mine = replace(PLAIN, **changes)
    found = candidates(list(predictions), 100, 100, PARAMS)
    return mine.chosen(found, mine.worth(found))


def test_thresholds_by_class_and_the_best_of_an_image():
    rows = [
        prediction(rectangle(0, 0, 20, 20), 0.9),
        prediction(rectangle(30, 0, 20, 20), 0.6, category_id=2),
        prediction(rectangle(60, 0, 20, 20), 0.4, category_id=3),
    ]
    assert chosen({}, *rows) == [0, 1]
    assert chosen({"scores": Thresholds(0.3, {"1": 0.7})}, *rows) == [1, 0, 2]  # by what they exceed theirs
    assert chosen({"scores": Thresholds(0.3, {"1": NEVER})}, *rows) == [1, 2]
    assert chosen({"claims_per_image": 1, "scores": Thresholds(0.3, {"1": 0.7})}, *rows) == [1]
    assert chosen({"scores": Thresholds(0.95)}, *rows) == [0]  # an image without a claim scores nothing
    assert chosen({"min_area": 500}, *rows) == []


def test_suppression():
    rows = [
        prediction(rectangle(0, 0, 40, 40), 0.9),
        prediction(rectangle(0, 0, 40, 30), 0.8),  # IoU 0.75, wholly inside
        prediction(rectangle(0, 0, 10, 10), 0.7),  # IoU 0.06, wholly inside
        prediction(rectangle(0, 0, 10, 10), 0.7, category_id=2),
    ]
    assert chosen({}, *rows) == [0, 1, 2, 3]
    assert chosen({"nms_iou": 0.7}, *rows) == [0, 2, 3]
    assert chosen({"mask_overlap": 0.9}, *rows) == [0, 3]
    assert chosen({"nms_iou": 0.7, "scores": Thresholds(0.85)}, *rows) == [0]


@pytest.mark.parametrize("instances", [0.4, 3.0, 8.0])
def test_an_images_claims_are_the_set_of_the_highest_expected_jaccard(instances):
    """Against all subsets of what suppression leaves: expected hits over claims, hits not counted twice, and misses."""
    random = np.random.default_rng(3)
    mine = replace(PLAIN, nms_iou=0.5, selector=Selector(0.0, Thresholds(0.0), FOREST, instances))
    rows = [prediction(rectangle(10 * i, 0, 9, 9), 0.5) for i in range(7)]
    rows.insert(1, rows[0])  # a double
    found = candidates(rows, 100, 100, PARAMS)
    for _ in range(20):
        worth = random.random(8)
        kept = mine.chosen(found, worth)
        best = max(worth[:2])
        values = [best, *worth[2:]]
        sets = itertools.chain.from_iterable(itertools.combinations(values, count) for count in range(1, 8))
        expected = max(sum(s) / (len(s) + max(instances - sum(s), 0)) for s in sets)
        total = worth[kept].sum()
        assert total / (len(kept) + max(instances - total, 0)) == pytest.approx(expected)
        assert not {0, 1} <= set(kept)


def test_attributes_have_thresholds_by_category():
    mine = replace(PLAIN, attributes=Thresholds(0.5, {"2/5": 0.3}))
    rows = [{"category_id": c, "attribute_ids": [5, 9], "attribute_scores": [0.4, 0.5]} for c in (1, 2)]
    assert mine.attribute_sets(rows) == [{9}, {5, 9}]


def test_the_forest_walks_its_trees():
    columns = np.zeros((3, 1 + len(FEATURES)))
    columns[:, 0], columns[:, 1] = [0.1, 0.3, 0.4], [0.5, 0.6, 0.6]
    assert FOREST.predict(columns) == pytest.approx([0.55, 0.15, 0.35])
    assert FOREST.predict(columns[:0]).shape == (0,)
    with pytest.raises(ValueError, match="nan"):
        FOREST.predict(columns * np.nan)


def test_the_file_brings_the_rule_back(tmp_path):
    path = tmp_path / "claims.json"
    of_class = Thresholds(0.3, {"1": 0.5})
    for selector in (None, Selector(0.25, of_class, FOREST), Selector(0.0, of_class, FOREST, instances=6.5)):
        attributes = Thresholds(0.4, {"1/5": 0.2})
        mine = replace(PLAIN, selector=selector, attributes=attributes, claims_per_image=1, mask_threshold=0.45)
        postprocess.write(path, mine, {"way": "noted"})
        assert postprocess.read(path, document(1)) == mine
    assert files.read_json(path)["way"] == "noted"


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "claims.json"
    files.write_json(path, {"threshold": 1})
    with pytest.raises(UserError, match=r"claims\.json holds no claims rule of this version"):
        postprocess.read(path, document(1))
    postprocess.write(path, replace(PLAIN, categories=[1, 2]), {})
    with pytest.raises(UserError, match="made for other classes"):
        postprocess.read(path, document(1))
    postprocess.write(path, replace(PLAIN, attributes=Thresholds(0.5, {"1/77": 0.4})), {})
    with pytest.raises(UserError, match="made for other attributes"):
        postprocess.read(path, document(1))
    unknown = Forest(("of_class", *FEATURES), [["wings", 0.5, 0.1, 0.2]])
    postprocess.write(path, replace(PLAIN, selector=Selector(0.0, Thresholds(0.0), unknown)), {})
    with pytest.raises(UserError, match="no claims rule of this version"):
        postprocess.read(path, document(1))
    forest = Forest(("score",), [0.5])
    postprocess.write(path, replace(PLAIN, selector=Selector(0.0, Thresholds(0.0), forest)), {})
    with pytest.raises(UserError, match="no claims rule of this version"):
        postprocess.read(path, document(1))
