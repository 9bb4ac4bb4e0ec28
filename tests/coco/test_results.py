"""Predictions that do not fit the document are an error in one sentence, which names their file."""

import json

import pytest

from fashionseg.coco.results import COCO_KEYS, KEYS, read
from fashionseg.core.errors import UserError
from submission_scenes import document, prediction, rectangle

GOOD = prediction(rectangle(0, 0, 9, 9), 0.9)


@pytest.fixture
def written(tmp_path):
    def written(*predictions):
        path = tmp_path / "predictions.json"
        path.write_text(json.dumps(predictions))
        return path

    return written


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


def test_valid_predictions_pass(written):
    assert read(written(GOOD), document(1)) == [GOOD]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(written, key):
    path = written(GOOD, without(key))
    with pytest.raises(UserError, match=rf"predictions\.json: .*\b{key}\b.*run `dvc repro"):
        read(path, document(1))
    if key not in COCO_KEYS:
        assert read(path, document(1), COCO_KEYS) == [GOOD, without(key)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_id": 5}, "has image_id 5, which the COCO document lacks"),
        ({"category_id": 7}, "has category_id 7, which"),
        ({"attribute_ids": [5, 6], "attribute_scores": [0.5, 0.5]}, "has attribute_ids 6, which"),
        ({"attribute_ids": [5]}, "has 1 attribute_ids and 0 attribute_scores"),
        (
            {"segmentation": {**GOOD["segmentation"], "size": [50, 100]}},
            "has a mask of 50 x 100 pixels on an image of 100 x 100",
        ),
        ({"segmentation": {**GOOD["segmentation"], "counts": "0"}}, "has no mask: the counts should sum to"),
        ({"bbox": [0, 0, 9000, 9]}, r"has the bbox \[0, 0, 9000, 9\] on an image of 100 x 100"),
        ({"bbox": [0, 0, -9, 9]}, "has the bbox"),
        ({"bbox": [-9, 0, 9, 9]}, "has the bbox"),
        ({"bbox": [0, 99, 9, 9]}, "has the bbox"),
        ({"mask": ""}, "has no soft mask"),
        ({"mask": "x"}, "has no soft mask"),
        ({"mask": GOOD["mask"][:-40]}, "has no soft mask"),
    ],
)
def test_what_does_not_fit_is_named(written, change, sentence):
    with pytest.raises(UserError, match=rf"predictions\.json: prediction 1 \(from 0\) {sentence}.*; run `dvc repro"):
        read(written(GOOD, {**GOOD, **change}), document(2))


def test_attributes_have_their_scores_for_those_too_who_ask_for_less(written):
    with pytest.raises(UserError, match="has 0 attribute_ids and 1 attribute_scores; run"):
        read(written({**GOOD, "attribute_scores": [0.5]}), document(1), COCO_KEYS)
