import warnings
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from pycocotools import mask as coco_mask

from fashionseg import params
from fashionseg.core import files, pictures
from fashionseg.core.errors import UserError
from fashionseg.data import samples
from fashionseg.data.batches import Batches, Pictures
from fashionseg.data.config import Augment
from fashionseg.data.samples import MASK_SIDE
from fashionseg.model.targets import project_masks

SIDE, CAPACITY = 64, 4
STANDARD = params.load("augment", path=Path(__file__).parents[2] / "params.yaml").augment
ATTRIBUTES = [{"id": 4, "name": "lace"}, {"id": 9, "name": "plain"}]
CATEGORIES = [{"id": 7, "name": "dress"}, {"id": 3, "name": "shoe"}, {"id": 0, "name": "tie"}]
COLOURS = {7: (235, 30, 30), 3: (30, 235, 30), 0: (30, 30, 235)}  # RGB of each category's instances


def rectangle(height, width, top, left, bottom, right):
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


# What the images of the document hold: height, width, [(category id, mask)].
SCENES = [
    (64, 48, [(3, rectangle(64, 48, 5, 4, 30, 20)), (7, rectangle(64, 48, 20, 15, 64, 48))]),
    (64, 64, []),
    (128, 96, [(0, rectangle(128, 96, 0, 0, 128, 96))]),  # the whole picture, twice the side
    (48, 64, [(7, rectangle(48, 64, 9, 9, 10, 10)), (0, rectangle(48, 64, 30, 40, 48, 64))]),  # one pixel; a corner
    (64, 40, [(7, rectangle(64, 40, 8 * k, 0, 8 * k + k + 1, 20)) for k in range(6)]),  # more than CAPACITY
]


def write(folder, scenes, side=SIDE):
    """A COCO document of `scenes`, with the pictures resized so that the long side is `side`."""
    document = {"images": [], "annotations": [], "categories": CATEGORIES, "attributes": ATTRIBUTES}
    (folder / "train").mkdir(parents=True)
    for number, (height, width, instances) in enumerate(scenes, 10):
        name = f"train/{number}.png"
        document["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        picture = np.full((height, width, 3), 10 * number % 50, np.uint8)
        for category, mask in instances:
            picture[mask > 0] = COLOURS[category]
            rle = coco_mask.encode(np.asfortranarray(mask))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category,
                    "attribute_ids": {7: [4, 9], 3: [9], 0: []}[category],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                }
            )
        scale = side / max(height, width)
        size = round(width * scale), round(height * scale)
        cv2.imwrite(str(folder / name), cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[..., ::-1])
    return document


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return write(folder, SCENES), folder


def make(data, **options):
    return Batches(*data, **{"side": SIDE, "batch_size": 2, "instances": CAPACITY, **options})


def pasted(batch, row):
    """Masks of one picture as bitmaps (n, H, W), put back into their boxes."""
    found = []
    for box, label, mask in zip(batch["boxes"][row], batch["classes"][row], batch["masks"][row], strict=True):
        if label:
            x1, y1, x2, y2 = box.astype(int)
            canvas = np.zeros(batch["images"].shape[1:3], bool)
            canvas[y1:y2, x1:x2] = cv2.resize(mask * 255, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 127
            found.append(canvas)
    return found


def iou(a, b):
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def test_shares_of_a_batch_are_its_rows(data):
    """And reading one of them reads no picture of another."""
    options = {"augmentation": STANDARD, "shuffle": True, "seed": 3, "attributes": True}
    whole, *shares = (make(data, share=share, **options) for share in ((0, 1), (0, 2), (1, 2)))
    assert [len(share) for share in shares] == [len(whole)] * 2
    for index in range(len(whole)):
        assert [len(share._tasks(index)) for share in shares] == [1, 1]
        assert [share.names_of(index) for share in shares] == [whole.names_of(index)] * 2
        together, first, second = whole[index], shares[0][index], shares[1][index]
        for name, values in together.items():
            np.testing.assert_array_equal(values, np.concatenate([first[name], second[name]]))


def test_shapes_and_types(data):
    batches = make(data)
    assert len(batches) == 3
    for index in range(len(batches)):
        batch = batches[index]
        assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
            "images": ((2, SIDE, SIDE, 3), "uint8"),
            "sizes": ((2, 2), "int32"),
            "boxes": ((2, CAPACITY, 4), "float32"),
            "classes": ((2, CAPACITY), "int32"),
            "masks": ((2, CAPACITY, MASK_SIDE, MASK_SIDE), "uint8"),
        }


