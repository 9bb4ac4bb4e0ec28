"""Candidates: masks on the grid, features."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fashionseg.submit.candidates import FEATURES, features, grid_size, make_candidates, remove_overlaps
from submission_scenes import PARAMS, prediction, rectangle


def candidates(*predictions, params=PARAMS):
    return make_candidates(list(predictions), 100, 100, params)


def test_the_grid_rounds_the_short_side_down():
    grid = replace(PARAMS, longest_side=1024)
    assert grid_size(5214, 3676, grid) == (1024, 721)
    assert grid_size(3676, 5214, grid) == (721, 1024)
    assert grid_size(100, 100, grid) == (1024, 1024)
    assert grid_size(4000, 1, grid) == (1024, 1)
    assert grid_size(300, 400, replace(PARAMS, longest_side=512, square=True)) == (512, 512)
    assert grid_size(300, 401, replace(PARAMS, longest_side=None)) == (300, 401)


def test_a_shared_pixel_goes_to_the_better_candidate():
    first, second, other = rectangle(10, 10, 40, 40), rectangle(30, 10, 40, 40), rectangle(30, 30, 20, 20)
    all_three = candidates(prediction(first, 0.9), prediction(second, 0.8), prediction(other, 0.7, category_id=2))
    kept, masks = remove_overlaps(all_three, [0, 1, 2], PARAMS)
    assert kept == [0, 1, 2]
    for i, expected in enumerate([first, second & ~first, other]):
        np.testing.assert_array_equal(masks.decode(i), expected)
    kept, masks = remove_overlaps(all_three, [1, 0], PARAMS)  # the order says which is better
    np.testing.assert_array_equal(masks.decode(1), first & ~second)
    kept, _ = remove_overlaps(all_three, [0, 1, 2], replace(PARAMS, overlap="any"))
    assert kept == [0, 1]  # nothing is left of the third


def test_masks_are_resized_as_pillow_does():
    bitmap = np.random.default_rng(0).random((57, 91)) < 0.3
    masks = make_candidates([prediction(bitmap, 0.9)], 57, 91, replace(PARAMS, longest_side=64)).masks
    expected = np.array(Image.fromarray(bitmap.astype(np.uint8)).resize((64, 40), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(masks.decode(0), expected)


def test_overlaps_are_those_of_pycocotools():
    random = np.random.default_rng(1)
    boxes = [rectangle(*random.integers(0, 50, 2), *random.integers(5, 50, 2)) for _ in range(12)]
    found = candidates(*[prediction(box & (random.random(box.shape) < 0.8), 0.9) for box in boxes])
    masks = found.masks.to_coco()
    for overlaps, is_crowd in ((found.iou, 0), (found.covered, 1)):
        expected = coco_mask.iou(masks, masks, [is_crowd] * len(masks)).astype(np.float32)
        np.testing.assert_array_equal(overlaps, expected)


def test_small_masks_and_empty_images():
    assert candidates().predictions == []
    assert features(candidates(), []).shape == (0, len(FEATURES))
    assert candidates(prediction(rectangle(0, 0, 1, 3), 0.9)).predictions == []
    assert remove_overlaps(candidates(), [], PARAMS)[0] == []


def test_features_are_as_described():
    big, inside, other = rectangle(10, 10, 40, 40), rectangle(10, 10, 40, 20), rectangle(12, 12, 10, 10)
    rows = [prediction(big, 0.9), prediction(inside, 0.6), prediction(other, 0.5, category_id=2)]
    rows[0] |= {"bbox": [10, 10, 40, 50], "attribute_ids": [5, 9], "attribute_scores": [0.8, 0.4], "margin": 0.7}
    rows[1] |= {"mask_score": 0.75, "agreement": 0.5}
    table = features(candidates(*rows), [frozenset({5}), frozenset(), frozenset()])
    by_name = dict(zip(FEATURES, table.T, strict=True))
    assert by_name["score"].tolist() == [0.9, 0.6, 0.5]
    assert by_name["margin"].tolist() == [0.7, 0.6, 0.5]
    assert by_name["agreement"].tolist() == [1, 0.5, 1]
    assert by_name["mask_score"].tolist() == [0.5, 0.75, 0.5]
    assert by_name["area"] == pytest.approx(np.log([0.16, 0.08, 0.01]), abs=1e-4)
    assert by_name["fill"].tolist() == [0.8, 1, 1]
    assert by_name["box_fit"].tolist() == [0.8, 1, 1]
    assert by_name["rank"].tolist() == [0, 1, 2]
    assert by_name["behind"] == pytest.approx([0, 0.3, 0.4])
    assert by_name["same"].tolist() == [
        0,
        0.9,
        0,
    ]  # the first covers more than half of the second; exactly half is not enough
    assert by_name["other"].tolist() == [0, 0, 0.9]
    assert by_name["attributes"].tolist() == [1, 0, 0]
    assert by_name["attribute_f1"] == pytest.approx([1.6 / 2.2, 1, 1], abs=1e-4)


@pytest.mark.parametrize(("square", "box"), [(False, [20, 10, 30, 20]), (True, [20, 20, 30, 40])])
def test_a_wide_picture_on_a_smaller_grid(square, box):
    """200 x 400 pixels on 50 x 100 or 100 x 100; from either kind of mask."""
    wide = np.zeros((200, 400), bool)
    wide[40:120, 80:200] = True
    for threshold in (None, 0.5):
        found = make_candidates([prediction(wide, 0.9)], 200, 400, replace(PARAMS, square=square), threshold)
        assert found.masks.boxes().tolist() == [box]
        by_name = dict(zip(FEATURES, features(found, [frozenset()])[0], strict=True))
        assert (by_name["fill"], by_name["box_fit"], by_name["area"]) == (1, 1, round(np.log(0.12), 4))


def test_a_mask_of_the_least_area_is_kept():
    """Also one that has it left; what is dropped for its area takes no pixels."""
    assert len(candidates(prediction(rectangle(0, 0, 2, 2), 0.9)).areas) == 1
    first, second, third = rectangle(0, 0, 20, 20), rectangle(0, 0, 20, 21), rectangle(0, 20, 20, 5)
    left = candidates(*(prediction(mask, 0.9) for mask in (first, second, third)))
    assert remove_overlaps(left, [0, 1, 2], replace(PARAMS, min_area=20))[0] == [0, 1, 2]
    kept, masks = remove_overlaps(left, [0, 1, 2], replace(PARAMS, min_area=21))
    assert kept == [0, 2]
    assert masks.areas().tolist() == [400, 100]
