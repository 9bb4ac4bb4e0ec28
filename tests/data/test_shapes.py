"""Batches by shape: least padding, every image once, the same images at every side."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg.core import pictures
from fashionseg.core.rle import encode
from fashionseg.data import shapes
from fashionseg.data.batches import Batches, Pictures

SIZES = st.lists(st.tuples(st.integers(10, 40), st.integers(10, 40)), min_size=1, max_size=6).map(np.array)


def partitions(count):
    """Every way to put images 0 .. count - 1 into groups, as lists of lists."""
    if not count:
        yield []
        return
    for sets in partitions(count - 1):
        yield [*sets, [count - 1]]
        for place, members in enumerate(sets):
            yield [*sets[:place], [*members, count - 1], *sets[place + 1 :]]


def cost(sizes, sets, price):
    """Of inputs with a longest side of 1, each group in the least height and width that hold it."""
    fitted = sizes / sizes.max(1, keepdims=True)
    return sum(price + len(members) * fitted[members].max(0).prod() for members in sets)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([0.0, 0.1, 0.3, 1.0]), st.sampled_from([0.0, 0.05, 0.2]))
def test_no_other_groups_cost_less(sizes, compilation, least):
    """By trying all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "COMPILATION", compilation)
        patch.setattr(shapes, "LEAST", least)
        found = shapes.groups(sizes)
    price = max(compilation, least * len(sizes))
    best = min(cost(sizes, sets, price) for sets in partitions(len(sizes)))
    assert cost(sizes, [np.flatnonzero(found == group) for group in set(found)], price) == pytest.approx(best)
    squares = sizes[found == shapes.SQUARE]  # have inputs of that shape, whatever they hold
    assert not len(squares) or (squares / squares.max(1, keepdims=True)).max(0).min() == 1


def test_a_second_shape_has_to_save_its_compilation():
    """48 images of 2:3 save 16 squares."""
    tall, square = np.array([[90, 60]] * 49), np.array([[90, 90]])
    assert set(shapes.groups(tall[:2])) == {1}
    assert set(shapes.groups(np.concatenate([tall[:47], square]))) == {shapes.SQUARE}
    for turned in (1, -1):
        found = shapes.groups(np.concatenate([tall, square])[:, ::turned])
        assert found.tolist() == [1] * 49 + [shapes.SQUARE]


@pytest.mark.parametrize("narrow", [390, 410])
def test_of_many_images_a_shape_has_to_save_one_in_a_hundred(narrow):
    """A tenth of a square an image, of 4,000."""
    sizes = np.array([[100, 50]] * narrow + [[100, 60]] * (4000 - narrow))
    assert shapes.groups(sizes).max() == (2 if narrow * 0.1 > 40 else 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(np.array), st.integers(1, 4), st.integers(0, 99))
def test_every_image_counts_once_in_a_batch_of_its_group(group_of, batch_size, seed):
    order = np.random.default_rng(seed).permutation(len(group_of))
    found = shapes.batches(order, order + 100, group_of, batch_size)
    counted = [image for rows in found for image in rows.images[: rows.count]]
    assert sorted(counted) == list(range(len(group_of)))
    assert all(len(rows.images) == batch_size and len(set(group_of[rows.images])) == 1 for rows in found)
    assert all((rows.before == rows.images + 100).all() for rows in found)
    assert len(found) == sum(-(-count // batch_size) for count in np.bincount(group_of))
    firsts = [np.flatnonzero(order == rows.images[0])[0] for rows in found]
    assert firsts == sorted(firsts)
    if len(set(group_of)) == 1:
        assert counted == order.tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 tall, 13 wide and 2 square images, each of its own grey."""
    folder = tmp_path_factory.mktemp("pictures")
    document = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "dress"}], "attributes": []}
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
    monkeypatch.setattr(shapes, "COMPILATION", 1)


@pytest.mark.parametrize("side", [96, 160])
def test_images_have_the_least_shape_of_their_batch(data, cheap, side):
    batches = Batches(*data, side, 1, 2, shuffle=True, seed=3)
    tall, wide = (-(-side * length // whole // 32) * 32 for length, whole in ((55, 96), (56, 128)))
    assert sorted(batches.shapes.values()) == sorted([(side, tall), (wide, side), (side, side)])
    for index in range(31):
        batch, (record,) = batches[index], batches.records_of(index)
        fitted = pictures.fit(record["height"], record["width"], side)
        assert tuple(batch["sizes"][0]) == fitted
        shape = min((shape for shape in batches.shapes.values() if np.all(np.array(shape) >= fitted)), key=np.prod)
        assert batch["images"].shape[1:3] == shape
        assert batch["images"][0, 0, 0, 0] // 8 == record["id"]
        assert (batch["images"][0, fitted[0] :] == 127).all()
        assert (batch["images"][0, :, fitted[1] :] == 127).all()


def test_squares_where_they_are_asked_for(data, cheap):
    batches = Pictures(*data, 64, 4, square=True)
    assert {batches[index]["images"].shape for index in range(len(batches))} == {(4, 64, 64, 3)}
    assert [record["id"] for index in range(len(batches)) for record in batches.records_of(index)] == list(range(31))


def test_every_side_has_the_same_images_in_a_batch(data, cheap):
    """Views of several scales are fused image by image."""
    small, large = (Pictures(*data, side, 4) for side in (64, 160))
    assert len(small) == len(large) == 4 + 4 + 1
    ids = [[record["id"] for record in small.records_of(index)] for index in range(9)]
    assert ids == [[record["id"] for record in large.records_of(index)] for index in range(9)]
    assert sorted(itertools.chain.from_iterable(ids)) == list(range(31))
    assert [len(of_batch) for of_batch in ids].count(4) == 7
    for index in range(9):
        greys = [image[0, 0, 0] // 8 for image in small[index]["images"]]
        assert greys[: len(ids[index])] == ids[index]


def test_an_epoch_has_as_many_batches_as_the_last(data, cheap):
    batches = Batches(*data, 64, 4, 2, shuffle=True, seed=3, repeat_threshold=0.9)
    orders, kinds = set(), set()
    for batches.epoch in range(5):
        assert len(batches) == 9
        orders.add(tuple(batches.names_of(0)))
        kinds.add(tuple(batches[index]["images"].shape for index in range(9)))
    assert len(orders) == len(kinds) == 5  # shapes take turns