def test_boxes_are_pycocotools_and_classes_count_from_one(data):
    batch = make(data)[0]
    np.testing.assert_array_equal(batch["sizes"], [[64, 48], [64, 64]])
    np.testing.assert_array_equal(batch["classes"], [[1, 2, 0, 0], [0, 0, 0, 0]])  # the dress is larger
    x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(SCENES[0][2][1][1])))
    np.testing.assert_array_equal(batch["boxes"][0, 0], [x, y, x + w, y + h])
    np.testing.assert_array_equal(batch["boxes"][0, 1], [4, 5, 20, 30])
    assert batch["boxes"][0, 2:].max() == batch["boxes"][1].max() == 0
    assert (batch["masks"][0, :2] == 1).all()
    assert batch["masks"][0, 2:].max() == batch["masks"][1].max() == 0


def test_attributes_follow_their_instances(data):
    batch = make(data, attributes=True)[0]
    assert batch["attributes"].dtype == np.uint8
    np.testing.assert_array_equal(batch["attributes"][0], [[1, 1], [0, 1], [0, 0], [0, 0]])  # the dress is larger
    np.testing.assert_array_equal(batch["attributes"][1], np.zeros((CAPACITY, 2)))


def test_pictures_are_rgb_padded_at_the_right_and_bottom(data):
    batch = make(data)[0]
    assert (batch["images"][0, :, 48:] == 127).all()
    assert tuple(batch["images"][0, 40, 30]) == COLOURS[7]
    landscape = make(data)[1]["images"][1]
    assert (landscape[48:] == 127).all()
    assert not (landscape[:48] == 127).all(axis=2).any()


def test_annotations_follow_the_resized_picture(data):
    batch = make(data)[1]
    np.testing.assert_array_equal(batch["sizes"][0], [64, 48])
    np.testing.assert_array_equal(batch["boxes"][0, 0], [0, 0, 48, 64])
    assert (batch["masks"][0, 0] == 1).all()


def test_too_small_instances_are_dropped(data):
    np.testing.assert_array_equal(make(data)[1]["classes"][1], [3, 0, 0, 0])
    assert make(data).tiny == 1


def test_too_small_instances_take_no_slot(tmp_path):
    """It is counted once, whether or not the image has more instances than are kept."""
    masks = [rectangle(64, 64, 8 * k, 0, 8 * k + 6, 20) for k in range(CAPACITY)]
    masks += [rectangle(64, 64, 60, 60, 61, 62), np.zeros((64, 64), np.uint8)]
    batches = make((write(tmp_path, [(64, 64, [(7, mask) for mask in masks])]), tmp_path))
    assert (batches.dropped, batches.tiny) == (0, 2)


def test_the_largest_instances_are_kept_and_others_counted(data):
    batches = make(data)
    heights = batches[2]["boxes"][0, :, 3] - batches[2]["boxes"][0, :, 1]
    assert heights.tolist() == [6, 5, 4, 3]
    assert batches.dropped == 2


def test_the_last_batch_is_filled_up_with_the_first_images(data):
    batches = make(data)
    np.testing.assert_array_equal(batches[2]["images"][1], batches[0]["images"][0])
    assert len(make(data, batch_size=16)) == 1
    assert make(data, batch_size=16)[0]["images"].shape[0] == 16


def test_augmented_masks_stay_on_their_objects(tmp_path):
    y, x = np.mgrid[:300, :200] + 0.5
    ellipse = (((y - 110) / 70) ** 2 + ((x - 90) / 50) ** 2 < 1).astype(np.uint8)
    scenes = [(300, 200, [(7, ellipse), (3, rectangle(300, 200, 200, 60, 260, 150))])]
    batches = Batches(write(tmp_path, scenes, 128), tmp_path, 128, 1, CAPACITY, augmentation=STANDARD, seed=5)
    for batches.epoch in range(12):
        batch = batches[0]
        image = batch["images"][0].astype(int)
        assert (batch["classes"] > 0).sum() == 2
        for label, mask in zip(batch["classes"][0], pasted(batch, 0), strict=False):
            channel = label - 1
            by_colour = image[..., channel] - np.delete(image, channel, axis=2).max(2) > 60
            assert iou(mask, by_colour) > 0.9


