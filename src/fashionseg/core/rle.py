"""Binary masks as run lengths (RLE): read, written, resized and combined without bitmaps.

Kaggle's EncodedPixels are pairs `start length`. Pixels count from 1, down the first column, then down the next:

    pixel numbers    mask of "2 2 7 1"    runs of the mask
    1 4 7            . . #                2 2: pixels 2 and 3
    2 5 8            # . .                7 1: pixel 7
    3 6 9            # . .

    from_kaggle(["2 2 7 1"], heights=[3], widths=[3]).decode(0)  # [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    encode(np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]])).to_kaggle()  # ["2 2 7 1"]

A `Runs` holds N masks in flat NumPy arrays, with starts from 0: here starts [1, 6] and lengths [2, 1]. COCO counts the
same pixels as gap, run, gap, run, ..., gap: [1, 2, 3, 1, 2], which `to_coco` compresses to text.

Cost: every operation works on whole arrays; time and memory grow with the number of runs R (times columns, where a run
spans several), not with the number of pixels; set operations and unordered runs are sorted, R log R. Only `encode` and
`decode` touch every pixel. Two layouts do all the work:
- one line: all masks end to end. A set operation sorts the ends of the runs; `_from_line` merges runs that touch.
- columns: runs cut at the ends of the columns. Resizing and pasting are arithmetic on the ends of each piece.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Coco = dict[str, Any]  # {"size": [height, width], "counts": str | bytes | list[int]}
LETTERS = bytes(range(48, 112))  # of COCO's compressed counts
CHECKED = 100  # masks that `check_coco` decodes at once


class RunError(ValueError):
    """Invalid run lengths: `row` is the position in the input, from 0; `reason` says what is wrong."""

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row}: {reason}")
        self.row = row
        self.reason = reason


@dataclass(frozen=True)
class Runs:
    """N binary masks. The runs of mask i are offsets[i]:offsets[i + 1]: sorted, disjoint, not touching.

    starts (R,) int64, first pixel of each run, from 0, down the columns; lengths (R,) int64, positive;
    offsets (N + 1,), heights (N,), widths (N,) int64, pixels.
    """

    starts: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.heights)

    def __getitem__(self, chosen: int | slice | np.ndarray) -> "Runs":
        """Masks by index, slice, or array of indices or bools."""
        rows = np.atleast_1d(np.arange(len(self))[chosen])
        counts = np.diff(self.offsets)[rows]
        which, place = _ragged(counts)
        runs = self.offsets[rows][which] + place
        return Runs(self.starts[runs], self.lengths[runs], _offsets(counts), self.heights[rows], self.widths[rows])

    @property
    def rows(self) -> np.ndarray:
        """(R,) index of the mask that each run belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def compact(self) -> "Runs":
        """The same masks in half the memory: starts and lengths int32, for masks of fewer than 2^31 pixels."""
        return replace(self, starts=self.starts.astype(np.int32), lengths=self.lengths.astype(np.int32))

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels."""
        return np.diff(_offsets(self.lengths)[self.offsets])

    def boxes(self) -> np.ndarray:
        """(N, 4) int64 x, y, width, height; zeros for an empty mask. As pycocotools.mask.toBbox."""
        rows, columns, top, bottom = _columns(self)
        first, last = np.flatnonzero(np.diff(rows, prepend=-1)), np.flatnonzero(np.diff(rows, append=-1))
        x, y = columns[first], np.minimum.reduceat(top, first)
        right, below = columns[last] + 1, np.maximum.reduceat(bottom, first)
        boxes = np.zeros((len(self), 4), np.int64)
        boxes[rows[first]] = np.stack([x, y, right - x, below - y], axis=1)
        return boxes

    def to_kaggle(self) -> list[str]:
        """EncodedPixels, one string per mask; the inverse of `from_kaggle`."""
        words = list(map(str, np.stack([self.starts + 1, self.lengths], axis=1).ravel().tolist()))
        return [" ".join(words[begin:end]) for begin, end in itertools.pairwise((2 * self.offsets).tolist())]

    def to_coco(self) -> list[Coco]:
        """COCO's compressed RLE, one {"size": [height, width], "counts": str} per mask, as pycocotools writes it."""
        pixels = self.heights * self.widths
        edges = np.stack([self.starts, self.starts + self.lengths], axis=1).ravel()
        limits = np.stack([np.zeros_like(pixels), pixels], axis=1).ravel()
        # 0, start, end, start, end, ..., pixels: the differences are gap, run, gap, run, ..., gap.
        edges = np.insert(edges, 2 * np.repeat(self.offsets, 2)[1:-1], limits)
        counts = np.diff(edges)
        begins = 2 * (self.offsets[:-1] + np.arange(len(self)))
        ends = begins + 2 * np.diff(self.offsets) + 1
        ends -= counts[ends - 1] == 0  # COCO writes no last gap of 0
        sizes = np.stack([self.heights, self.widths], axis=1).tolist()
        slices = map(slice, begins.tolist(), ends.tolist())
        return _compress([{"size": size, "counts": counts[part]} for size, part in zip(sizes, slices, strict=True)])

    def decode(self, row: int) -> np.ndarray:
        """The bitmap (height, width) uint8 of one mask."""
        mask = self[row]
        height, width = int(mask.heights[0]), int(mask.widths[0])
        edges = np.zeros(height * width + 1, np.int8)
        edges[mask.starts] = 1
        edges[mask.starts + mask.lengths] = -1
        return np.cumsum(edges[:-1], dtype=np.int8).view(np.uint8).reshape(width, height).T

    def resize(self, heights: int | np.ndarray, widths: int | np.ndarray) -> "Runs":
        """Each mask at a new size, nearest neighbour at pixel centres; heights, widths: one for all masks, or (N,).

        Equal to Pillow's NEAREST and OpenCV 5's INTER_NEAREST_EXACT, bit for bit; OpenCV 4 rounds positions to
        1/65536 of a pixel.
        """
        heights, widths = (np.broadcast_to(np.asarray(side, np.int64), len(self)) for side in (heights, widths))
        rows, columns, top, bottom = _columns(self)
        left, right = _first_showing(np.stack([columns, columns + 1]), self.widths[rows], widths[rows])
        run, copy = _ragged(right - left)
        rows, columns = rows[run], left[run] + copy
        top, bottom = _first_showing(np.stack([top, bottom])[:, run], self.heights[rows], heights[rows])
        return _from_columns((rows, columns, top, bottom), heights, widths)

    def paste(self, top: int, left: int, height: int, width: int) -> "Runs":
        """Each mask on an empty mask of height x width, its first pixel at (top, left), clipped at the edges."""
        rows, columns, begin, end = _columns(self)
        columns, begin, end = columns + left, np.maximum(begin + top, 0), np.minimum(end + top, height)
        inside = (columns >= 0) & (columns < width)
        size = (np.full(len(self), side, np.int64) for side in (height, width))
        return _from_columns((rows[inside], columns[inside], begin[inside], end[inside]), *size)

    def crop(self, row: int, top: int, left: int, height: int, width: int) -> "Runs":
        """A window of mask `row`, as one mask of height x width."""
        return self[row].paste(-top, -left, height, width)

    def union(self, other: "Runs") -> "Runs":
        """Pixels of either mask; mask i with the other's mask i."""
        return _combine(self, other, [False, True, True, True])

    def intersection(self, other: "Runs") -> "Runs":
        """Pixels of both masks; mask i with the other's mask i."""
        return _combine(self, other, [False, False, False, True])

    def subtract(self, other: "Runs") -> "Runs":
        """Pixels of this mask that the other lacks; mask i with the other's mask i."""
        return _combine(self, other, [False, True, False, False])

    def elementwise_iou(self, other: "Runs") -> np.ndarray:
        """(N,) float64, intersection over union of mask i with the other's mask i; 0 where both are empty."""
        shared = self.intersection(other).areas()
        return shared / np.maximum(self.areas() + other.areas() - shared, 1)


