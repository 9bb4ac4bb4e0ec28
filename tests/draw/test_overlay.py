import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashionseg.draw import overlay
from fashionseg.draw.overlay import DrawnInstances

NAMES = ["shirt, blouse", "dress", "bag, wallet"]


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def one(box, side=28, label=0, score=None):
    scores = None if score is None else np.array([score])
    return DrawnInstances(np.array([box], np.float32), np.array([label]), [np.ones((side, side), np.uint8)], scores)


def changed(picture, before):
    return (picture != before).any(axis=2)


def test_the_fill_covers_exactly_the_mask():
    """On an image drawn at its own size: tinted inside the outline, unchanged outside of box and label."""
    image = grey(800, 600)
    picture = overlay.draw(image, one((100, 200, 300, 500), label=1), NAMES)
    assert picture.shape == image.shape
    tint = np.array(overlay.colour_of(1)) * overlay.FILL + 128 * (1 - overlay.FILL)
    inside = picture[204:496, 104:296]
    inside = inside[30:]  # below the label, should it be within
    assert np.abs(inside - tint).max() < 1.01
    touched = np.argwhere(changed(picture, image))
    assert touched[:, 1].min() in range(97, 101)
    assert touched[:, 0].max() in range(499, 504)
    assert not changed(picture, image)[210:490, 310:].any()


def test_masks_are_stretched_over_their_boxes():
    triangle = np.tril(np.ones((56, 56), np.uint8))
    instances = DrawnInstances(np.array([[0, 0, 800, 800]]), np.array([0]), [triangle])
    y, x = np.mgrid[:800, :800]
    picture = overlay.draw(grey(800, 800), instances, NAMES)
    near = np.abs(y - x) < 30
    labelled = (y < 40) & (x < 200)
    border = np.minimum.reduce([y, x, 799 - y, 799 - x]) < 4
    tinted = changed(picture, grey(800, 800))
    sure = ~near & ~labelled & ~border
    np.testing.assert_array_equal(tinted[sure], (y > x)[sure])


def test_small_pictures_are_enlarged_and_large_ones_not():
    assert overlay.draw(grey(320, 240), one((10, 10, 90, 90)), NAMES).shape == (640, 480, 3)
    assert overlay.draw(grey(64, 40), one((10, 10, 30, 30)), NAMES).shape == (768, 480, 3)
    assert overlay.draw(grey(1024, 700), one((10, 10, 30, 30)), NAMES).shape == (1024, 700, 3)


def test_without_instances_the_image_is_unchanged():
    nothing = DrawnInstances(np.zeros((0, 4)), np.zeros(0, int), [])
    np.testing.assert_array_equal(overlay.draw(grey(800, 600), nothing, NAMES), grey(800, 600))


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 5, 5),
        (595, 795, 600, 800),
        (590, 0, 600, 800),
        (0, 0, 600, 800),
        (299.6, 300, 300, 300.2),
        (-9, -9, 9, 9),
    ],
)
@pytest.mark.parametrize("score", [None, 0.87])
def test_boxes_at_the_border_draw(box, score):
    """The label stays complete: it changes as many pixels as in the middle of the image."""
    label = np.count_nonzero(
        changed(overlay.draw(grey(800, 600), one((300, 400, 301, 401), score=score), NAMES), grey(800, 600))
    )
    picture = overlay.draw(grey(800, 600), one(box, side=3, score=score), NAMES)
    assert np.count_nonzero(changed(picture, grey(800, 600))) >= 0.8 * label


def test_labels_do_not_overlap():
    taken = []
    for _ in range(4):
        overlay._label(grey(400, 400), "shirt 0.50", (100, 100, 300, 300), (255, 0, 0), taken)
    for a in range(4):
        for b in range(a):
            (l1, t1, r1, b1), (l2, t2, r2, b2) = taken[a], taken[b]
            assert min(r1, r2) <= max(l1, l2) or min(b1, b2) <= max(t1, t2)
    assert all(0 <= left < right <= 400 and 0 <= top < bottom <= 400 for left, top, right, bottom in taken)


