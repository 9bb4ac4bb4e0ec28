"""Pictures of red, green and blue blobs: colour says where an object went, whatever moved it."""

from pathlib import Path

import imgaug
import imgaug.augmenters as iaa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imgaug.augmentables.segmaps import SegmentationMapsOnImage

from fashionseg import params
from fashionseg.core.errors import UserError
from fashionseg.data import augment
from fashionseg.data.augment import GREY, Patch

STANDARD = params.load("augment", path=Path(__file__).parents[2] / "params.yaml").augment.imgaug
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
    return image[..., channel] - others > (image[..., channel].max() - 12) * 0.3


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
    moved, patches = augment.apply(augment.policy(STANDARD, seed), image, [patch_of(mask) for mask in masks])
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
    expected_image, expected = augment.policy(STANDARD, seed)(image=image, segmentation_maps=labels)
    moved, patches = augment.apply(augment.policy(STANDARD, seed), image, [patch_of(mask) for mask in masks])
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


@pytest.mark.parametrize("steps", [STANDARD, [{"MultiplyAndAddToBrightness": None}]], ids=["standard", "brightness"])
def test_the_seed_fixes_the_augmentation(steps):
    image, masks = blobs()
    patches = [patch_of(mask) for mask in masks]
    for seed in range(60):  # some of the augmenters are rare
        imgaug.seed(seed)
        first = augment.apply(augment.policy(steps, seed), image, patches)
        augment.apply(augment.policy(steps, 1000 + seed), image, patches)
        imgaug.seed(1000 + seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what must not matter
        second = augment.apply(augment.policy(steps, seed), image, patches)
        np.testing.assert_array_equal(first[0], second[0])
        for a, b in zip(first[1], second[1], strict=True):
            assert a.box == b.box
            np.testing.assert_array_equal(a.bitmap, b.bitmap)


def test_seeds_differ():
    image, _ = blobs()
    pictures = {augment.apply(augment.policy(STANDARD, seed), image, [])[0].tobytes() for seed in range(30)}
    assert len(pictures) == 30


def test_flip_share_and_grey_fill():
    image, _ = blobs()
    moved = [augment.apply(augment.policy(STANDARD, seed), image, [])[0] for seed in range(60)]
    reds_left = sum(np.argwhere(by_colour(m, 0))[:, 1].mean() < WIDTH / 2 for m in moved)
    assert 15 <= reds_left <= 45  # red is left of the middle, right of it where flipped
    assert sum((m == GREY).all(2).mean() > 0.02 for m in moved) > 10


@pytest.mark.parametrize("step", [{"Affine": {"translate_px": {"x": 9}}}, {"Pad": 9}])
def test_what_is_uncovered_is_grey(step):
    moved, _ = augment.apply(augment.policy([step], 0), np.full((40, 50, 3), 200, np.uint8), [])
    assert (moved.min(), moved.max()) == (GREY, 200)


@pytest.mark.parametrize("seed", range(8))
def test_edge_cases(seed):
    image, _ = blobs()
    everything = patch_of(np.ones((HEIGHT, WIDTH)))
    dot = Patch(60, 80, np.ones((1, 1), np.uint8))
    corner = Patch(WIDTH - 9, HEIGHT - 9, np.ones((9, 9), np.uint8))
    line = Patch(0, 40, np.ones((1, WIDTH), np.uint8))
    moved, patches = augment.apply(augment.policy(STANDARD, seed), image, [everything, dot, corner, line])
    assert_tight(patches[0])
    assert iou(full(patches[0]), ~(moved == GREY).all(2)) > 0.97
    assert patches[1].area <= 4
    for patch in patches:
        if patch.area:
            assert_tight(patch)
    assert augment.apply(augment.policy(STANDARD, seed), image, [])[1] == []


def test_masks_that_leave_the_image_are_empty():
    image, masks = blobs()
    away = iaa.Affine(translate_percent={"x": 2.0}, backend="cv2")
    assert [patch.area for patch in augment.apply(away, image, [patch_of(masks[0])])[1]] == [0]


@pytest.mark.parametrize("seed", range(10))
def test_masks_of_nothing_stay_so(seed):
    """As of an instance that was cropped away before."""
    image, masks = blobs()
    nothing = patch_of(np.zeros((HEIGHT, WIDTH)))
    moved = augment.apply(augment.policy(STANDARD, seed), image, [nothing, patch_of(masks[1])])[1]
    assert [patch.area > 0 for patch in moved] == [False, True]


def by_hand(seed):
    """params' augmenters as imgaug's own users write them."""
    frame = iaa.Affine(
        scale=(0.8, 1.25), translate_percent={"x": (-0.1, 0.1), "y": (-0.1, 0.1)}, rotate=(-8, 8), shear=(-4, 4),
        order=1, cval=GREY, backend="cv2",
    )  # fmt: skip
    rare = [iaa.GaussianBlur((0.3, 1.0)), iaa.AdditiveGaussianNoise(scale=(2, 8)), iaa.JpegCompression((20, 60))]
    steps = [
        iaa.Sometimes(0.5, iaa.Multiply((0.75, 1.25), per_channel=0.2)),
        iaa.Sometimes(0.5, iaa.LinearContrast((0.75, 1.3))),
        iaa.Sometimes(0.3, iaa.AddToHueAndSaturation(value_hue=(-8, 8), value_saturation=(-30, 30))),
        iaa.Sometimes(0.1, [iaa.OneOf(rare)]),  # in a list: imgaug 0.5 does not seed a bare OneOf here
        iaa.Fliplr(0.5),
        iaa.Sometimes(0.8, frame),
    ]
    return iaa.Sequential(steps, seed=seed)


def test_params_build_imgaugs_augmenters():
    image, _ = blobs()
    for seed in range(40):
        expected = by_hand(None)
        expected.seed_(seed)
        np.testing.assert_array_equal(augment.policy(STANDARD, seed)(image=image), expected(image=image))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"Fliplr": 1}, lambda: iaa.Fliplr(1)),
        ({"Multiply": [2, 2]}, lambda: iaa.Multiply((2, 2))),  # a range
        ({"Multiply": [0.5, 0.5, 0.5]}, lambda: iaa.Multiply([0.5, 0.5, 0.5])),  # a choice
        ({"Grayscale": {"alpha": 1.0}}, lambda: iaa.Grayscale(alpha=1.0)),
        ({"Grayscale": None}, lambda: iaa.Grayscale()),
        ({"Sometimes": {"p": 1, "then_list": {"Invert": 1}}}, lambda: iaa.Sometimes(1, iaa.Invert(1))),
        ({"Sequential": [{"Fliplr": 1}, {"Invert": 1}]}, lambda: iaa.Sequential([iaa.Fliplr(1), iaa.Invert(1)])),
    ],
)
def test_argument_types(step, expected):
    image, _ = blobs()
    expected = expected()
    expected.seed_(5)
    found = augment.policy([step], 5)
    np.testing.assert_array_equal(found(image=image), iaa.Sequential([expected])(image=image))


