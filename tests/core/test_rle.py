import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from fashionseg.core import rle

REAL = Path("../shared/data/imaterialist_slice/train.csv")
EDGES = {
    "empty": np.zeros((4, 3), bool),
    "full": np.ones((4, 3), bool),
    "one pixel": np.arange(12).reshape(4, 3) == 7,
    "first pixel": np.arange(12).reshape(4, 3) == 0,
    "last pixel": np.arange(12).reshape(4, 3) == 11,
    "one of one": np.ones((1, 1), bool),
    "none of one": np.zeros((1, 1), bool),
    "one row": np.array([[1, 1, 0, 0, 1, 0, 1]], bool),
    "one column": np.array([[1, 1, 0, 0, 1, 0, 1]], bool).T,
    "across a column's end": np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1]], bool),
    "across whole columns": np.array([[0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]], bool),
}
sides = st.integers(1, 12)
shapes = st.tuples(sides, sides)


@st.composite
def bitmaps(draw, shape=shapes):
    """Noise, or rectangles, whose runs may span whole columns."""
    height, width = draw(shape)
    if draw(st.booleans()):
        return draw(arrays(bool, (height, width)))
    bitmap = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bitmap[top : draw(st.integers(top, height)), left : draw(st.integers(left, width))] = True
    return bitmap


@st.composite
def pairs(draw):
    """Batches of two masks each, of one size in a pair."""
    sizes = draw(st.lists(shapes, max_size=4))
    return [(draw(bitmaps(st.just(size))), draw(bitmaps(st.just(size)))) for size in sizes]


def many(masks) -> rle.Runs:
    return rle.concatenate([rle.encode(mask) for mask in masks])


def coco(bitmap: np.ndarray) -> dict:
    found = coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def kaggle(bitmap: np.ndarray) -> str:
    """The encoder of the competition's public kernels."""
    line = np.concatenate([[0], bitmap.T.flatten(), [0]])
    edges = np.where(line[1:] != line[:-1])[0] + 1
    edges[1::2] -= edges[::2]
    return " ".join(str(number) for number in edges)


def pillow(bitmap: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(bitmap.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))


def assert_same(runs: rle.Runs, expected: list[np.ndarray]) -> None:
    """The same pixels, and the same runs: sorted and merged."""
    assert len(runs) == len(expected)
    for row, bitmap in enumerate(expected):
        np.testing.assert_array_equal(runs.decode(row), bitmap)
    for name, column in vars(many(expected)).items():
        np.testing.assert_array_equal(getattr(runs, name), column)
        assert getattr(runs, name).dtype == np.int64


def check_against_libraries(masks: list[np.ndarray]) -> None:
    runs, expected = many(masks), [coco(mask) for mask in masks]
    assert runs.to_coco() == expected
    assert runs.areas().tolist() == [int(coco_mask.area(found)) for found in expected]
    assert runs.boxes().tolist() == [coco_mask.toBbox(found).tolist() for found in expected]
    assert_same(rle.from_coco(expected), masks)
    assert_same(rle.from_coco([found | {"counts": found["counts"].encode()} for found in expected]), masks)
    heights, widths = [mask.shape[0] for mask in masks], [mask.shape[1] for mask in masks]
    strings = [kaggle(mask) for mask in masks]
    assert runs.to_kaggle() == strings
    assert_same(rle.from_kaggle(strings, heights, widths), masks)


@given(st.lists(bitmaps(), max_size=5))
@settings(max_examples=50, deadline=None)
def test_equal_to_pycocotools_and_kaggle(masks):
    check_against_libraries(masks)


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases(name):
    check_against_libraries([EDGES[name]])
    for height, width in itertools.product((1, 2, 3, 4, 9), repeat=2):
        assert_same(rle.encode(EDGES[name]).resize(height, width), [pillow(EDGES[name], height, width)])


def test_edge_cases_in_one_batch():
    check_against_libraries(list(EDGES.values()))


def test_large_masks_whose_counts_take_several_letters():
    random = np.random.default_rng(0)
    masks = []
    for height, width in ((3000, 1000), (2, 400_000)):
        line = np.zeros(height * width, bool)
        for begin in random.integers(0, height * width, 200):
            line[begin : begin + 10 ** random.integers(0, 6)] ^= True
        masks.append(line.reshape(width, height).T)
    check_against_libraries(masks)


