"""Run-length algebra: what one does with masks, done on their runs, a whole file at a time, without a bitmap.

A `Runs` holds N masks as columns of NumPy numbers. Pixels are counted down the columns, as Kaggle and COCO do. Three
primitives carry the rest: runs laid on one line end to end (set operations), runs cut at the columns' ends (resize,
crop, paste, flip), and the alternating counts of COCO.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Coco = dict[str, Any]  # {"size": [height, width], "counts": str | bytes | list[int]}


class RunError(ValueError):
    """Run lengths that are no mask: `row` counts from 0 in what was given, `reason` says what is wrong."""

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row}: {reason}")
        self.row = row
        self.reason = reason


@dataclass(frozen=True)
class Runs:
    """N binary masks. Runs of mask i are rows offsets[i]:offsets[i + 1]: sorted, disjoint, not touching.

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
        """Some of the masks: one by its number, a slice, an array of numbers or of bools."""
        rows = np.atleast_1d(np.arange(len(self))[chosen])
        counts = np.diff(self.offsets)[rows]
        offsets = _offsets(counts)
        runs = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return Runs(self.starts[runs], self.lengths[runs], offsets, self.heights[rows], self.widths[rows])

    @property
    def rows(self) -> np.ndarray:
        """(R,) the mask each run belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels."""
        total = np.concatenate([[0], np.cumsum(self.lengths)])
        return total[self.offsets[1:]] - total[self.offsets[:-1]]

    def boxes(self) -> np.ndarray:
        """(N, 4) int64 x, y, width, height; zeros for an empty mask. As pycocotools.mask.toBbox."""
        boxes = np.zeros((len(self), 4), np.int64)
        filled = np.flatnonzero(np.diff(self.offsets))
        if not len(filled):
            return boxes
        heights = self.heights[self.rows]
        first, top = np.divmod(self.starts, heights)
        last, bottom = np.divmod(self.starts + self.lengths - 1, heights)
        within = first == last
        begin = self.offsets[filled]
        x = np.minimum.reduceat(first, begin)
        y = np.minimum.reduceat(np.where(within, top, 0), begin)
        right = np.maximum.reduceat(last, begin)
        lowest = np.maximum.reduceat(np.where(within, bottom, heights - 1), begin)
        boxes[filled] = np.stack([x, y, right - x + 1, lowest - y + 1], axis=1)
        return boxes

    def to_kaggle(self) -> list[str]:
        """`start length` pairs from 1; runs end at the columns' ends, as in the competition's files."""
        rows, columns, top, bottom = _columns(self)
        pairs = np.stack([columns * self.heights[rows] + top + 1, bottom - top], axis=1)
        words = pairs.astype(str).ravel().tolist()
        offsets = _offsets(2 * np.bincount(rows, minlength=len(self)))
        return [" ".join(words[begin:end]) for begin, end in itertools.pairwise(offsets)]

    def to_coco(self) -> list[Coco]:
        """COCO's compressed run lengths, byte for byte those of pycocotools."""
        counts, offsets = _counts(self)
        text, ends = _compress(counts, offsets)
        begins = np.concatenate([[0], ends[:-1]])
        sizes = np.stack([self.heights, self.widths], axis=1).tolist()
        return [
            {"size": size, "counts": text[begin:end]}
            for size, begin, end in zip(sizes, begins.tolist(), ends.tolist(), strict=True)
        ]

    def decode(self, row: int) -> np.ndarray:
        """The bitmap (height, width) uint8 of one mask."""
        chosen = self[row]
        height, width = int(chosen.heights[0]), int(chosen.widths[0])
        edges = np.zeros(height * width + 1, np.int8)
        edges[chosen.starts] = 1
        edges[chosen.starts + chosen.lengths] = -1
        return np.cumsum(edges[:-1], dtype=np.int8).astype(np.uint8).reshape(width, height).T

    def resize(self, heights: np.ndarray, widths: np.ndarray) -> "Runs":
        """Each mask at another size (N,), nearest neighbour at pixel centres, bit for bit Pillow's NEAREST.

        Pixel j of n shows pixel floor((j + 1/2) m / n) of m. OpenCV's INTER_NEAREST_EXACT is the same but for ties,
        its plain INTER_NEAREST is half a pixel off.
        """
        heights, widths = (np.broadcast_to(np.asarray(v, np.int64), len(self)) for v in (heights, widths))
        rows, columns, top, bottom = _columns(self)
        left = _shown_from(columns, self.widths[rows], widths[rows])
        copies = _shown_from(columns + 1, self.widths[rows], widths[rows]) - left
        shown = np.flatnonzero(copies)
        rows, top, bottom, left, copies = (v[shown] for v in (rows, top, bottom, left, copies))
        top, bottom = (_shown_from(v, self.heights[rows], heights[rows]) for v in (top, bottom))
        repeated = np.arange(copies.sum()) - np.repeat(_offsets(copies)[:-1], copies)
        rows, top, bottom, left = (np.repeat(v, copies) for v in (rows, top, bottom, left))
        return _from_columns(rows, left + repeated, top, bottom, heights, widths)

    def paste(self, top: int, left: int, height: int, width: int) -> "Runs":
        """Each mask laid into an empty one of height x width with its first pixel at (top, left), cut at the edges."""
        rows, columns, y1, y2 = _columns(self)
        columns, y1, y2 = columns + left, np.maximum(y1 + top, 0), np.minimum(y2 + top, height)
        inside = (columns >= 0) & (columns < width)
        size = (np.full(len(self), v, np.int64) for v in (height, width))
        return _from_columns(rows[inside], columns[inside], y1[inside], y2[inside], *size)

    def crop(self, row: int, top: int, left: int, height: int, width: int) -> "Runs":
        """The window of one mask, as one mask of height x width."""
        return self[row].paste(-top, -left, height, width)

    def flip(self) -> "Runs":
        """Each mask mirrored, left to right."""
        rows, columns, top, bottom = _columns(self)
        return _from_columns(rows, self.widths[rows] - 1 - columns, top, bottom, self.heights, self.widths)

    def union(self, other: "Runs") -> "Runs":
        """Pixels of either, mask by mask."""
        return _combine(self, other, np.array([False, True, True, True]))

    def intersection(self, other: "Runs") -> "Runs":
        """Pixels of both, mask by mask."""
        return _combine(self, other, np.array([False, False, False, True]))

    def subtract(self, other: "Runs") -> "Runs":
        """Pixels of this and not of the other, mask by mask."""
        return _combine(self, other, np.array([False, True, False, False]))


