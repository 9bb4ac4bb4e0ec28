"""Predictions that do not fit the document are an error in one sentence."""

import pytest

from fashionseg.coco import average_precision
from fashionseg.coco.results import COCO_KEYS, KEYS, check_predictions
from fashionseg.core.errors import UserError
from fashionseg.submit import submission
from fashionseg.submit.tune.matched_images import match_images
from submission_scenes import PARAMS, document, prediction, rectangle

GOOD = prediction(rectangle(0, 0, 9, 9), 0.9)


def without(key):
    return [GOOD, {name: value for name, value in GOOD.items() if name != key}]


def test_valid_predictions_pass():
    check_predictions([GOOD], document(1), KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key):
    expected = rf"^prediction 1 \(from 0\) has no {key}: .*run `dvc repro predict`\.$"
    with pytest.raises(UserError, match=expected):
        match_images(document(1), without(key), PARAMS)
    with pytest.raises(UserError, match=expected):
        submission.table(document(1), without(key), None, ["1"], PARAMS)
    if key in COCO_KEYS:
        with pytest.raises(UserError, match=expected):
            average_precision.evaluate(document(1), without(key))


@pytest.mark.parametrize("score", ["0.5", float("nan"), None])
def test_a_score_that_is_not_a_number_is_named(score):
    with pytest.raises(UserError, match=r"prediction 0 \(from 0\) has the score .*, which is not a number"):
        check_predictions([{**GOOD, "score": score}], document(1), KEYS)


def test_an_invalid_mask_or_one_of_another_size_is_named():
    small = {**GOOD, "segmentation": {**GOOD["segmentation"], "size": [50, 100]}}
    with pytest.raises(UserError, match=r"has a mask of 50 x 100 pixels on an image of 100 x 100"):
        match_images(document(1), [small], PARAMS)
    broken = {**GOOD, "segmentation": {**GOOD["segmentation"], "counts": "0"}}
    with pytest.raises(UserError, match=r"a prediction of image 1 has an invalid mask: .* run `dvc repro predict`"):
        match_images(document(1), [broken], PARAMS)


def test_coco_scores_need_no_more_than_coco_keys():
    average_precision.evaluate(document(1), [{key: GOOD[key] for key in COCO_KEYS}])


@pytest.mark.parametrize(
    ("name", "value"), [("image_id", 5), ("category_id", 7), ("attribute_ids", [5, 6])], ids=lambda value: str(value)
)
def test_an_id_that_the_document_lacks_is_named(name, value):
    number = value if isinstance(value, int) else 6
    with pytest.raises(UserError, match=rf"prediction 1 \(from 0\) has {name} {number}, which"):
        check_predictions([GOOD, {**GOOD, name: value}], document(2), KEYS)
