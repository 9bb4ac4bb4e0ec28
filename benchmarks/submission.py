"""The check of a whole submission compared with the usual check by bitmaps: both find the same errors, in one run.

Run as `python benchmarks/submission.py`. 3,200 images and 25,600 rows, masks as rough as real ones at 1024 pixels.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fashionseg.core import tables
from fashionseg.submit import submission
from fashionseg.submit.config import Submission

IMAGES, INSTANCES, RUNS = 3200, 8, 200
SLOW = 100  # images that are checked by bitmaps
HEIGHT, WIDTH = 1024, 683
PARAMS = Submission(longest_side=1024, square=False, min_area=20, overlap="same_class")


def rows(images: int) -> list[str]:
    """INSTANCES rows an image, each a band of RUNS columns; in every hundredth image two share pixels."""
    random = np.random.default_rng(0)
    lines = []
    for image in range(images):
        for number in range(INSTANCES):
            top = number * 120 - 100 * (number == 1 and image % 100 == 0)
            columns = random.integers(0, WIDTH - RUNS) * (number > 1) + np.arange(RUNS)
            lengths = 100 + random.integers(0, 20, RUNS)
            pairs = np.stack([columns * HEIGHT + top + 1, lengths], axis=1).ravel()
            lines.append(f"{image:032x},{' '.join(map(str, pairs.tolist()))},{1 + number // 2},")
    return lines


def bitmaps(lines: list[str]) -> int:
    """How many rows share a pixel with an earlier one of their image and class."""
    taken: dict[tuple[str, str], np.ndarray] = {}
    faults = 0
    for line in lines:
        image, pixels, class_id, _ = line.split(",")
        bitmap = np.zeros(HEIGHT * WIDTH, bool)
        for start, length in np.array(pixels.split(), int).reshape(-1, 2).tolist():
            bitmap[start - 1 : start - 1 + length] = True
        before = taken.setdefault((image, class_id), np.zeros(HEIGHT * WIDTH, bool))
        faults += bool((before & bitmap).any())
        before |= bitmap
    return faults


def main() -> None:
    document = {
        "images": [{"id": i, "file_name": f"test/{i:032x}.jpg", "height": 3000, "width": 2001} for i in range(IMAGES)],
        "categories": [{"id": i, "name": str(i)} for i in range(46)],
        "attributes": [],
    }
    lines = rows(IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        path.write_text("\n".join([",".join(tables.SUBMITTED), *lines]) + "\n")
        began = time.process_time()
        faults = submission.check(path, document, None, PARAMS)
        fast = (time.process_time() - began) / IMAGES
    began = time.process_time()
    overlapping = bitmaps(lines[: SLOW * INSTANCES])
    slow = (time.process_time() - began) / SLOW
    assert overlapping == SLOW // 100 == len(faults) * SLOW // IMAGES, "the two checks differ"
    table = Table("check of a submission", title=f"{IMAGES} images, {len(lines)} rows of {RUNS} runs")
    for name in ("bitmaps, ms an image", "runs, ms an image", "times as fast", "all, seconds"):
        table.add_column(name, justify="right")
    table.add_row("", f"{slow * 1e3:.1f}", f"{fast * 1e3:.2f}", f"{slow / fast:.1f}", f"{fast * IMAGES:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
