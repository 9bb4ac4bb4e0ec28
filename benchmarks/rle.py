"""Masks as runs compared with masks as bitmaps: the same work, in one run, on masks like those of the competition.

Run as `python benchmarks/rle.py`. Both must give the same result; then each is timed, best of several rounds.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from fashionseg.core import rle

HEIGHT, WIDTH = 3000, 2000
RUNS = 700  # a mask; real rows of images of this size have some hundreds
BATCH = 100  # masks
BITMAPS = 8  # masks that are done as bitmaps in a round
ROUNDS = 5
SIDE = 1024  # long side of the submission's grid


def strings(count: int) -> list[str]:
    """EncodedPixels of garments: one run a column, edges as rough as in real rows (1.4 letters a COCO count)."""
    random = np.random.default_rng(0)
    wave = np.sin(np.arange(RUNS) / 100)
    texts = []
    for _ in range(count):
        columns = random.integers(0, WIDTH - RUNS) + np.arange(RUNS)
        tops, lengths = (
            (800 + 300 * wave + random.integers(0, 25, RUNS)).astype(int),
            700 + random.integers(0, 25, RUNS),
        )
        texts.append(" ".join(np.stack([columns * HEIGHT + tops + 1, lengths], axis=1).ravel().astype(str)))
    return texts


def drawn(text: str, height: int, width: int) -> np.ndarray:
    """The usual decoder: a bitmap (height, width) uint8, columns in memory as pycocotools wants them."""
    numbers = np.array(text.split(), dtype=np.int64)
    flat = np.zeros(height * width, np.uint8)
    for start, length in zip((numbers[::2] - 1).tolist(), numbers[1::2].tolist(), strict=True):
        flat[start : start + length] = 1
    return flat.reshape(width, height).T


def described(coco: dict) -> tuple[list[int], str, int, list[int]]:
    box = coco_mask.toBbox(coco).astype(int).tolist()
    return coco["size"], coco["counts"].decode(), int(coco_mask.area(coco)), box


def convert_bitmaps(rows: list[tuple[str, int, int]]) -> list[tuple]:
    """Rows are EncodedPixels, height, width."""
    return [described(coco_mask.encode(drawn(*row))) for row in rows]


def convert_runs(rows: list[tuple[str, int, int]]) -> list[tuple]:
    runs = rle.from_kaggle(*zip(*rows, strict=True))
    parts = zip(runs.to_coco(), runs.areas().tolist(), runs.boxes().tolist(), strict=True)
    return [(coco["size"], coco["counts"], area, box) for coco, area, box in parts]


def grid(height: int, width: int) -> tuple[int, int]:
    """Height and width with the long side at SIDE, as a submission has them."""
    return height * SIDE // max(height, width), width * SIDE // max(height, width)


def resize_bitmaps(cocos: list[dict]) -> list[str]:
    small = (
        cv2.resize(coco_mask.decode(coco), grid(*coco["size"])[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for coco in cocos
    )
    return [coco_mask.encode(np.asfortranarray(mask))["counts"].decode() for mask in small]


def resize_runs(cocos: list[dict]) -> list[str]:
    resized = rle.from_coco(cocos).resize(*grid(HEIGHT, WIDTH))
    return [coco["counts"] for coco in resized.to_coco()]


def milliseconds(work: Callable[[list], list], masks: list) -> float:
    """CPU time of a mask, best of some rounds, so that other programs on the machine do not count."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work(masks)
        best = min(best, time.process_time() - began)
    return best / len(masks) * 1e3


def main() -> None:
    cv2.setNumThreads(1)
    rows = [(text, HEIGHT, WIDTH) for text in strings(BATCH)]
    cocos = rle.from_kaggle(*zip(*rows, strict=True)).to_coco()
    table = Table("a mask, milliseconds", title=f"{HEIGHT} x {WIDTH} pixels, {RUNS} runs a mask, {BATCH} masks at once")
    for name in ("bitmaps", "runs", "times as fast", "target"):
        table.add_column(name, justify="right")
    for name, bitmaps, runs, masks, target in (
        ("Kaggle string to COCO string, area, box", convert_bitmaps, convert_runs, rows, 12),
        (f"COCO string to long side {SIDE}", resize_bitmaps, resize_runs, cocos, 10),
    ):
        assert bitmaps(masks[:BITMAPS]) == runs(masks[:BITMAPS]), f"{name}: the results differ"
        slow, fast = milliseconds(bitmaps, masks[:BITMAPS]), milliseconds(runs, masks)
        table.add_row(name, f"{slow:.2f}", f"{fast:.3f}", f"{slow / fast:.1f}", str(target))
    Console().print(table)


if __name__ == "__main__":
    main()