@given(st.lists(bitmaps(), max_size=5), st.data())
@settings(max_examples=40, deadline=None)
def test_uncompressed_counts(masks, data):
    plain = []
    for mask in masks:
        counts = [0]
        for value, group in itertools.groupby(mask.T.ravel()):
            if value == len(counts) % 2:
                counts.append(0)
            counts[-1] += len(list(group))
        for place in data.draw(st.lists(st.integers(0, len(counts)), max_size=2)):
            counts[place:place] = [0, 0]  # allowed, changes nothing
        plain.append({"size": list(mask.shape), "counts": counts})
    assert_same(rle.from_coco(plain), masks)
    mixed = [coco(mask) if row % 2 else found for row, (mask, found) in enumerate(zip(masks, plain, strict=True))]
    assert_same(rle.from_coco(mixed), masks)


@given(pairs())
@example([(np.ones((1, 1), bool), np.ones((1, 1), bool))])
@settings(max_examples=50, deadline=None)
def test_set_operations(masks):
    left, right = [first for first, _ in masks], [second for _, second in masks]
    first, second = many(left), many(right)
    assert_same(first.union(second), [a | b for a, b in masks])
    assert_same(first.intersection(second), [a & b for a, b in masks])
    assert_same(first.subtract(second), [a & ~b for a, b in masks])
    for crowd, operation in ((False, first.union), (True, first.intersection)):
        merged = [coco_mask.merge([coco(a), coco(b)], intersect=crowd)["counts"].decode() for a, b in masks]
        assert [found["counts"] for found in operation(second).to_coco()] == merged
    assert first.elementwise_iou(second).tolist() == [coco_mask.iou([coco(a)], [coco(b)], [0]).item() for a, b in masks]


@pytest.mark.parametrize("other", [np.ones((3, 4)), np.ones((4, 4))])
def test_set_operations_refuse_different_sizes(other):
    with pytest.raises(ValueError, match="masks differ in number or size"):
        rle.encode(np.ones((4, 3))).union(rle.encode(other))


@given(st.lists(st.tuples(bitmaps(), st.integers(1, 30), st.integers(1, 30)), max_size=4))
@settings(max_examples=60, deadline=None)
def test_resize_equals_pillow(cases):
    runs = many([mask for mask, _, _ in cases])
    resized = runs.resize(np.array([height for _, height, _ in cases]), np.array([width for _, _, width in cases]))
    assert_same(resized, [pillow(*case) for case in cases])


