"""Pictures of red, green and blue blobs: colour says where an object went, whatever moved it."""

import imgaug
import imgaug.augmenters as iaa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imgaug.augmentables.segmaps import SegmentationMapsOnImage

from fashionseg.data import augment
from fashionseg.data.augment import GREY, Patch

HEIGHT, WIDTH = 160, 120
seeds = st.integers(0, 2**32 - 1)


def blobs(height=HEIGHT, width=WIDTH):
    """Picture, and the full bitmaps (3, H, W) of its red, green and blue ellipse."""
    y, x = np.mgrid[:height, :width] + 0.5
    centres = [(0.3, 0.35, 0.2, 0.25), (0.5, 0.75, 0.3, 0.15), (0.8, 0.3, 0.12, 0.22)]
    masks = np.array([((y / height - cy) / ry) ** 2 + ((x / width - cx) / rx) ** 2 < 1 for cy, cx, ry, rx in centres])
    image = np.full((height, width, 3), 12, np.uint8)
    for channel, mask in enumerate(masks):
        image[mask] = 40
        image[mask, channel] = 230
    return image, masks


def patch_of(mask):
    return Patch(0, 0, mask.astype(np.uint8)).trimmed()


def full(patch, height=HEIGHT, width=WIDTH):
    canvas = np.zeros((height, width), bool)
    x1, y1, x2, y2 = patch.box
    canvas[y1:y2, x1:x2] = patch.bitmap
    return canvas


def iou(a, b):
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def by_colour(image, channel):
    image = image.astype(int)
    others = np.delete(image, channel, axis=2).max(2)
    return image[..., channel] - others > (image.max() - 12) * 0.4


def assert_tight(patch, height=HEIGHT, width=WIDTH):
    x1, y1, x2, y2 = patch.box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert all(edge.any() for edge in (patch.bitmap[0], patch.bitmap[-1], patch.bitmap[:, 0], patch.bitmap[:, -1]))
    assert set(np.unique(patch.bitmap)) <= {0, 1}


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_masks_stay_on_their_objects(seed):
    image, masks = blobs()
    moved, patches = augment.apply(augment.policy("standard", seed), image, [patch_of(mask) for mask in masks])
    assert moved.shape == image.shape
    assert moved.dtype == np.uint8
    for channel, patch in enumerate(patches):
        if patch.area > 150:  # the IoU of a sliver says little
            assert_tight(patch)
            assert iou(full(patch), by_colour(moved, channel)) >= 0.9


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_agrees_with_imgaugs_own_segmentation_maps(seed):
    image, masks = blobs()
    labels = SegmentationMapsOnImage((masks.argmax(0) + masks.any(0)).astype(np.int32), image.shape)
    expected_image, expected = augment.policy("standard", seed)(image=image, segmentation_maps=labels)
    moved, patches = augment.apply(augment.policy("standard", seed), image, [patch_of(mask) for mask in masks])
    np.testing.assert_array_equal(moved, expected_image)
    for label, patch in enumerate(patches, 1):
        if patch.area > 150:
            assert iou(full(patch), expected.get_arr() == label) > 0.95


def test_flip_mirrors_exactly():
    image, masks = blobs()
    moved, patches = augment.apply(iaa.Fliplr(1.0), image, [patch_of(mask) for mask in masks])
    np.testing.assert_array_equal(moved, image[:, ::-1])
    for mask, patch in zip(masks, patches, strict=True):
        np.testing.assert_array_equal(full(patch), mask[:, ::-1])


def test_a_shift_by_whole_pixels_is_exact():
    image, masks = blobs()
    shift = iaa.Affine(translate_px={"x": 11, "y": -7}, cval=GREY, backend="cv2")
    moved, patches = augment.apply(shift, image, [patch_of(masks[0])])
    expected = np.zeros_like(masks[0])
    expected[:-7, 11:] = masks[0][7:, :-11]
    np.testing.assert_array_equal(full(patches[0]), expected)
    np.testing.assert_array_equal(moved[:-7, 11:], image[7:, :-11])
    assert (moved[:, :11] == GREY).all()


def test_seed_alone_decides():
    image, masks = blobs()
    patches = [patch_of(mask) for mask in masks]
    for seed in range(60):  # some of the augmenters are rare
        imgaug.seed(seed)
        first = augment.apply(augment.policy("standard", seed), image, patches)
        imgaug.seed(1000 + seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what must not matter
        second = augment.apply(augment.policy("standard", seed), image, patches)
        np.testing.assert_array_equal(first[0], second[0])
        for a, b in zip(first[1], second[1], strict=True):
            assert a.box == b.box
            np.testing.assert_array_equal(a.bitmap, b.bitmap)


def test_seeds_differ():
    image, _ = blobs()
    pictures = {augment.apply(augment.policy("standard", seed), image, [])[0].tobytes() for seed in range(30)}
    assert len(pictures) == 30


def test_the_policy_flips_half_and_uncovers_grey():
    image, _ = blobs()
    moved = [augment.apply(augment.policy("standard", seed), image, [])[0] for seed in range(60)]
    reds_left = sum(np.argwhere(by_colour(m, 0))[:, 1].mean() < WIDTH / 2 for m in moved)
    assert 15 <= reds_left <= 45  # red is left of the middle, right of it where flipped
    assert sum((m == GREY).all(2).mean() > 0.02 for m in moved) > 10


@pytest.mark.parametrize("seed", range(8))
def test_edge_cases(seed):
    image, _ = blobs()
    everything = patch_of(np.ones((HEIGHT, WIDTH)))
    dot = Patch(60, 80, np.ones((1, 1), np.uint8))
    corner = Patch(WIDTH - 9, HEIGHT - 9, np.ones((9, 9), np.uint8))
    line = Patch(0, 40, np.ones((1, WIDTH), np.uint8))
    moved, patches = augment.apply(augment.policy("standard", seed), image, [everything, dot, corner, line])
    assert_tight(patches[0])
    assert iou(full(patches[0]), ~(moved == GREY).all(2)) > 0.97
    assert patches[1].area <= 4
    for patch in patches:
        if patch.area:
            assert_tight(patch)
    assert augment.apply(augment.policy("standard", seed), image, [])[1] == []


def test_what_leaves_the_picture_has_no_pixel():
    image, masks = blobs()
    away = iaa.Affine(translate_percent={"x": 2.0}, backend="cv2")
    assert [patch.area for patch in augment.apply(away, image, [patch_of(masks[0])])[1]] == [0]


def test_none_is_none_and_other_names_are_refused():
    assert augment.policy("none", 0) is None
    with pytest.raises(ValueError, match="autoaugment"):
        augment.policy("autoaugment", 0)
