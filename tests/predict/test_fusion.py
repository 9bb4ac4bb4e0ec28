"""Weighted box fusion compared with the package ensemble-boxes; soft masks compared with their definition."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg.predict.fusion import fuse

GOLDEN = Path(__file__).parents[1] / "golden" / "fusion.json"
SIDE = 28


def view(boxes, scores, classes, **more):
    count = len(boxes)
    return {
        "boxes": np.array(boxes, float).reshape(count, 4),
        "scores": np.array(scores, float),
        "classes": np.array(classes, int),
        "masks": np.ones((count, SIDE, SIDE), np.float32),
        "margins": np.full(count, 0.5),
        **more,
    }


def test_boxes_scores_and_classes_equal_ensemble_boxes():
    golden = json.loads(GOLDEN.read_text())
    fused = fuse([view(**one) for one in golden["views"]])
    expected = golden["fused"]
    assert len(expected["scores"]) < sum(len(one["scores"]) for one in golden["views"])
    assert fused["classes"].tolist() == expected["classes"]
    np.testing.assert_allclose(fused["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_allclose(fused["boxes"], expected["boxes"], atol=1e-6)


def test_one_view_is_returned_unchanged():
    only = view([[0, 0, 1, 1], [0, 0, 1, 0.9]], [0.4, 0.9], [1, 1])
    fused = fuse([only])
    for name, values in only.items():
        np.testing.assert_array_equal(fused[name], values)
    assert fused["agreement"].tolist() == [1, 1]


def test_a_detection_of_one_view_only_loses_score():
    attributes = {"attributes": np.array([[0.2, 0.9], [0.6, 0.1]])}
    both = view([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.8]], [0.8, 0.4], [2, 1], **attributes)
    fused = fuse([both, both])
    for name in both:
        np.testing.assert_allclose(fused[name], both[name], atol=1e-6)
    lonely = view([[0.1, 0.1, 0.5, 0.5]], [0.8], [2], attributes=np.array([[0.2, 0.9]]))
    fused = fuse([lonely, both])
    np.testing.assert_allclose(fused["scores"], [0.8, 0.2])
    np.testing.assert_allclose(fused["agreement"], [1, 0.5])


def test_agreement_counts_each_view_once():
    near = [[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.49]]
    twice, elsewhere = view(near, [0.8, 0.6], [1, 1]), view([[0.6, 0.6, 0.9, 0.9]], [0.5], [1])
    fused = fuse([twice, elsewhere])
    assert fused["agreement"].tolist() == [0.5, 0.5]
    assert fused["scores"].tolist() == pytest.approx([0.7, 0.25])  # the paper's counts boxes


def test_classes_are_not_fused_and_empty_views():
    box = [[0.1, 0.1, 0.5, 0.5]]
    assert fuse([view(box, [0.8], [2]), view(box, [0.7], [1])])["classes"].tolist() == [2, 1]
    nothing = fuse([view([], [], []), view([], [], [])])
    assert all(len(values) == 0 for values in nothing.values())


def test_attributes_are_means_weighted_by_score():
    box = [[0.1, 0.1, 0.5, 0.5]]
    views = [view(box, [score], [1], attributes=np.array([[p]])) for score, p in ((0.6, 0.9), (0.2, 0.1))]
    assert fuse(views)["attributes"][0, 0] == pytest.approx((0.6 * 0.9 + 0.2 * 0.1) / 0.8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02))
def test_masks_are_averaged_in_the_image(seed, right, down):
    """In the image, the fused mask is the mean of the masks, apart from the blur of resampling."""
    random = np.random.default_rng(seed)
    masks = [cv2.GaussianBlur(random.random((SIDE, SIDE)).astype(np.float32), (0, 0), 4) for _ in range(2)]
    first = np.array([0.2, 0.3, 0.7, 0.8])
    boxes = [first, first + np.array([right, down, right, down])]
    views = [view(box[None], [0.5], [1], masks=mask[None]) for mask, box in zip(masks, boxes, strict=True)]
    fused = fuse(views)

    def at(mask, box, x, y):
        """Bilinear value at a point of the picture."""
        u, v = ((np.array([x, y]) - box[:2]) / (box[2:] - box[:2]) * SIDE - 0.5).tolist()
        return cv2.getRectSubPix(np.pad(mask, 40), (1, 1), (u + 40, v + 40))[0, 0]

    for x, y in random.uniform((0.3, 0.4), (0.6, 0.7), (10, 2)):
        expected = np.mean([at(mask, box, x, y) for mask, box in zip(masks, boxes, strict=True)])
        assert at(fused["masks"][0], fused["boxes"][0], x, y) == pytest.approx(expected, abs=0.02)
