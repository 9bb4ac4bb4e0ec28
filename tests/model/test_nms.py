"""Against torchvision's nms and batched_nms, and against greedy suppression in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fashionseg.model.nms import nms

COUNT = 24  # boxes of a random case; of one shape, since each is compiled anew


@pytest.fixture(scope="module")
def case(golden):
    return golden("nms")


def kept_in_torchvisions_order(compiled, boxes, scores, threshold, groups=None):
    """Indices of the kept boxes, best first."""
    order = np.argsort(-scores, kind="stable")
    inputs = [boxes[order], scores[order]] + ([groups[order]] if groups is not None else [])
    kept = compiled(lambda b, s, *g: nms(b, s, threshold, *g))(*inputs)
    return order[kept]


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_crowded_boxes(case, compiled, threshold):
    found = kept_in_torchvisions_order(compiled, case["boxes"], case["scores"], threshold)
    assert found.tolist() == case[f"kept_{threshold}"].tolist()


def test_groups_do_not_suppress_each_other(case, compiled):
    found = kept_in_torchvisions_order(compiled, case["boxes"], case["scores"], 0.5, case["groups"])
    assert found.tolist() == case["kept_groups"].tolist()


def test_a_chain_through_all_boxes(case, compiled):
    """Each overlaps its neighbours alone: the first kept frees the third, that one the fifth, forty times over."""
    found = kept_in_torchvisions_order(compiled, case["chain"], case["chain_scores"], 0.5)
    assert found.tolist() == case["kept_chain"].tolist()


def test_an_iou_equal_to_the_threshold_is_kept(case, compiled):
    scores = np.float32([0.9, 0.8, 0.7])
    found = kept_in_torchvisions_order(compiled, case["exact"], scores, 0.5)
    assert found.tolist() == case["kept_exact"].tolist()
    found = kept_in_torchvisions_order(compiled, case["exact"][[0, 2]], scores[[0, 2]], 0.5)
    assert found.tolist() == case["kept_exact_above"].tolist()


def greedy(boxes, scores, threshold, groups):
    overlaps = coco_mask.iou(
        *[np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)] * 2, [0] * COUNT
    )
    kept = []
    for index in range(COUNT):
        if scores[index] > 0 and all(groups[k] != groups[index] or overlaps[k, index] <= threshold for k in kept):
            kept.append(index)
    return np.isin(np.arange(COUNT), kept)


@pytest.fixture(scope="module")
def of_two_images(compiled):
    return compiled(lambda boxes, scores, groups: nms(boxes, scores, 0.4142, groups))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    crowd=st.floats(1, 60),
    groups=st.integers(1, 4),
    padding=st.tuples(st.integers(0, COUNT), st.integers(0, COUNT)),
)
def test_greedy_suppression_of_random_boxes(of_two_images, seed, crowd, groups, padding):
    """Whole pixels, so that boxes coincide and scores tie; a threshold that no ratio of theirs comes near."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, int(crowd) + 1, (2, COUNT, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, (2, COUNT, 2))], axis=2).astype(np.float32)
    scores = -np.sort(-random.integers(1, 9, (2, COUNT)), axis=1) / np.float32(8)
    for image, count in enumerate(padding):
        scores[image, COUNT - count :] = 0
    labels = random.integers(0, groups, (2, COUNT)).astype(np.int32)
    found = of_two_images(boxes, scores, labels)
    for image in range(2):
        expected = greedy(boxes[image], scores[image], 0.4142, labels[image])
        np.testing.assert_array_equal(found[image], expected)


def test_padding_is_neither_kept_nor_suppresses(compiled):
    boxes = np.tile(np.float32([[0, 0, 10, 10]]), (3, 1))
    kept = compiled(lambda boxes, scores: nms(boxes, scores, 0.5))
    assert kept(boxes, np.float32([0.5, 0.4, 0])).tolist() == [True, False, False]
    assert kept(boxes, np.float32([0, 0, 0])).tolist() == [False, False, False]
    # Dropped boxes may lie anywhere in the order, before the good ones too.
    assert kept(boxes, np.float32([0, 0.9, 0.8])).tolist() == [False, True, False]