def by_areas(bitmap):
    """Share of each of MASK_SIDE x MASK_SIDE cells that is covered, by the lengths of overlap of cells and pixels."""
    cells = np.arange(MASK_SIDE)[:, None]
    shares = []
    for length in bitmap.shape:
        pixels = np.arange(length) * MASK_SIDE / length  # in cells
        ends = np.minimum(pixels + MASK_SIDE / length, cells + 1)
        shares.append(np.maximum(0, ends - np.maximum(pixels, cells)))
    return shares[0] @ bitmap @ shares[1].T


@st.composite
def blots(draw):
    height, width, seed = draw(st.integers(1, 150)), draw(st.integers(1, 150)), draw(st.integers(0, 1000))
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 4) > 0.5).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(blots())
def test_shrunk_cells_are_at_least_half_covered(bitmap):
    shares, cells = by_areas(bitmap), samples.shrunk(bitmap)
    if min(bitmap.shape) >= MASK_SIDE:
        sure = np.abs(shares - 0.5) > 0.01  # OpenCV rounds
        np.testing.assert_array_equal(cells[sure], shares[sure] > 0.5)
    else:
        assert (cells[shares > 1 - 1e-9] == 1).mean() > 0.9 if (shares > 1 - 1e-9).any() else True
        assert np.mean(cells != (shares > 0.5)) < 0.1


@pytest.mark.parametrize("height", [1, 20, 55, 56, 90])
def test_shrunk_averages_the_long_side_of_a_thin_mask(height):
    """Of each cell 8 of 10 pixels are covered, but not the middle ones."""
    columns = np.tile([1, 1, 1, 1, 0, 0, 1, 1, 1, 1], MASK_SIDE).astype(np.uint8)
    thin = np.repeat(columns[None], height, axis=0)
    assert samples.shrunk(thin).all()
    assert samples.shrunk(np.ascontiguousarray(thin.T)).all()


def test_roi_align_over_the_same_box_gives_the_mask_back():
    y, x = np.mgrid[:90, :70]
    bitmap = ((y - 40) ** 2 / 2 + (x - 30) ** 2 < 800).astype(np.uint8)
    patch = samples.Patch(0, 0, bitmap).trimmed()
    cells = samples.shrunk(patch.bitmap)
    box = np.array([[[13.0, 5.0, 13 + patch.bitmap.shape[1], 5 + patch.bitmap.shape[0]]]], np.float32)
    projected = ops.convert_to_numpy(project_masks(cells[None, None], box, box, MASK_SIDE))[0, 0]
    np.testing.assert_array_equal(projected >= 0.5, cells == 1)


def order_of(batches):
    """What tells the pictures apart, in the order in which they come."""
    return [(*size, image.mean()) for b in batches for size, image in zip(b["sizes"], b["images"], strict=True)]


