"""Against torchvision's BoxCoder and box functions, and the laws that they obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from pycocotools import mask as coco_mask

from fashionseg.model import boxes

WEIGHTS = {"rpn": boxes.RPN_WEIGHTS, "head": boxes.HEAD_WEIGHTS}


@pytest.fixture(scope="module")
def case(golden):
    return golden("boxes")


@pytest.mark.parametrize("kind", WEIGHTS)
def test_encode_is_torchvisions(case, kind):
    found = boxes.encode(case["truth"][:30], case["proposals"], WEIGHTS[kind])
    np.testing.assert_allclose(found, case[f"encoded_{kind}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_decode_is_torchvisions(case, kind):
    """Among them deltas beyond the clamp."""
    found = boxes.decode(case["deltas"], case["proposals"], WEIGHTS[kind])
    np.testing.assert_allclose(found, case[f"decoded_{kind}"], rtol=1e-5, atol=1e-4)


def test_clip_is_torchvisions_for_each_image(case):
    wild = np.stack([case["wild"]] * 2)
    found = ops.convert_to_numpy(boxes.clip(wild, np.array([[96, 128], [48, 97]], np.int32)))
    np.testing.assert_array_equal(found, [case["clipped"], case["clipped_small"]])
    by_class = boxes.clip(wild.reshape(2, 5, 4, 4), np.array([[96, 128], [48, 97]], np.int32))
    np.testing.assert_array_equal(ops.convert_to_numpy(by_class).reshape(found.shape), found)


def test_areas_and_iou_are_torchvisions(case):
    np.testing.assert_allclose(boxes.areas(case["truth"]), case["areas"], rtol=1e-6)
    found = ops.convert_to_numpy(boxes.iou(np.stack([case["truth"]] * 2), case["proposals"]))
    assert found.shape == (2, 40, 30)
    for of_image in found:
        np.testing.assert_allclose(of_image, case["iou"], rtol=1e-5, atol=1e-7)


coordinates = st.integers(0, 400)
lengths = st.integers(1, 300)
some_boxes = st.lists(st.tuples(coordinates, coordinates, lengths, lengths), min_size=3, max_size=3)


def xyxy(rows):
    x, y, width, height = np.array(rows, np.float32).T
    return np.stack([x, y, x + width, y + height], axis=1)


@settings(max_examples=40, deadline=None)
@given(some_boxes, some_boxes)
def test_iou_is_pycocotools(first, second):
    expected = coco_mask.iou(np.array(first, float), np.array(second, float), [0] * 3)
    np.testing.assert_allclose(boxes.iou(xyxy(first), xyxy(second)), expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(some_boxes, some_boxes, st.sampled_from(list(WEIGHTS.values())))
def test_decode_undoes_encode(truth, proposals, weights):
    truth, proposals = xyxy(truth), xyxy(proposals)
    # A 1 px proposal can grow to 62.5 px and no further, so that truth must not be larger than that.
    truth[:, 2:] = np.minimum(truth[:, 2:], truth[:, :2] + 62 * (proposals[:, 2:] - proposals[:, :2]))
    again = boxes.decode(boxes.encode(truth, proposals, weights), proposals, weights)
    np.testing.assert_allclose(again, truth, rtol=1e-4, atol=1e-2)


def test_encode_by_hand():
    """A box twice as wide, moved by a quarter of the anchor's width to the right and its whole height down."""
    found = boxes.encode(np.float32([[5, 20, 45, 40]]), np.float32([[10, 0, 30, 20]]), (1, 1, 1, 1))
    np.testing.assert_allclose(found, [[0.25, 1, np.log(2), 0]], atol=1e-6)


def test_a_box_grows_to_62_times_its_anchor_at_most():
    found = boxes.decode(np.float32([[0, 0, 9, 9]]), np.float32([[0, 0, 16, 16]]), (1, 1, 1, 1))
    np.testing.assert_allclose(found, [[-492, -492, 508, 508]], rtol=1e-5)


def test_empty_boxes_give_finite_numbers():
    """Padding is full of them; a NaN there would reach the loss even where it is masked away."""
    none, some = np.zeros((1, 4), np.float32), np.array([[3, 4, 30, 20]], np.float32)
    for truth, proposal in [(none, none), (none, some), (some, none)]:
        for weights in WEIGHTS.values():
            assert np.isfinite(boxes.encode(truth, proposal, weights)).all()
            assert np.isfinite(boxes.decode(truth, proposal, weights)).all()
        assert ops.convert_to_numpy(boxes.iou(truth, proposal)) == 0
    inverted = np.array([[30, 20, 3, 4]], np.float32)
    assert ops.convert_to_numpy(boxes.areas(inverted)) == 0
    assert ops.convert_to_numpy(boxes.iou(inverted, some)) == 0
