"""From the network's padded square back to the photograph: pasting as runs equals pasting at full size."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg import inference, io
from fashionseg.data.labels import Labels
from fashionseg.errors import UserError
from fashionseg.model.mask_rcnn import MaskRCNN
from fashionseg.params import Predict

HEIGHT, WIDTH = 60, 90


def pasted_at_full_size(mask, box, height, width, threshold):
    """torchvision's expand_masks, expand_boxes and paste_mask_in_image, one float bitmap of the picture a mask."""
    scale = (len(mask) + 2) / len(mask)
    padded = np.pad(mask, 1)
    w_half, h_half = (box[2] - box[0]) * 0.5 * scale, (box[3] - box[1]) * 0.5 * scale
    x_c, y_c = (box[2] + box[0]) * 0.5, (box[3] + box[1]) * 0.5
    x1, y1, x2, y2 = (int(v) for v in (x_c - w_half, y_c - h_half, x_c + w_half, y_c + h_half))
    resized = cv2.resize(padded, (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)), interpolation=cv2.INTER_LINEAR)
    canvas = np.zeros((height, width), np.float32)
    for row in range(resized.shape[0]):
        for column in range(resized.shape[1]):
            if 0 <= y1 + row < height and 0 <= x1 + column < width:
                canvas[y1 + row, x1 + column] = resized[row, column]
    return canvas > threshold


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    corner=st.tuples(st.floats(-5, WIDTH), st.floats(-5, HEIGHT)),
    sides=st.tuples(st.floats(0, 70), st.floats(0, 70)),
    threshold=st.sampled_from([0.3, 0.5]),
)
def test_paste_is_that_at_full_size(seed, corner, sides, threshold):
    mask = cv2.GaussianBlur(np.random.default_rng(seed).random((28, 28), np.float32), (5, 5), 0)
    box = np.clip([*corner, corner[0] + sides[0], corner[1] + sides[1]], 0, [WIDTH, HEIGHT] * 2)
    found, mask_score = inference.paste(mask, box, HEIGHT, WIDTH, threshold)
    assert mask_score > threshold if found.areas()[0] else mask_score == 0
    np.testing.assert_array_equal(found.decode(0), pasted_at_full_size(mask, box, HEIGHT, WIDTH, threshold))


def test_instances_are_coco_results_at_the_original_size():
    found = {
        "boxes": np.array([[8, 4, 24, 20], [0, 0, 30, 18], [0, 0, 0, 0]], np.float32),
        "scores": np.array([0.9, 0.6, 0], np.float32),
        "classes": np.array([2, 1, 0], np.int32),
        "masks": np.stack([np.full((28, 28), 0.75), np.zeros((28, 28)), np.ones((28, 28))]).astype(np.float32),
        "margins": np.array([0.85, 0.3, 0], np.float32),
        "attributes": np.array([[0.04, 0.8, 0.05], [1, 1, 1], [1, 1, 1]], np.float32),
    }
    labels, settings = Labels([40, 41], [7, 9, 30]), Predict(1, 0.05, 0.5, 0.5, 0.05)
    record = {"id": 5, "height": 200, "width": 320}
    with ThreadPoolExecutor(1) as pool:
        results = inference.instances(record, np.array([20, 32]), found, labels, settings, pool)
    (result,) = results  # the second has no pixel above the threshold, the third is padding
    assert (result["image_id"], result["category_id"], result["score"]) == (5, 41, pytest.approx(0.9))
    assert result["bbox"] == [80, 40, 160, 160]
    assert result["segmentation"]["size"] == [200, 320]
    assert result["margin"] == pytest.approx(0.85)
    assert 0.7 < result["mask_score"] <= 0.75  # a little less at the edge
    assert (result["attribute_ids"], result["attribute_scores"]) == ([9, 30], [0.8, 0.05])
    del found["attributes"]
    with ThreadPoolExecutor(1) as pool:
        (result,) = inference.instances(record, np.array([20, 32]), found, labels, settings, pool)
    assert result["attribute_ids"] == result["attribute_scores"] == []


def test_missing_and_foreign_weights_are_one_sentence(tmp_path):
    recipe = {
        "backbone": "efficientnet_lite0", "weights": "random", "frozen_stages": 0, "side": 64, "classes": 2,
        "fpn_channels": 8, "anchor_side": 16, "proposals": 8, "detections": 4, "attributes": "none",
        "attribute_count": 0, "precision": "float32", "rois": 8, "seed": 0,
    }  # fmt: skip
    categories = [{"id": 40, "name": "vest"}, {"id": 41, "name": "cape"}]
    io.write_json(tmp_path / "mask_rcnn.json", {"network": recipe, "categories": categories})
    with pytest.raises(UserError, match=r"mask_rcnn\.weights\.h5 is missing; run `dvc repro train`"):
        inference.load(tmp_path)
    MaskRCNN(**{**recipe, "classes": 3}).save_weights(tmp_path / "mask_rcnn.weights.h5")
    with pytest.raises(UserError, match=r"does not fit mask_rcnn\.json beside it"):
        inference.load(tmp_path)
    MaskRCNN(**recipe).save_weights(tmp_path / "mask_rcnn.weights.h5")
    network, labels = inference.load(tmp_path)
    assert (network.side, labels) == (64, Labels([40, 41], []))
