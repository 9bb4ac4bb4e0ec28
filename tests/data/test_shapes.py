"""Batches by shape: least padding, every picture once, the same pictures in every size."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import CATEGORIES

from fashionseg.core import pictures
from fashionseg.core.rle import encode
from fashionseg.data import shapes
from fashionseg.data.batches import Batches, Pictures

SIZES = st.lists(st.tuples(st.integers(10, 90), st.integers(10, 90)), min_size=1, max_size=12).map(np.array)


def pixels(sizes, found):
    """Of all inputs in squares of 1, each group in the narrowest shape that holds it."""
    aspects = sizes.min(1) / sizes.max(1)
    return sum(
        len(members) * (members.max() if group != shapes.SQUARE else 1)
        for group in np.unique(found)
        for members in [aspects[found == group]]
    )


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_no_other_groups_need_fewer_pixels(sizes):
    """By trying all of them, where a shape may save however little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "WORTH", 0)
        found = shapes.groups(sizes, 1)
    tall, wide = sizes[:, 0] > sizes[:, 1], sizes[:, 0] < sizes[:, 1]
    assert not (found == shapes.TALL)[~tall].any()
    assert not (found == shapes.WIDE)[~wide].any()
    choices = [(shapes.SQUARE, shapes.TALL) if t else (shapes.SQUARE, shapes.WIDE) if w else (shapes.SQUARE,)
               for t, w in zip(tall, wide, strict=True)]  # fmt: skip
    if len(sizes) <= 8:
        best = min(pixels(sizes, np.array(choice)) for choice in itertools.product(*choices))
        assert pixels(sizes, found) == pytest.approx(best)


def test_a_shape_is_worth_its_compilation():
    tall = np.array([[90, 60]] * 48)  # 48 pictures of 2:3 save 16 squares
    assert set(shapes.groups(tall, 2)) == {shapes.TALL}
    assert set(shapes.groups(tall[:47], 2)) == {shapes.SQUARE}
    assert set(shapes.groups(tall[:, ::-1], 2)) == {shapes.WIDE}


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(0, 99))
def test_every_picture_counts_once_in_a_batch_of_its_group(sizes, batch_size, seed):
    of_image = np.random.default_rng(seed).integers(0, 3, len(sizes))
    order = np.random.default_rng(seed + 1).permutation(len(sizes))
    found = shapes.batches(order, of_image, batch_size)
    counted = [image for rows in found for image in rows.images[: rows.count]]
    assert sorted(counted) == list(range(len(sizes)))
    assert all(len(rows.images) == batch_size and len(set(of_image[rows.images])) == 1 for rows in found)
    assert len(found) == sum(-(-count // batch_size) for count in np.bincount(of_image))  # in any order
    firsts = [np.flatnonzero(order == rows.images[0])[0] for rows in found]
    assert firsts == sorted(firsts)
    if len(set(of_image)) == 1:
        assert counted == order.tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 tall, 13 wide and 2 square pictures, each of its own grey."""
    folder = tmp_path_factory.mktemp("pictures")
    document = {"images": [], "annotations": [], "categories": CATEGORIES}
    sizes = [(96, 40 + number) for number in range(16)] + [(56, 128)] * 13 + [(64, 64)] * 2
    for number, (height, width) in enumerate(np.random.default_rng(0).permutation(sizes).tolist()):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((height, width), 8 * number, np.uint8))
        document["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        (rle,) = encode(np.ones((height, width), np.uint8)).to_coco()
        document["annotations"].append(
            {"id": number, "image_id": number, "category_id": 7, "area": height * width, "segmentation": rle}
        )
    return document, folder


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(shapes, "WORTH", 1)


@pytest.mark.parametrize("side", [96, 160])
def test_batches_fit_their_shapes(data, cheap, side):
    batches = Batches(*data, side, 1, 2, shuffle=True, seed=3)
    tall = side * 55 // 96
    assert batches.shapes == [(side, -(-tall // 32) * 32), (-(-side * 56 // 128 // 32) * 32, side)]
    kinds = [batch["sizes"].max(0) for batch in batches]
    assert len(kinds) == 31
    for image, (height, width) in zip((batches.images_of(index)[0] for index in range(31)), kinds, strict=True):
        record = batches.records[image]
        assert (height, width) == pictures.fit(record["height"], record["width"], side)
    narrow = [any((kind <= shape).all() for shape in batches.shapes) for kind in kinds]
    assert sum(narrow) == 29


def test_every_size_has_the_same_pictures_in_a_batch(data, cheap):
    """Views of several scales are fused picture by picture."""
    small, large = (Pictures(*data, side, 4) for side in (64, 160))
    assert len(small) == len(large) == 4 + 4 + 1
    assert [small.images_of(index) for index in range(9)] == [large.images_of(index) for index in range(9)]
    seen = sorted(image for index in range(9) for image in small.images_of(index))
    assert seen == list(range(31))
    assert [len(small.images_of(index)) for index in range(9)].count(4) == 7
    for index in range(9):
        grey = [picture[0, 0, 0] // 8 for picture in small[index]["images"]]
        assert grey[: len(small.images_of(index))] == small.images_of(index)


def test_an_epoch_has_as_many_batches_as_the_last(data, cheap):
    batches = Batches(*data, 64, 4, 2, shuffle=True, seed=3)
    plans = [[batches.names_of(index) for index in range(len(batches))] for batches.epoch in range(5)]
    assert {len(plan) for plan in plans} == {9}
    assert all(len({tuple(plan[index]) for plan in plans}) > 1 for index in range(9))
    mixed = [[batches._groups[batches._chosen(index)[0][0]] for index in range(9)] for batches.epoch in range(5)]
    assert len(set(map(tuple, mixed))) > 1  # shapes take turns