@given(st.integers(1, 9000), st.integers(1, 3000), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_resize_real_lengths(old, new, seed):
    line = np.random.default_rng(seed).random((old, 1)) < 0.5
    assert_same(rle.encode(line).resize(new, 1), [pillow(line, new, 1)])
    assert_same(rle.encode(line.T).resize(1, new), [pillow(line.T, 1, new)])


def test_resize_rounds_as_pillow_sums():
    """Sizes where whole-number arithmetic and Pillow differ: one in five of the sizes of the competition."""
    random, parted = np.random.default_rng(0), 0
    for longest in range(1000, 6000, 40):
        old = int(random.integers(longest // 3, longest + 1))
        new, odd = old * 1024 // longest, np.arange(old)[None] % 2 == 1
        shown = pillow(odd, 1, new)
        parted += (shown[0] != (2 * np.arange(new) + 1) * old // (2 * new) % 2).any()
        assert_same(rle.encode(odd).resize(1, new), [shown])
    assert parted > 10


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 rounds positions to 1/65536 of a pixel")
@given(bitmaps(st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_resize_equals_opencv(mask, height, width):
    expected = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    assert_same(rle.encode(mask).resize(height, width), [expected.reshape(height, width)])


def test_cost_depends_on_runs_not_on_pixels():
    """A mask of 10^10 pixels, too large for a bitmap."""
    side = 100_000
    runs = rle.from_kaggle([f"{side * 49_940 + 1} {side * 20} {side * 80_000 + 50_001} 1000"], [side], [side])
    assert runs.boxes().tolist() == [[49_940, 0, 30_061, side]]
    assert runs.resize(1000, 1000).to_kaggle() == ["499001 1000"]  # column 499 shows column 49,950
    assert runs.crop(0, 0, 49_930, 10, 30).to_kaggle() == ["101 200"]


@given(st.lists(bitmaps(), max_size=4), st.integers(-15, 15), st.integers(-15, 15), sides, sides)
@settings(max_examples=50, deadline=None)
def test_paste_and_crop(masks, top, left, height, width):
    expected = []
    for mask in masks:
        canvas = np.zeros((60, 60), bool)
        canvas[20 + top : 20 + top + mask.shape[0], 20 + left : 20 + left + mask.shape[1]] = mask
        expected.append(canvas[20 : 20 + height, 20 : 20 + width])
    runs = many(masks)
    assert_same(runs.paste(top, left, height, width), expected)
    for row in range(len(masks)):
        assert_same(runs.crop(row, -top, -left, height, width), [expected[row]])


@given(bitmaps(), *[st.integers(0, 5)] * 4)
@settings(max_examples=40, deadline=None)
def test_a_window_is_encoded_where_it_lies(bitmap, top, left, below, right):
    whole = np.pad(bitmap, [(top, below), (left, right)])
    assert_same(rle.encode(bitmap, top, left, whole.shape), [whole])
    nothing = rle.encode(bitmap[:, :0], top, left, whole.shape)
    assert_same(nothing, [np.zeros_like(whole)])


@given(pairs())
@settings(max_examples=20, deadline=None)
def test_compact_masks_are_the_same(chosen):
    first, second = (many([pair[side] for pair in chosen]) for side in (0, 1))
    small = first.compact()
    assert small.starts.dtype == small.lengths.dtype == np.int32
    assert_same(small.union(second), [a | b for a, b in chosen])
    assert_same(small.resize(7, 9), [first.resize(7, 9).decode(row) for row in range(len(chosen))])
    for make in (rle.Runs.to_coco, rle.Runs.to_kaggle, lambda runs: runs.boxes().tolist()):
        assert make(small) == make(first)


@given(st.lists(bitmaps(), min_size=1, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_indexing(masks, data):
    runs, last = many(masks), len(masks) - 1
    rows = data.draw(st.lists(st.integers(0, last), max_size=6))
    assert_same(runs[np.array(rows, int)], [masks[row] for row in rows])
    assert_same(runs[1:], masks[1:])
    assert_same(runs[-1], masks[-1:])
    assert_same(runs[runs.areas() > 3], [mask for mask in masks if mask.sum() > 3])
    assert runs.rows.tolist() == [row for row in range(len(runs)) for _ in runs[row].starts]


def test_the_example_of_the_header():
    bitmap = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]])
    runs = rle.from_kaggle(["2 2 7 1"], [3], [3])
    assert runs.decode(0).tolist() == bitmap.tolist()
    assert rle.encode(bitmap).to_kaggle() == ["2 2 7 1"]
    assert (runs.starts.tolist(), runs.lengths.tolist()) == ([1, 6], [2, 1])
    assert_same(rle.from_coco([{"size": [3, 3], "counts": [1, 2, 3, 1, 2]}]), [bitmap])


def test_zero_masks():
    for runs in (rle.from_kaggle([], [], []), rle.from_coco([]), rle.concatenate([])):
        assert_same(runs, [])
        assert_same(runs.resize(3, 3).paste(0, 0, 2, 2).union(runs), [])
        assert runs.to_coco() == runs.to_kaggle() == []
        assert runs.boxes().shape == (0, 4)


def test_encode_takes_nonzero_pixels():
    values = np.array([[0, 255, 0.5], [-1, 0, 2]])
    assert_same(rle.encode(values), [values != 0])


INVALID = {  # on a mask of 4 x 5
    "1 2 3": "an odd number of values, 3",
    "7": "an odd number of values, 1",
    "1 two": "'two' is not a whole number",
    "1 2.0": "'2.0' is not a whole number",
    "1_0 2": "'1_0' is not a whole number",
    "1 ٢": "'٢' is not a whole number",
    "1,2": "'1,2' is not a whole number",
    "1\t2": "'1\t2' is not a whole number",
    "5-3 1": "'5-3' is not a whole number",
    "- 1": "'-' is not a whole number",
    "1 99999999999999999999 -1 1": "goes past the last pixel",
    "0 2": "the run at 0 starts before pixel 1",
    "-3 5": "the run at -3 starts before pixel 1",
    "3 0": "the run at 3 has length 0",
    "3 -1": "the run at 3 has length -1",
    "20 2": "the run `20 2` goes past the last pixel 20",
    "2 9223372036854775807": "`2 9223372036854775807` goes past the last pixel",
    "99999999999999999999 1": "goes past the last pixel",
    "9 2 3 2": "the run at 3 comes after one that starts later",
    "3 4 5 2": "the run at 5 overlaps the one before",
    "3 4 3 4": "the run at 3 overlaps the one before",
    "1 1 0 1 9 0": "the run at 0 starts before pixel 1",
}


@pytest.mark.parametrize("text", INVALID)
def test_invalid_kaggle_string(text):
    assert list(rle.read_kaggle([text], [4], [5])[1]) == [0]
    with pytest.raises(rle.RunError) as caught:
        rle.from_kaggle(["1 2", "", text, "7"], [4] * 4, [5] * 4)
    assert caught.value.row == 2
    assert INVALID[text] in caught.value.reason
    assert str(caught.value) == f"row 2: {caught.value.reason}"


def test_invalid_strings_are_found_among_valid_ones():
    """Each invalid string gets its own error, whatever stands before it; valid ones get none."""
    strings = [text for faulty in INVALID for text in (faulty, "1 20", "")]
    found = rle.read_kaggle(strings, np.full(len(strings), 4), np.full(len(strings), 5))[1]
    assert sorted(found) == list(range(0, len(strings), 3))
    for row, reason in found.items():
        assert INVALID[strings[row]] in reason
    assert rle.read_kaggle(strings[1:3], [4, 4], [5, 5])[1] == {}


def test_unusual_but_valid_kaggle_strings():
    """Extra spaces; runs that touch; a run over the end of a column."""
    runs = rle.from_kaggle(["  1 2  3 6 ", " ", "", "1 20"], [4] * 4, [5] * 4)
    assert runs.to_kaggle() == ["1 8", "", "", "1 20"]


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "0",
        "5",
        coco(np.ones((4, 6)))["counts"],
        coco(np.ones((4, 5)))["counts"] + "P",
        "0d0a",
        "Oe0",  # -1, 21: the right sum
        [3, 4],
        [-1, 21],
        [0, 25, -5],
        [0, 2**32 + 20],  # 20 in 32 bits
        [0, 2**70],
        [0, 20.0],
        [0, "20"],
        [[0, 20]],
        [],
    ],
)
def test_invalid_coco_counts(counts, monkeypatch):
    sound, wrong = coco(np.ones((4, 5))), {"size": [4, 5], "counts": counts}
    with pytest.raises(rle.RunError, match=r"row 1: the counts should sum to 4 x 5 pixels"):
        rle.from_coco([sound, wrong, sound])
    monkeypatch.setattr(rle, "CHECKED", 2)
    rle.check_coco([sound] * 5)
    with pytest.raises(rle.RunError, match=r"row 3: the counts should sum to 4 x 5 pixels"):
        rle.check_coco([sound, sound, sound, wrong, sound, wrong])


@pytest.mark.parametrize("letter", ["%", "p", "\u00e9"])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_letters_that_coco_has_not_are_of_the_mask_that_has_them(letter, place):
    """They neither end a number nor go on with it: the next mask was blamed, or none."""
    sound = coco(np.ones((4, 5)))
    texts = list(sound["counts"])
    texts.insert(place if place >= 0 else len(texts), letter)
    with pytest.raises(rle.RunError, match=r"row 1: the counts have b'.*', which is no letter of COCO's"):
        rle.from_coco([sound, {**sound, "counts": "".join(texts)}, sound])


@pytest.mark.skipif(not REAL.exists(), reason="the slice of the competition is not on this machine")
def test_real_rows():
    table = pd.read_csv(REAL)
    strings = table["EncodedPixels"].tolist()
    runs = rle.from_kaggle(strings, table["Height"], table["Width"])
    assert runs.to_kaggle() == strings
    found = runs.to_coco()
    assert rle.from_coco(found).to_kaggle() == strings
    boxes, areas = runs.boxes().tolist(), runs.areas().tolist()
    smallest = set(np.argsort(table["Height"] * table["Width"], kind="stable")[:8])  # Pillow takes its time
    for row, (text, height, width) in enumerate(zip(strings, table["Height"], table["Width"], strict=True)):
        flat = np.zeros(height * width, np.uint8)
        numbers = [int(word) for word in text.split()]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            flat[start - 1 : start - 1 + length] = 1
        bitmap = flat.reshape(width, height).T
        expected = coco(bitmap)
        assert found[row] == expected
        assert (boxes[row], areas[row]) == (coco_mask.toBbox(expected).tolist(), coco_mask.area(expected))
        if row in smallest:
            size = [side * 1024 // max(height, width) for side in (height, width)]
            assert_same(runs[row].resize(*size), [pillow(bitmap, *size)])
