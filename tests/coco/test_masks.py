"""Soft masks: pasting as runs equals pasting at full size; packing keeps them to half a step."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg.coco import masks

GOLDEN = Path(__file__).parents[1] / "golden" / "torchvision.npz"
HEIGHT, WIDTH = 60, 90


def smooth(seed):
    return cv2.GaussianBlur(np.random.default_rng(seed).random((28, 28), np.float32), (5, 5), 0)


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
def test_paste_equals_pasting_at_full_size(seed, corner, sides, threshold):
    mask = smooth(seed)
    x1, y1, x2, y2 = np.clip([*corner, corner[0] + sides[0], corner[1] + sides[1]], 0, [WIDTH, HEIGHT] * 2).tolist()
    bbox = [x1, y1, x2 - x1, y2 - y1]
    pasted_mask, mask_score = masks.paste(mask, bbox, HEIGHT, WIDTH, threshold)
    assert mask_score > threshold if pasted_mask.areas()[0] else mask_score == 0
    box = [x1, y1, x1 + bbox[2], y1 + bbox[3]]  # x1 + (x2 - x1) may not be x2
    np.testing.assert_array_equal(pasted_mask.decode(0), pasted_at_full_size(mask, box, HEIGHT, WIDTH, threshold))


def test_paste_equals_torchvision():
    with np.load(GOLDEN) as file:
        values, boxes, pasted, shape = (file[f"paste/{name}"] for name in ("masks", "boxes", "pasted", "shape"))
    expected = np.unpackbits(pasted, count=shape.prod()).reshape(shape)
    for mask, (x1, y1, x2, y2), there in zip(values, boxes.astype(float), expected, strict=True):
        pasted_mask, _ = masks.paste(mask, [x1, y1, x2 - x1, y2 - y1], *there.shape, 0.5)
        np.testing.assert_array_equal(pasted_mask.decode(0), there)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    corner=st.tuples(st.floats(-1, WIDTH), st.floats(-1, HEIGHT)),
    sides=st.tuples(st.floats(0, 70), st.floats(0, 70)),
    grid=st.tuples(st.integers(1, 90), st.integers(1, 120)),
)
def test_a_resized_window_gives_the_resized_mask(seed, corner, sides, grid):
    window = masks.enlarged(smooth(seed), [*corner, *sides], HEIGHT, WIDTH)
    small, expected = window.resized(*grid).above(0.5), window.above(0.5).resize(*grid)
    assert small.to_kaggle() == expected.to_kaggle()
    assert (small.heights[0], small.widths[0]) == grid


def test_the_mean_above_a_threshold():
    window = masks.enlarged(smooth(5), [10.2, 5.1, 50, 40], HEIGHT, WIDTH)
    assert window.mean_above(0.5) == pytest.approx(window.values[window.values > 0.5].mean(), rel=1e-6)
    assert window.mean_above(1.0) == 0


@pytest.mark.parametrize("side", [1, 14, 28])
def test_packing_keeps_a_mask_to_half_a_step(side):
    mask = cv2.resize(smooth(3), (side, side))
    mask.flat[[0, -1]] = 0, 1
    unpacked = masks.unpack(masks.pack(mask))
    assert (unpacked.dtype, unpacked.shape) == (np.float32, (side, side))
    np.testing.assert_allclose(unpacked, mask, atol=0.5 / masks.PACKED_STEPS + 1e-6)
    assert (unpacked.flat[0], unpacked.flat[-1]) == ((0, 1) if side > 1 else (1, 1))
    assert masks.pack(unpacked) == masks.pack(mask)


def test_a_sharp_mask_is_stable():
    mask = np.zeros((28, 28))
    assert masks.stability(mask) == 0
    mask[:10, :10] = 1
    assert masks.stability(mask) == 1
    mask[10, :10] = 0.72  # of a logit below 1
    assert masks.stability(mask) == pytest.approx(100 / 110)
    mask[11, :10] = 0.28  # above -1
    assert masks.stability(mask) == pytest.approx(100 / 120)
    mask[12, :10] = 0.26  # below it
    assert masks.stability(mask) == pytest.approx(100 / 120)