def from_kaggle(strings: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> Runs:
    """Masks of EncodedPixels strings: pairs `start length` from 1. Raises RunError for the first faulty one."""
    heights, widths = (np.asarray(v, np.int64) for v in (heights, widths))
    pairs, offsets, faults = _pairs(strings, heights, widths)
    if faults:
        row = min(faults)
        raise RunError(row, faults[row])
    rows = np.repeat(np.arange(len(strings)), np.diff(offsets))
    starts = pairs[:, 0] - 1
    return _joined(rows, starts, starts + pairs[:, 1], heights, widths)


def check_kaggle(strings: Sequence[str], heights: Sequence[int], widths: Sequence[int]) -> dict[int, str]:
    """What is wrong with EncodedPixels strings: the number of each faulty one, from 0, and the reason."""
    return _pairs(strings, *(np.asarray(v, np.int64) for v in (heights, widths)))[2]


def from_coco(rles: Sequence[Coco]) -> Runs:
    """Masks of COCO's run lengths, compressed (str or bytes) or not (lists). Raises RunError for what does not fit."""
    sizes = np.array([rle["size"] for rle in rles], np.int64).reshape(-1, 2)
    heights, widths = sizes[:, 0], sizes[:, 1]
    listed = np.array([isinstance(rle["counts"], list) for rle in rles], bool)
    parts = [np.empty(0, np.int64)] * len(rles)
    texts = [rle["counts"] for rle, is_list in zip(rles, listed, strict=True) if not is_list]
    for row, part in zip(np.flatnonzero(~listed), _decompress(texts), strict=True):
        parts[row] = part
    for row in np.flatnonzero(listed):
        parts[row] = np.array(rles[row]["counts"], np.int64)
    counts = np.concatenate(parts) if parts else np.empty(0, np.int64)
    offsets = _offsets([len(part) for part in parts])
    rows = np.repeat(np.arange(len(rles)), np.diff(offsets))
    total = np.concatenate([[0], np.cumsum(counts)])
    sums = total[offsets[1:]] - total[offsets[:-1]]
    negative = np.zeros(len(rles), bool)
    negative[rows[counts < 0]] = True
    if len(wrong := np.flatnonzero((sums != heights * widths) | negative)):
        row = int(wrong[0])
        raise RunError(row, f"the counts cover {sums[row]} pixels of {heights[row]} x {widths[row]}")
    filled = (np.arange(len(counts)) - offsets[rows]) % 2 == 1
    rows, begins = rows[filled], (total[:-1] - total[offsets[rows]])[filled]
    return _joined(rows, begins, begins + counts[filled], heights, widths)


def encode(bitmap: np.ndarray) -> Runs:
    """One mask of a bitmap (height, width), bool or numbers where not 0 is the mask."""
    height, width = bitmap.shape
    line = np.zeros(height * width + 2, bool)
    line[1:-1] = (np.asarray(bitmap) != 0).T.ravel()
    edges = np.flatnonzero(line[1:] != line[:-1])
    starts, ends = edges[::2], edges[1::2]
    size = (np.array([v], np.int64) for v in (height, width))
    return Runs(starts, ends - starts, np.array([0, len(starts)]), *size)


def concatenate(batches: Sequence[Runs]) -> Runs:
    """All masks of several batches, in order."""
    if not batches:
        return Runs(*(np.empty(0, np.int64),) * 2, np.zeros(1, np.int64), *(np.empty(0, np.int64),) * 2)
    starts, lengths, heights, widths = (
        np.concatenate([getattr(runs, name) for runs in batches]) for name in ("starts", "lengths", "heights", "widths")
    )
    counts = np.concatenate([np.diff(runs.offsets) for runs in batches])
    return Runs(starts, lengths, _offsets(counts), heights, widths)


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])