def from_kaggle(strings: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> Runs:
    """Masks of EncodedPixels strings. Raises RunError for the first invalid string."""
    runs, faults = read_kaggle(strings, heights, widths)
    if faults:
        raise RunError(*min(faults.items()))
    return runs


def read_kaggle(strings: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> tuple[Runs, dict[int, str]]:
    """Masks of EncodedPixels strings, empty ones of the invalid ones, and {index of a string: its first error}."""
    heights, widths = (np.asarray(side, np.int64) for side in (heights, widths))
    pairs, rows, faults = _pairs(strings, heights, widths)
    if faults:
        valid = ~np.isin(rows, list(faults))
        pairs, rows = pairs[valid], rows[valid]
    begins = pairs[:, 0] - 1 + _bases(heights, widths)[rows]
    return _from_line(begins, begins + pairs[:, 1], heights, widths), faults


def from_coco(rles: Sequence[Coco]) -> Runs:
    """Masks of COCO RLE, compressed (str or bytes) or not (lists). Raises RunError for invalid counts."""
    heights, widths = np.array([rle["size"] for rle in rles], np.int64).reshape(-1, 2).T
    for row, (rle, height, width) in enumerate(zip(rles, heights.tolist(), widths.tolist(), strict=True)):
        counts = rle["counts"] if isinstance(rle["counts"], list) else []
        if not all(type(count) is int and 0 <= count <= height * width for count in counts):  # pycocotools would wrap
            raise RunError(row, f"the counts should sum to {height} x {width} pixels, and be whole numbers of pixels")
    compressed = (_compress([rle])[0] if isinstance(rle["counts"], list) else rle for rle in rles)
    texts = [rle["counts"].encode() if isinstance(rle["counts"], str) else rle["counts"] for rle in compressed]
    for row, text in enumerate(texts):
        if foreign := text.translate(None, LETTERS):
            raise RunError(row, f"the counts have {foreign[:1]!r}, which is no letter of COCO's")
    counts, rows, place = _decompress(texts)
    line = _offsets(counts)
    covered = np.diff(line[_offsets(np.bincount(rows, minlength=len(rles)))])
    wrong = covered != heights * widths
    wrong[rows[counts < 0]] = True
    wrong |= np.array([text[-1:] >= b"P" for text in texts], bool)  # truncated: more letters should follow the last
    if wrong.any():
        row = int(wrong.argmax())
        size = f"{heights[row]} x {widths[row]}"
        raise RunError(row, f"the counts should sum to {size} pixels, their sum is {covered[row]}")
    runs = place % 2 == 1
    begins = (line[:-1] + rows)[runs]
    return _from_line(begins, begins + counts[runs], heights, widths)


def check_coco(rles: Sequence[Coco]) -> None:
    """Raises RunError as `from_coco` does, without all runs in memory: those of a competition would take 20 GB."""
    for start in range(0, len(rles), CHECKED):
        try:
            from_coco(rles[start : start + CHECKED])
        except RunError as error:
            raise RunError(start + error.row, error.reason) from None


def encode(bitmap: np.ndarray, top: int = 0, left: int = 0, size: tuple[int, int] | None = None) -> Runs:
    """One mask of a bitmap (height, width), bool or numbers; nonzero pixels belong to the mask.

    size: height and width of the mask, where the bitmap is a window of it with its first pixel at (top, left).
    """
    height, width = size or bitmap.shape
    rows, columns = bitmap.shape
    padded = np.zeros((rows + 2, columns), bool)  # so that a run begins and ends in each column by itself
    padded[1:-1] = bitmap
    # Row by row, as the bitmap lies in memory; sorting the few ends of runs costs less than transposing all pixels.
    row, column = np.divmod(_few_true(padded[1:] != padded[:-1]), max(columns, 1))
    edges = np.sort((left + column) * height + top + row)
    starts, ends = edges.reshape(-1, 2).T
    apart = np.ones(len(starts) + 1, bool)
    apart[1:-1] = starts[1:] != ends[:-1]
    starts, ends = starts[apart[:-1]], ends[apart[1:]]
    return Runs(starts, ends - starts, np.array([0, len(starts)]), np.array([height]), np.array([width]))


def shown(old: int, new: int) -> np.ndarray:
    """(new,) int64, the pixel of a side of `old` pixels that each pixel shows after `Runs.resize` to `new` pixels.

    Pixel j of n shows pixel floor((j + 1/2) m / n) of m. Pillow accumulates float64 steps; where the exact value is an
    integer, its sum may be slightly less and round down. One in five of the competition's sizes has such pixels, so
    this accumulates the same steps.
    """
    steps = np.full(new, old / new)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.int64)


def concatenate(batches: Sequence[Runs]) -> Runs:
    """All masks of several batches, in order."""
    batches = [from_kaggle([], [], []), *batches]  # an empty batch first, so that the list is never empty
    starts, lengths, heights, widths = (
        np.concatenate([getattr(runs, name) for runs in batches]) for name in ("starts", "lengths", "heights", "widths")
    )
    return Runs(starts, lengths, _offsets(np.concatenate([np.diff(runs.offsets) for runs in batches])), heights, widths)


def _few_true(flags: np.ndarray) -> np.ndarray:
    """np.flatnonzero of bools, five times as fast where few are true: eight are looked at together."""
    eights = np.zeros((-(-flags.size // 8), 8), bool)
    eights.ravel()[: flags.size] = flags.ravel()
    some = np.flatnonzero(eights.view(np.int64)[:, 0] != 0)
    place, within = np.nonzero(eights[some])
    return some[place] * 8 + within


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of counts,) row of each element, and its position in the row, where row i has counts[i] elements."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - _offsets(counts)[rows]


def _bases(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(N + 1,) start of each mask on the line; with one pixel between masks, so that their runs never touch."""
    return _offsets(heights * widths + 1)


def _line(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each run on the line."""
    begins = runs.starts + _bases(runs.heights, runs.widths)[runs.rows]
    return begins, begins + runs.lengths


def _from_line(begins: np.ndarray, ends: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> Runs:
    """Runs of disjoint intervals on the line, in any order: sorted, empty ones dropped, touching ones merged."""
    if not (kept := begins < ends).all():
        begins, ends = begins[kept], ends[kept]
    if (begins[1:] < begins[:-1]).any():
        order = np.argsort(begins, kind="stable")
        begins, ends = begins[order], ends[order]
    apart = np.ones(len(begins) + 1, bool)
    apart[1:-1] = begins[1:] != ends[:-1]
    begins, ends = begins[apart[:-1]], ends[apart[1:]]
    bases = _bases(heights, widths)
    offsets = np.searchsorted(begins, bases)
    return Runs(begins - np.repeat(bases[:-1], np.diff(offsets)), ends - begins, offsets, heights, widths)


def _columns(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs cut into pieces at the ends of columns, in order: mask, column, first row and row after the last of each."""
    rows = runs.rows
    heights = runs.heights[rows]
    first, top = np.divmod(runs.starts, heights)
    last, bottom = np.divmod(runs.starts + runs.lengths - 1, heights)
    if (first == last).all():
        return rows, first, top, bottom + 1
    run, piece = _ragged(last - first + 1)
    columns = first[run] + piece
    top = np.where(piece == 0, top[run], 0)
    bottom = np.where(columns == last[run], bottom[run] + 1, heights[run])
    return rows[run], columns, top, bottom


def _from_columns(
    pieces: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], heights: np.ndarray, widths: np.ndarray
) -> Runs:
    """The inverse of `_columns`; pieces may come in any order, touch and be empty."""
    rows, columns, top, bottom = pieces
    bases = _bases(heights, widths)[rows] + columns * heights[rows]
    return _from_line(bases + top, bases + bottom, heights, widths)


def _combine(first: Runs, second: Runs, kept: list[bool]) -> Runs:
    """A set operation on masks i of both; kept: whether to keep pixels in neither, only first, only second, both."""
    if not (np.array_equal(first.heights, second.heights) and np.array_equal(first.widths, second.widths)):
        raise ValueError(f"masks differ in number or size. Received: {len(first)} and {len(second)} masks")
    edges = np.concatenate([*_line(first), *_line(second)])
    steps = np.repeat([1, -1, 2, -2], [len(first.starts)] * 2 + [len(second.starts)] * 2)
    order = np.argsort(edges, kind="stable")
    edges, states = edges[order], np.cumsum(steps[order])
    inside = np.flatnonzero(np.array(kept)[states])  # never the last edge, where the state is 0
    return _from_line(edges[inside], edges[inside + 1], first.heights, first.widths)


def _first_showing(edges: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(K, R) the first of `new` pixels that shows pixel `edges` of `old` pixels or a later one; runs by mask."""
    first = np.empty_like(edges)
    changes = np.flatnonzero((old[1:] != old[:-1]) | (new[1:] != new[:-1])) + 1
    for begin, end in itertools.pairwise([0, *changes.tolist(), len(old)]):
        if begin < end:
            first[:, begin:end] = np.searchsorted(shown(int(old[begin]), int(new[begin])), edges[:, begin:end])
    return first


def _pairs(strings, heights, widths) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """(P, 2) int64 start and length of all runs; (P,) the string of each; {index of the string: its first error}."""
    words = [text.count(" ") + 1 if text else 0 for text in strings]
    numbers = _numbers(" ".join(strings))
    faults: dict[int, str] = {}
    if numbers is None or len(numbers) != sum(words) or any(count % 2 for count in words):
        parts = [_numbers(text) for text in strings]
        for row, (text, part) in enumerate(zip(strings, parts, strict=True)):
            if part is None:
                odd = next(word for word in text.split(" ") if _numbers(word) is None)
                faults[row] = f"'{odd}' is not a whole number"
            elif len(part) % 2:
                faults[row] = f"an odd number of values, {len(part)}; expected pairs of start and length"
        parts = [np.empty(0, np.int64) if row in faults else part for row, part in enumerate(parts)]
        words, numbers = [len(part) for part in parts], np.concatenate(parts)
    pairs = numbers.reshape(-1, 2)
    rows, place = _ragged(np.array(words, np.int64) // 2)
    starts, lengths = pairs.T
    starts_before, lengths_before = np.where(place > 0, np.roll(pairs, 1, axis=0).T, 0)
    pixels = (heights * widths)[rows]
    wrong = {
        "the run at {0} starts before pixel 1": starts < 1,
        "the run at {0} has length {1}": lengths < 1,
        "the run `{0} {1}` goes past the last pixel {2}": lengths - 1 > pixels - starts,
        "the run at {0} comes after one that starts later": starts < starts_before,
        "the run at {0} overlaps the one before": starts - starts_before < lengths_before,
    }
    reason = np.select(list(wrong.values()), range(len(wrong)), -1)
    for run in np.flatnonzero(reason >= 0)[::-1].tolist():  # backwards: the first error of a string stays
        faults[int(rows[run])] = list(wrong)[reason[run]].format(starts[run], lengths[run], pixels[run])
    return pairs, rows, faults


def _numbers(text: str) -> np.ndarray | None:
    """The integers in a text, int64 (clipped), or None if it holds anything but integers and spaces."""
    foreign = text.encode("ascii", "replace").translate(None, b"0123456789 ")
    if foreign.strip(b"-") or (foreign and re.search(r"\S-|-(?!\d)", text)):
        return None
    return np.fromstring(text, np.int64, sep=" ") if text.strip() else np.empty(0, np.int64)


def _compress(rles: list[Coco]) -> list[Coco]:
    """COCO RLE with counts (lists or arrays) compressed to text."""
    rles = [{"size": rle["size"], "counts": np.asarray(rle["counts"], np.int64)} for rle in rles]
    compressed = coco_mask.frPyObjects(rles, 0, 0) if rles else []  # the sizes are in the dictionaries
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in compressed]


def _decompress(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All counts in COCO's compressed texts, the index of each count's text, and its position in the text.

    A letter carries five bits, low bits first; bit 32 says that more letters follow. From the fourth count on the text
    holds the difference to the count two before (pycocotools' rleToString).
    """
    letters = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)
    ends = np.flatnonzero(letters < 32)
    begins = np.concatenate([[0], ends + 1])[: len(ends)]
    sizes = ends - begins + 1
    values = np.where(letters[ends] & 16, np.int64(-1) << 5 * sizes, 0)
    for letter in range(sizes.max(initial=0)):
        longer = np.flatnonzero(sizes > letter)
        values[longer] |= (letters[begins[longer] + letter] & np.int64(31)) << 5 * letter
    offsets = np.searchsorted(ends, _offsets([len(text) for text in texts]))
    rows, place = _ragged(np.diff(offsets))
    for parity in (0, 1):
        chain = (place % 2 == parity) & (place > 0)
        sums = _offsets(np.where(chain, values, 0))
        values = np.where(chain, sums[1:] - np.repeat(sums[offsets[:-1]], np.diff(offsets)), values)
    return values, rows, place
