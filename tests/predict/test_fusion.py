"""Weighted box fusion compared with the package ensemble-boxes; soft masks compared with their definition."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

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


def test_a_mask_stays_where_it_is_in_the_image():
    """A ramp over a box, fused with nothing at another one: resampled exactly, by weight, empty beyond its box."""
    boxes = np.array([[0.2, 0.3, 0.7, 0.6], [0.15, 0.35, 0.75, 0.55]])
    cells = (np.arange(SIDE) + 0.5) / SIDE
    ramp = (cells + 2 * cells[:, None]).astype(np.float32)
    pairs = zip(boxes, (0.6, 0.2), (0 * ramp, ramp), strict=True)
    fused = fuse([view(box[None], [score], [1], masks=mask[None]) for box, score, mask in pairs])
    (box,) = fused["boxes"]
    x, y = ((box[k] + cells * (box[k + 2] - box[k]) - boxes[1, k]) / (boxes[1, k + 2] - boxes[1, k]) for k in (0, 1))
    inner, beyond = np.abs(y - 0.5) < 0.46, np.abs(y - 0.5) > 0.54
    np.testing.assert_allclose(fused["masks"][0][inner], ((x + 2 * y[:, None]) / 4)[inner], atol=2e-3)
    assert beyond.sum() > 2
    assert not fused["masks"][0][beyond].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_crowded_boxes_are_fused_as_the_paper_says(seed):
    """In plain Python: by falling score into the best cluster of the class, whose box is the mean so far."""
    random = np.random.default_rng(seed)
    views, clusters = [], []
    for _ in range(2):
        corners = random.uniform(0, 0.3, (20, 2))
        boxes = np.concatenate([corners, corners + random.uniform(0.4, 0.6, (20, 2))], axis=1)
        views.append(view(boxes, random.uniform(0.1, 1, 20), random.integers(1, 3, 20)))
    rows = zip(*(np.concatenate([one[name] for one in views]) for name in ("scores", "classes", "boxes")), strict=True)
    for score, label, box in sorted(rows, key=lambda row: -row[0]):
        means = [np.average(boxes, axis=0, weights=scores) for scores, boxes, _ in clusters]
        xywh = np.array([np.concatenate([one[:2], one[2:] - one[:2]]) for one in (*means, box)])
        ious = coco_mask.iou(xywh, xywh[-1:], [0])[:-1, 0] * [of == label for *_, of in clusters]
        if len(ious) and ious.max() > 0.55:
            scores, boxes, _ = clusters[ious.argmax()]
            scores.append(score)
            boxes.append(box)
        else:
            clusters.append(([score], [box], label))
    found = [(np.mean(s) * min(len(s), 2) / 2, of, *np.average(b, axis=0, weights=s)) for s, b, of in clusters]
    fused = fuse(views)
    assert max(len(scores) for scores, *_ in clusters) > 2
    table = np.column_stack([fused["scores"], fused["classes"], fused["boxes"]])
    np.testing.assert_allclose(table, sorted(found, key=lambda row: -row[0]))