def _joined(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> Runs:
    """Runs of sorted, disjoint intervals, empty ones dropped and touching ones made one."""
    if not (kept := ends > starts).all():
        rows, starts, ends = rows[kept], starts[kept], ends[kept]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (starts[1:] != ends[:-1])
    last = np.ones(len(rows), bool)
    last[:-1] = first[1:]
    starts = starts[first]
    counts = np.bincount(rows[first], minlength=len(heights))
    return Runs(starts, ends[last] - starts, _offsets(counts), heights, widths)


def _columns(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs cut at the columns' ends: the mask, the column and the rows [top, bottom) of each piece, in order."""
    rows = runs.rows
    heights = runs.heights[rows]
    first, top = np.divmod(runs.starts, heights)
    last, bottom = np.divmod(runs.starts + runs.lengths - 1, heights)
    bottom += 1
    pieces = last - first + 1
    if (pieces == 1).all():
        return rows, first, top, bottom
    begins = _offsets(pieces)
    run = np.repeat(np.arange(len(rows)), pieces)
    piece = np.arange(begins[-1]) - begins[run]
    return (
        rows[run],
        first[run] + piece,
        np.where(piece == 0, top[run], 0),
        np.where(piece == pieces[run] - 1, bottom[run], heights[run]),
    )


def _from_columns(rows, columns, top, bottom, heights, widths) -> Runs:
    """The inverse of `_columns`; pieces of a mask may come in any order but do not overlap."""
    starts = columns * heights[rows] + top
    place = starts + _bases(heights, widths)[rows]
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place, kind="stable")
        rows, starts, top, bottom = rows[order], starts[order], top[order], bottom[order]
    return _joined(rows, starts, starts + bottom - top, heights, widths)


def _shown_from(edges: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The first of `new` pixels that shows pixel `edges` of `old` or a later one; all (R,), equal sizes adjoin."""
    first = np.empty(len(edges), np.int64)
    changes = np.flatnonzero((old[1:] != old[:-1]) | (new[1:] != new[:-1])) + 1
    bounds = [0, *changes.tolist(), len(edges)]
    for begin, end in itertools.pairwise(bounds):
        if begin < end:
            first[begin:end] = np.searchsorted(_nearest(int(old[begin]), int(new[begin])), edges[begin:end])
    return first


@lru_cache(maxsize=1024)
def _nearest(old: int, new: int) -> np.ndarray:
    """(new,) the pixel of `old` that each pixel shows, with Pillow's rounding: it adds up steps in float64."""
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.cumsum(steps).astype(np.int64)


def _bases(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Where each mask begins when all are laid on one line, a pixel apart so that none touches the next."""
    return _offsets(heights * widths + 1)[:-1]


def _combine(first: Runs, second: Runs, kept: np.ndarray) -> Runs:
    """Set operation mask by mask; kept[s] for the states 0 neither, 1 first alone, 2 second alone, 3 both."""
    if not (np.array_equal(first.heights, second.heights) and np.array_equal(first.widths, second.widths)):
        raise ValueError(f"masks of different sizes. Received: {len(first)} and {len(second)} masks")
    bases = _bases(first.heights, first.widths)
    begins = [runs.starts + bases[runs.rows] for runs in (first, second)]
    ends = [begin + runs.lengths for begin, runs in zip(begins, (first, second), strict=True)]
    edges = np.concatenate([begins[0], ends[0], begins[1], ends[1]])
    steps = np.repeat([1, -1, 2, -2], [len(begins[0]), len(ends[0]), len(begins[1]), len(ends[1])])
    order = np.argsort(edges, kind="stable")
    edges, states = edges[order], np.cumsum(steps[order])
    inside = np.flatnonzero(kept[states[:-1]])
    starts, ends = edges[inside], edges[inside + 1]
    rows = np.searchsorted(bases, starts, side="right") - 1
    return _joined(rows, starts - bases[rows], ends - bases[rows], first.heights, first.widths)


def _pairs(strings, heights, widths) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Pairs (P, 2) int64 of all strings, offsets (N + 1,) by string, and the faults by number of the string."""
    words = [text.count(" ") + 1 if text else 0 for text in strings]
    numbers = _numbers(" ".join(strings))
    faults: dict[int, str] = {}
    if numbers is None or len(numbers) != sum(words) or any(n % 2 for n in words):
        parts = [_numbers(text) for text in strings]
        for row, part in enumerate(parts):
            if part is None:
                faults[row] = f"'{_first_odd_word(strings[row])}' is no whole number"
            elif len(part) % 2:
                faults[row] = f"an odd number of values, {len(part)}; expected pairs of start and length"
            if row in faults:
                parts[row] = np.empty(0, np.int64)
        words = [len(part) for part in parts]
        numbers = np.concatenate(parts) if parts else np.empty(0, np.int64)
    pairs = numbers.reshape(-1, 2)
    offsets = _offsets(words) // 2
    rows = np.repeat(np.arange(len(strings)), np.diff(offsets))
    starts, lengths = pairs.T
    ends = starts + lengths
    follows = np.zeros(len(rows), bool)
    follows[1:] = rows[1:] == rows[:-1]
    early = follows.copy()
    early[1:] &= starts[1:] < ends[:-1]
    pixels = (heights * widths)[rows]
    for run in np.flatnonzero((starts < 1) | (lengths < 1) | (ends - 1 > pixels) | early)[::-1]:
        row, start, length = int(rows[run]), int(starts[run]), int(lengths[run])
        if start < 1:
            reason = f"a run starts at {start}; pixels count from 1"
        elif length < 1:
            reason = f"the run at {start} has length {length}; expected 1 or more"
        elif start + length - 1 > pixels[run]:
            reason = (
                f"the run `{start} {length}` goes past the last pixel {pixels[run]} of {heights[row]} x {widths[row]}"
            )
        elif start < starts[run - 1]:
            reason = f"runs are not sorted: {start} comes after {starts[run - 1]}"
        else:
            reason = f"the run at {start} overlaps the one before, `{starts[run - 1]} {lengths[run - 1]}`"
        faults[row] = reason
    return pairs, offsets, dict(sorted(faults.items()))


def _numbers(text: str) -> np.ndarray | None:
    """All whole numbers of a text, or None where there is anything else."""
    raw = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    digits = raw - np.uint8(48) < 10
    if not (digits | (raw == 32)).all():
        try:
            return np.array(text.split(), np.int64)
        except (ValueError, OverflowError):
            return None
    return np.fromstring(text, np.int64, sep=" ") if digits.any() else np.empty(0, np.int64)


def _first_odd_word(text: str) -> str:
    return next(word for word in text.split() if _numbers(word) is None)


def _counts(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """COCO's alternating counts (gap, run, gap, run, ...) of all masks, and offsets (N + 1,) by mask."""
    number = np.diff(runs.offsets)
    ends = runs.starts + runs.lengths
    before = np.zeros(len(ends), np.int64)
    before[1:] = ends[:-1]
    filled = np.flatnonzero(number)
    before[runs.offsets[filled]] = 0
    covered = np.zeros(len(runs), np.int64)
    covered[filled] = ends[runs.offsets[filled + 1] - 1]
    rest = runs.heights * runs.widths - covered
    offsets = _offsets(2 * number + (rest > 0))
    counts = np.empty(offsets[-1], np.int64)
    place = 2 * np.arange(len(ends)) + np.repeat(offsets[:-1] - 2 * runs.offsets[:-1], number)
    counts[place] = runs.starts - before
    counts[place + 1] = runs.lengths
    counts[offsets[1:][rest > 0] - 1] = rest[rest > 0]
    return counts, offsets


def _compress(counts: np.ndarray, offsets: np.ndarray) -> tuple[str, np.ndarray]:
    """pycocotools' text: from the fourth count on the difference to the one two before, five bits a letter, low first.

    Returns the texts of all masks in one and where each ends.
    """
    place = np.arange(len(counts)) - np.repeat(offsets[:-1], np.diff(offsets))
    values = counts.copy()
    later = np.flatnonzero(place > 2)
    values[later] -= counts[later - 2]
    letters = np.ones(len(values), np.int64)
    extent = np.where(values < 0, ~values, values)
    bound = 16
    while (more := extent >= bound).any():
        letters += more
        bound *= 32
    begins = _offsets(letters)
    text = np.empty(begins[-1], np.uint8)
    open_ = np.arange(len(values))
    for letter in range(int(letters.max(initial=0))):
        open_ = open_[letters[open_] > letter]
        more = letters[open_] > letter + 1
        text[begins[open_] + letter] = ((values[open_] >> 5 * letter) & 31) + 32 * more + 48
    return text.tobytes().decode("ascii"), begins[offsets[1:]]


def _decompress(texts: Sequence[str | bytes]) -> list[np.ndarray]:
    """The counts of each text; the inverse of `_compress`."""
    raw = b"".join(text.encode("ascii") if isinstance(text, str) else text for text in texts)
    if not raw:
        return [np.empty(0, np.int64) for _ in texts]
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    letter = np.arange(len(codes)) - np.repeat(begins, ends - begins + 1)
    values = np.add.reduceat((codes & 31) << 5 * letter, begins)
    negative = (codes[ends] & 16) > 0
    values[negative] -= np.int64(1) << 5 * (letter[ends[negative]] + 1)
    offsets = np.searchsorted(ends, _offsets([len(text) for text in texts]))
    place = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    for parity, first in ((1, 1), (0, 2)):
        chain = np.flatnonzero((place % 2 == parity) & (place >= first))
        sums = np.cumsum(values[chain])
        heads = np.flatnonzero(place[chain] == first)
        base = np.concatenate([[0], sums])[heads]
        values[chain] = sums - np.repeat(base, np.diff(np.append(heads, len(chain))))
    return np.split(values, offsets[1:-1])