def test_order_follows_seed_and_epoch(data):
    batches = make(data, shuffle=True, seed=3)
    orders = [order_of(batches) for batches.epoch in range(6)]
    assert all(len(set(order)) == len(SCENES) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    resumed = make(data, shuffle=True, seed=3)
    resumed.epoch = 4
    assert order_of(resumed) == orders[4]


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_workers_change_nothing(data):
    options = {"shuffle": True, "augmentation": STANDARD, "seed": 9}
    here, there = make(data, **options), make(data, **options, workers=2)
    for here.epoch in range(2):
        there.epoch = here.epoch
        for index in (1, 0, 2, 2):  # any order, and again
            assert equal(here[index], there[index])


def test_augmentation_depends_on_the_image_not_its_position(data):
    """The same picture moves alike wherever the shuffle puts it, and otherwise in the next epoch."""
    plain = make(data, batch_size=1, augmentation=STANDARD, seed=9)
    shuffled = make(data, batch_size=1, augmentation=STANDARD, seed=9, shuffle=True)
    pictures = {batch["images"].tobytes() for batch in plain}
    assert {batch["images"].tobytes() for batch in shuffled} == pictures
    plain.epoch = 1
    assert not {batch["images"].tobytes() for batch in plain} & pictures


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """Two pictures of 120 x 80, each with a red and a green ellipse, and at twice the side as the originals are."""
    y, x = np.mgrid[:240, :160] + 0.5
    centres = [(70, 60), (170, 100), (90, 120), (180, 40)]
    discs = [(((y - cy) / 50) ** 2 + ((x - cx) / 30) ** 2 < 1).astype(np.uint8) for cy, cx in centres]
    folder = tmp_path_factory.mktemp("blobs")
    return write(
        folder, [(240, 160, list(zip([7, 3], order, strict=True))) for order in (discs[:2], discs[2:])], 120
    ), folder


def assert_masks_show(batch, least=0.85):
    """Each mask lies on what has its colour, as far as one object does not hide the other."""
    image = batch["images"][0].astype(int)
    for label, mask in zip(batch["classes"][0], pasted(batch, 0), strict=False):
        others = np.delete(image, label - 1, axis=2).max(2)
        if mask.sum() > 100:
            assert np.count_nonzero((image[..., label - 1] - others > 60) & mask) > least * mask.sum()


@pytest.mark.parametrize("scale", [[0.3, 0.3], [1.0, 1.0], [1.7, 1.7], [0.1, 2.0]])
def test_large_scale_jitter(blobs, scale):
    batches = Batches(*blobs, 120, 1, CAPACITY, augmentation=Augment([], scale, 0.0), seed=1)
    sizes = set()
    for batches.epoch in range(8):
        batch = batches[0]
        (height, width), boxes = batch["sizes"][0], batch["boxes"][0]
        sizes.add((int(height), int(width)))
        assert height <= 120
        assert width <= 80
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert (batch["images"][0, height:] == 127).all()
        assert (batch["images"][0, :, width:] == 127).all()
        assert_masks_show(batch)
        tall = (boxes[:, 3] - boxes[:, 1]).max()  # an ellipse is 50 pixels high at a scale of 1
        if scale[0] == scale[1]:
            assert tall <= 50 * scale[0] + 2
            assert tall == pytest.approx(50 * scale[0], abs=2) or scale[0] > 1
    assert sizes == {(36, 24)} if scale[1] < 1 else sizes == {(120, 80)} if scale[0] >= 1 else len(sizes) > 2


def test_instances_that_vanish_are_left_out(tmp_path):
    """One too small for this side, others cropped away, and then moved as params come."""
    instances = [(7, rectangle(240, 160, 101, 9, 102, 10)), (3, rectangle(240, 160, 60, 60, 120, 100))]
    document = write(tmp_path, [(240, 160, instances)], 240)
    for scale, counts in (([1.0, 1.0], {1}), ([0.5, 4.0], {0, 1})):
        moved = Augment(STANDARD.imgaug, scale, 0.0)
        batches = Batches(document, tmp_path, 60, 1, CAPACITY, augmentation=moved)
        found = set()
        for batches.epoch in range(30):
            found.add(int((batches[0]["classes"] > 0).sum()))
        assert found == counts


def test_a_large_picture_is_cropped_anywhere(blobs):
    batches = Batches(*blobs, 120, 1, CAPACITY, augmentation=Augment([], [2.0, 2.0], 0.0), seed=1)
    whole = samples.read(blobs[1] / "train/10.png", 240, 160, 240)
    corners = set()
    for batches.epoch in range(6):
        crop = batches[0]["images"][0, :, :80]
        y, x = np.unravel_index(cv2.matchTemplate(whole, crop, cv2.TM_SQDIFF).argmin(), (121, 81))
        np.testing.assert_array_equal(whole[y : y + 120, x : x + 80], crop)
        corners.add((y, x))
    assert len(corners) > 3


@pytest.mark.parametrize("copied", [True, False])
def test_an_enlarged_picture_is_read_from_the_original(blobs, tmp_path, copied):
    """Enlarged ones alone, as reading an original takes longer."""
    document, originals = blobs
    (tmp_path / "train").mkdir()
    for picture in (originals / "train").iterdir():
        small = cv2.resize(cv2.imread(str(picture)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "train" / picture.name), small)
    raw = originals if copied else tmp_path / "raw"
    if not copied:
        files.write_json(raw / pictures.IN_PLACE, {"folder": str(originals)})

    def image(scale, images, **options):
        augmentation = Augment([], scale, 0.0)
        return Batches(document, images, 120, 1, CAPACITY, augmentation=augmentation, **options)[0]["images"]

    np.testing.assert_array_equal(image([2.0, 2.0], tmp_path, raw=raw), image([2.0, 2.0], originals))
    assert (image([2.0, 2.0], tmp_path) != image([2.0, 2.0], originals)).any()
    drawn = {seed: image([0.5, 1.5], tmp_path, raw=raw, seed=seed) for seed in range(8)}
    copies = {seed: image([0.5, 1.5], tmp_path, seed=seed) for seed in drawn}
    enlarged = {seed for seed, picture in drawn.items() if (picture[:, -1] != 127).any()}
    assert 1 < len(enlarged) < 7
    assert {seed for seed in drawn if (drawn[seed] != copies[seed]).any()} == enlarged
    files.write_json(tmp_path / "gone" / pictures.IN_PLACE, {"folder": str(tmp_path / "nowhere")})
    np.testing.assert_array_equal(image([1.0, 1.0], tmp_path, raw=tmp_path / "gone"), image([1.0, 1.0], tmp_path))


def test_copy_paste(blobs):
    """Of one red and one green ellipse under about half of two others; what is hidden is nobody's."""
    batches = Batches(*blobs, 120, 1, 4, augmentation=Augment([], [1.0, 1.0], 1.0), attributes=True, seed=4)
    plain = Batches(*blobs, 120, 1, 4, attributes=True)
    counts = set()
    for batches.epoch in range(12):
        for index in range(2):
            batch = batches[index]
            masks = pasted(batch, 0)
            counts.add(len(masks))
            assert sum(mask.astype(int) for mask in masks).max() <= 1 + (len(masks) > 3)  # the pasted ones may overlap
            assert_masks_show(batch)
            for label, row in zip(batch["classes"][0], batch["attributes"][0], strict=True):
                assert row.tolist() == {0: [0, 0], 1: [1, 1], 2: [0, 1]}[int(label)]
    assert counts >= {2, 3}
    never = Batches(*blobs, 120, 1, 4, augmentation=Augment([], [1.0, 1.0], 0.0), attributes=True, seed=4)
    assert all(equal(never[index], plain[index]) for index in range(2))


def test_scale_and_copy_paste_are_deterministic(blobs):
    everything = Augment([{"Fliplr": 0.5}], [0.5, 2.0], 0.7)
    options = {"augmentation": everything, "seed": 9, "shuffle": True, "repeat_threshold": 1.0}
    one, two = (Batches(*blobs, 120, 2, CAPACITY, **options) for _ in range(2))
    one.epoch = two.epoch = 3
    assert equal(one[0], two[0])
    two.epoch = 2
    assert not equal(one[0], two[0])


def test_wrong_augmenters_are_refused_before_a_worker_runs(data):
    with pytest.raises(UserError, match="'Flip' is not an augmenter of imgaug; the nearest is"):
        make(data, augmentation=Augment([{"Flip": 0.5}], [1.0, 1.0], 0.0), workers=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_faulty_pictures_are_named(data, tmp_path, workers):
    document, _ = data
    with pytest.raises(UserError, match=r"train/10\.png is missing"):
        Batches(document, tmp_path, SIDE, 1, CAPACITY, workers=workers)[0]


def test_a_picture_of_another_aspect_is_refused(tmp_path):
    document = write(tmp_path, SCENES[:1])
    document["images"][0].update(height=48, width=64)
    with pytest.raises(UserError, match="not the aspect of 48 x 64"):
        Pictures(document, tmp_path, SIDE, 1)[0]


def test_a_document_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no image"):
        Pictures({"images": []}, tmp_path, SIDE, 1)


@pytest.mark.parametrize("side", [32, 128])
def test_another_side_resizes(data, side):
    batch = make(data, side=side)[0]
    np.testing.assert_array_equal(batch["sizes"], [[side, side * 3 // 4], [side, side]])
    np.testing.assert_allclose(batch["boxes"][0, 1], np.array([4, 5, 20, 30]) * side / SIDE, atol=1)


def test_names_of_a_batch(data):
    batches = make(data, shuffle=True, seed=3)
    names = {(*batches[index]["sizes"][0], batches.names_of(index)[0]) for index in range(3)}
    sizes = {f"train/{number}.png": (height, width) for number, (height, width, _) in enumerate(SCENES, 10)}
    assert all(abs(h * sizes[name][1] - w * sizes[name][0]) < sizes[name][1] for h, w, name in names)
    assert batches.names_of(2)[1] == batches.names_of(0)[0]


def test_batches_without_annotations(data):
    document, folder = data
    pictures = Pictures({"images": document["images"], "categories": CATEGORIES}, folder, SIDE, 2)
    assert len(pictures) == 3
    assert pictures.records == document["images"]
    assert set(pictures[0]) == {"images", "sizes"}
    with_truth = make(data)
    for index in range(3):
        np.testing.assert_array_equal(pictures[index]["images"], with_truth[index]["images"])
        np.testing.assert_array_equal(pictures[index]["sizes"], with_truth[index]["sizes"])


class Small(keras.Model):
    """One layer that takes a batch as MaskRCNN does."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, batch):
        pixels = ops.mean(batch["images"], (1, 2)) / 255
        truth = ops.mean(ops.cast(batch["masks"], "float32"), (1, 2, 3)) + ops.cast(batch["classes"][:, 0], "float32")
        return (self.layer(pixels)[:, 0] - truth) ** 2

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(y_pred)


class Recorder(Batches):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def __getitem__(self, index):
        self.seen.append((self.epoch, index))
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_gets_each_epoch_in_its_order(data, workers):
    train, validation = Recorder(*data, SIDE, 2, CAPACITY, shuffle=True, workers=workers), make(data, workers=workers)
    model = Small()
    model.compile(optimizer="sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "ran out of data"
        history = model.fit(
            train,
            validation_data=validation,
            initial_epoch=2,
            epochs=4,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(train, "epoch", epoch))
            ],
            verbose=0,
        )
    assert np.isfinite(history.history["val_loss"]).all()
    for epoch in (2, 3):
        assert {index for seen, index in train.seen if seen == epoch} == {0, 1, 2}
    assert len(model.predict(train, verbose=0)) == 6


def test_another_seed_is_another_order(data):
    assert len({tuple(order_of(make(data, shuffle=True, seed=seed))) for seed in range(6)}) > 1


def test_partners_are_drawn_for_each_epoch_and_repeat(data):
    batches = make(data, augmentation=Augment([], [1.0, 1.0], 0.5), seed=3)
    drawn = np.array(
        [
            [[batches._partner(image, before) for before in range(2)] for image in range(5)]
            for batches.epoch in range(40)
        ]
    )
    assert (drawn != None).mean() == pytest.approx(0.5, abs=0.1)  # noqa: E711
    assert set(drawn[:, 0, 0]) == {None, *range(5)}
    assert (drawn[:, :, 0] != drawn[:, :, 1]).any()


def test_half_of_the_instances_are_pasted_by_a_draw_of_their_own(blobs):
    batches = Batches(*blobs, 120, 1, 4)
    one, other, flip = batches._source(0), batches._source(1), Augment([{"Fliplr": 0.5}], [1.0, 1.0], 1.0)
    kept = [samples.sample(one, 120, 4, batches.augmentation, seed, other).kept for seed in range(60)]
    assert sum(i > 1 for of_image in kept for i in of_image) / 60 == pytest.approx(1, abs=0.35)
    assert any({0, 2} <= set(samples.sample(one, 120, 4, flip, seed, one).kept) for seed in range(30))


def test_the_least_area_is_that_in_the_input(tmp_path):
    """A wide picture: of instances of two and of four pixels the second is used."""
    masks = rectangle(16, 64, 0, 0, 2, 1), rectangle(16, 64, 0, 8, 2, 10)
    batches = make((write(tmp_path, [(16, 64, [(7, mask) for mask in masks])]), tmp_path))
    assert batches.tiny == 1
    assert batches[0]["classes"][0].tolist() == [1, 0, 0, 0]


def test_a_picture_two_pixels_too_narrow_is_refused(tmp_path):
    document = write(tmp_path, SCENES[:1])
    document["images"][0].update(width=50)
    with pytest.raises(UserError, match="not the aspect of 64 x 50"):
        Pictures(document, tmp_path, SIDE, 1)[0]