def test_coco_annotations_and_batches_are_drawn_alike():
    y, x = np.mgrid[:160, :120]
    mask = ((y - 80) ** 2 + (x - 50) ** 2 < 1500).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    rle = coco_mask.encode(np.asfortranarray(mask))
    rle["counts"] = rle["counts"].decode()
    of_coco = DrawnInstances.of_coco([{"category_id": 24, "segmentation": rle, "score": 0.5}], {24: 2}, 160, 120)
    np.testing.assert_array_equal(of_coco.boxes, [[left, top, left + width, top + height]])
    np.testing.assert_array_equal(of_coco.masks[0], mask[top : top + height, left : left + width])
    assert of_coco.classes.tolist() == [2]
    assert of_coco.scores.tolist() == [0.5]
    half = DrawnInstances.of_coco([{"category_id": 24, "segmentation": rle}], {24: 2}, 80, 60)
    np.testing.assert_allclose(half.boxes * 2, of_coco.boxes, atol=2)
    assert half.scores is None

    batch = {
        "images": np.full((1, 160, 160, 3), 128, np.uint8),
        "sizes": np.array([[160, 120]], np.int32),
        "boxes": np.array([[of_coco.boxes[0], [0, 0, 0, 0]]], np.float32),
        "classes": np.array([[3, 0]], np.int32),
        "masks": np.stack([cv2.resize(of_coco.masks[0], (56, 56)), np.zeros((56, 56), np.uint8)])[None],
    }
    (picture,) = overlay.batch_overlays(batch, NAMES)
    expected = overlay.draw(grey(160, 120), DrawnInstances(of_coco.boxes, of_coco.classes, of_coco.masks), NAMES)
    assert picture.shape == expected.shape
    assert changed(picture, expected).mean() < 0.03  # the outlines differ by the resolution of the mask


def test_no_annotations():
    assert len(DrawnInstances.of_coco([], {}, 10, 10).boxes) == 0


def test_class_colours_are_distinct_and_stable():
    colours = np.array([[overlay.colour_of(index) for index in range(46)]], np.float32) / 255
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1000 * np.eye(46)
    assert apart.min() > 12  # CIE 1976: 2.3 is just noticeable
    assert overlay.colour_of(46 + 5) == overlay.colour_of(46 + 5)


def test_side_by_side():
    pair = overlay.side_by_side(grey(400, 300), grey(400, 250), ("prediction", "truth"))
    assert pair.shape[0] > 400
    assert pair.shape[1] == 300 + 250 + 4
    assert (pair[:18] < 100).any()  # the titles


def test_notes_follow_the_name():
    image, found = grey(800, 800), one((300, 300, 500, 500), label=1, score=0.5)
    noted = DrawnInstances(found.boxes, found.classes, found.masks, found.scores, notes=["mini, plain +2"])
    plain, long = (changed(overlay.draw(image, each, NAMES), image)[270:299].sum() for each in (found, noted))
    assert long > 2 * plain
    empty = DrawnInstances(found.boxes, found.classes, found.masks, found.scores, notes=[""])
    np.testing.assert_array_equal(overlay.draw(image, empty, NAMES), overlay.draw(image, found, NAMES))


def test_boxes_are_drawn_from_blue_to_red():
    where = np.array([[100, 100, 300, 300], [400, 400, 700, 700]], float)
    picture = overlay.boxes(grey(800, 800), where, np.array([0.2, 0.9])).astype(int)
    assert picture[200, 100, 2] > picture[200, 100, 0] + 50
    assert picture[500, 400, 0] > picture[500, 400, 2] + 50
    assert (picture[200, 200] == 128).all()
    assert overlay.boxes(grey(80, 60), where[:0], np.zeros(0)).shape == (800, 600, 3)


def test_heat_maps_are_stretched_over_the_image():
    heated = overlay.heat(grey(60, 90), np.array([[0.0, 2.0], [0.0, 2.0]])).astype(int)
    assert heated.shape == (60, 90, 3)
    assert heated[30, 5, 2] > heated[30, 5, 0]
    assert heated[30, 85, 0] > heated[30, 85, 2]
    assert overlay.heat(grey(60, 90), np.ones((2, 2))).std(axis=(0, 1)).max() == 0