def test_no_steps_give_no_augmenter():
    assert augment.policy([], 0) is None


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"FlipLR": 0.5}], "'FlipLR' is not an augmenter of imgaug; the nearest is Fliplr"),
        ([{"Sometimes": {"p": 0.5, "then_list": [{"Multipli": 2}]}}], "'Multipli' is not an .* nearest is Multiply"),
        ([{"Fliplr": {"q": 0.5}}], r"imgaug's Fliplr does not take \{'q': 0.5\}: .*'q'"),
        ([{"Multiply": "much"}], "imgaug's Multiply does not take 'much'"),
        ([{"Fliplr": 0.5, "Flipud": 0.5}], "should be one augmenter, as in"),
        (["Fliplr"], "'Fliplr' should be one augmenter, as in"),
        ([{"Augmenter": None}], "imgaug's Augmenter does not take None"),
    ],
)
def test_unknown_augmenters_and_arguments_are_refused(steps, message):
    with pytest.raises(UserError, match=f"augment.imgaug: .*{message}"):
        augment.policy(steps, 0)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"Affine": {"mode": "xxx", "rotate": [5, 9]}}, "imgaug fails on a picture: "),
        ({"TotalDropout": 1.0}, "imgaug fails on a picture|drops keypoints"),
    ],
)
def test_what_fails_once_it_is_drawn_is_one_sentence(step, message):
    image, masks = blobs()
    with pytest.raises(UserError, match=f"augment.imgaug: .*({message})"):
        augment.apply(augment.policy([step], 3), image, [patch_of(masks[0])])


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # in imgaug
@pytest.mark.parametrize(
    "step",
    [{"PiecewiseAffine": 0.1}, {"PerspectiveTransform": [0.1, 0.1]}, {"Resize": 0.5}],
)
def test_augmenters_that_are_not_affine_are_refused(step):
    image, masks = blobs()
    with pytest.raises(UserError, match="changes the image size or is not affine"):
        augment.apply(augment.policy([step], 3), image, [patch_of(masks[0])])


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_cut_is_numpy_slicing(seed):
    random = np.random.default_rng(seed)
    image, masks = blobs()
    (height, width), (y, x) = random.integers(1, (HEIGHT, WIDTH)), random.integers(0, 40, 2)
    height, width = min(height, HEIGHT - y), min(width, WIDTH - x)
    part, patches = augment.cut(image, [patch_of(mask) for mask in masks], x, y, (height, width))
    np.testing.assert_array_equal(part, image[y : y + height, x : x + width])
    for mask, patch in zip(masks, patches, strict=True):
        np.testing.assert_array_equal(full(patch, height, width), mask[y : y + height, x : x + width])
        if patch.area:
            assert_tight(patch, height, width)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_paste_covers_what_is_below(seed):
    """Every pixel shows the upper of what lies there, and each mask what is seen of its object."""
    random = np.random.default_rng(seed)
    (h1, w1), (h2, w2) = random.integers(60, 160, (2, 2))
    (image, masks), (other, above) = blobs(h1, w1), blobs(h2, w2)
    other = 255 - other
    pasted, patches = augment.paste(image, [patch_of(m) for m in masks], other, [patch_of(m) for m in above[:2]])
    canvas, cover = image.copy(), np.zeros((h1, w1), bool)
    for mask in above[:2]:
        part = mask[:h1, :w1]
        canvas[: len(part), : part.shape[1]][part] = other[:h1, :w1][part]
        cover[: len(part), : part.shape[1]] |= part
    np.testing.assert_array_equal(pasted, canvas)
    assert len(patches) == 5
    for mask, patch in zip(masks, patches, strict=False):
        np.testing.assert_array_equal(full(patch, h1, w1), mask & ~cover)
    for mask, patch in zip(above[:2], patches[3:], strict=True):
        expected = np.zeros((h1, w1), bool)
        expected[: min(h1, h2), : min(w1, w2)] = mask[:h1, :w1]
        np.testing.assert_array_equal(full(patch, h1, w1), expected)
