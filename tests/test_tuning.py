"""Claims, and the rule chosen for them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fashionseg import io, rle, tuning
from fashionseg.claims import Rule, by_image, grid, on_grid, read_rule
from fashionseg.errors import UserError
from fashionseg.params import Submission

PARAMS = Submission(longest_side=100, min_area=4, overlap="same_class")


def prediction(bitmap, score, category_id=1, image_id=1):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "score": score,
        "segmentation": rle.encode(bitmap).to_coco()[0],
        "attribute_ids": [],
    }


def rectangle(x, y, w, h, side=100):
    bitmap = np.zeros((side, side), bool)
    bitmap[y : y + h, x : x + w] = True
    return bitmap


def test_the_grid_rounds_the_short_side_down():
    assert grid(5214, 3676, 1024) == (1024, 721)
    assert grid(3676, 5214, 1024) == (721, 1024)
    assert grid(100, 100, 1024) == (1024, 1024)
    assert grid(4000, 1, 1024) == (1024, 1)


def test_a_shared_pixel_goes_to_the_better_claim():
    first, second, other = rectangle(10, 10, 40, 40), rectangle(30, 10, 40, 40), rectangle(30, 30, 20, 20)
    rows = [prediction(first, 0.9), prediction(second, 0.8), prediction(other, 0.7, category_id=2)]
    kept, masks = on_grid(rows, PARAMS)
    assert kept == rows
    for i, expected in enumerate([first, second & ~first, other]):
        np.testing.assert_array_equal(masks.decode(i), expected)
    kept, masks = on_grid(rows, replace(PARAMS, overlap="any"))
    assert kept == rows[:2]  # nothing is left of the third


def test_masks_are_resized_as_pillow_does():
    bitmap = np.random.default_rng(0).random((57, 91)) < 0.3
    _, masks = on_grid([prediction(bitmap, 0.9)], replace(PARAMS, longest_side=64))
    expected = np.array(Image.fromarray(bitmap.astype(np.uint8)).resize((64, 40), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(masks.decode(0), expected)


def test_small_claims_and_empty_images():
    assert on_grid([], PARAMS)[0] == []
    assert on_grid([prediction(rectangle(0, 0, 1, 3), 0.9)], PARAMS)[0] == []
    with pytest.raises(UserError, match="a prediction is of image 5"):
        by_image([prediction(rectangle(0, 0, 9, 9), 0.9, image_id=5)], [1, 2])


def document(*truth):
    rows = [{"id": i, **row, "bbox": [0, 0, 1, 1], "area": 1} for i, row in enumerate(truth, 1)]
    images = [{"id": i, "file_name": f"train/{i}.jpg", "height": 100, "width": 100} for i in (1, 2)]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "vest"}], "attributes": []}


def test_precision_claims_one_an_image_and_jaccard_all_that_are_true():
    """Each image: a sure perfect mask, and one of half the overlap that hits only the lowest thresholds."""
    good, fair, fair_claim = rectangle(0, 0, 30, 30), rectangle(50, 50, 40, 40), rectangle(50, 50, 40, 28)
    truth = [prediction(mask, 1.0, image_id=i) for i in (1, 2) for mask in (good, fair)]
    claims = [prediction(mask, score, image_id=i) for i in (1, 2) for mask, score in ((good, 0.62), (fair_claim, 0.53))]
    precision, table = tuning.tune(document(*truth), claims, "precision", PARAMS)
    assert (precision["value"], precision["claims_per_image"]) == (1.0, 1)
    assert precision["score"] == 0.05  # of equal rules the one that leaves no image without a claim
    assert precision["value_of_all"] == pytest.approx((1 + 0.4) / 2)
    assert len(table) == len(tuning.RULES)
    jaccard, _ = tuning.tune(document(*truth), claims, "jaccard", PARAMS)
    assert jaccard["claims_per_image"] is None
    assert jaccard["score"] == 0.05
    assert jaccard["value"] == pytest.approx(0.4 + 0.6 / 3)  # two of two found, or one of the two


def test_nothing_predicted_is_still_a_rule():
    rule, _ = tuning.tune(document(prediction(rectangle(0, 0, 9, 9), 1.0)), [], "precision", PARAMS)
    assert (rule["value"], rule["score"], rule["claims_per_image"]) == (0, 0.05, 1)


def test_rules():
    scores = np.array([0.9, 0.5, 0.4])
    assert Rule(0.45, None).chosen(scores).tolist() == [True, True, False]
    assert Rule(0.45, 1).chosen(scores).tolist() == [True, False, False]
    assert Rule(0.95, 1).chosen(scores).tolist() == [False] * 3


def test_a_file_without_a_rule_is_named(tmp_path):
    io.write_json(tmp_path / "claims.json", {"threshold": 1})
    with pytest.raises(UserError, match=r"claims\.json holds no claims rule"):
        read_rule(tmp_path / "claims.json")
