"""Pastes 100 soft masks of 28 x 28 into an image of 3000 x 2000 pixels as COCO RLE: `python benchmarks/paste.py`.

`ours` works within each box and with runs; torchvision makes one float bitmap of the whole image a mask, compares it
with the threshold and encodes it by pycocotools.
"""

import time
import tracemalloc

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from fashionseg.coco import masks as mask_ops
from fashionseg.core import rle

HEIGHT, WIDTH, COUNT, SIDE = 3000, 2000, 100, 28


def ours(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> list[dict]:
    return rle.concatenate(
        [
            mask_ops.paste(mask, [*box[:2], *(box[2:] - box[:2])], height, width, 0.5)[0]
            for mask, box in zip(masks, boxes, strict=True)
        ]
    ).to_coco()


def at_full_size(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> list[dict]:
    canvases = np.zeros((len(masks), height, width), np.float32)
    for canvas, mask, box in zip(canvases, masks, boxes, strict=True):
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (SIDE + 2) / SIDE
        (x1, y1), (x2, y2) = (centre - half).astype(int), (centre + half).astype(int)
        resized = cv2.resize(np.pad(mask, 1), (int(x2 - x1 + 1), int(y2 - y1 + 1)))
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
        canvas[top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    return [
        {"size": [height, width], "counts": coco_mask.encode(np.asfortranarray(c > 0.5))["counts"].decode()}
        for c in canvases
    ]


def measured(method, masks: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """Seconds of CPU time, and peak memory in MB."""
    began = time.process_time()
    method(masks, boxes, HEIGHT, WIDTH)
    seconds = time.process_time() - began
    tracemalloc.start()
    method(masks, boxes, HEIGHT, WIDTH)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return seconds, peak


def main() -> None:
    random = np.random.default_rng(0)
    noise = random.random((COUNT, 7, 7)).astype(np.float32)
    masks = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in noise])
    corners = random.uniform(0, (WIDTH * 0.7, HEIGHT * 0.7), (COUNT, 2))
    boxes = np.concatenate([corners, corners + random.uniform(40, (WIDTH * 0.4, HEIGHT * 0.4), (COUNT, 2))], axis=1)
    assert ours(masks, boxes, HEIGHT, WIDTH) == at_full_size(masks, boxes, HEIGHT, WIDTH)
    (our_time, our_memory), (their_time, their_memory) = (
        measured(method, masks, boxes) for method in (ours, at_full_size)
    )
    print(
        f"ours {our_time:.3f} s, {our_memory:.0f} MB; at full size {their_time:.3f} s, {their_memory:.0f} MB: ", end=""
    )
    print(f"{their_time / our_time:.1f} times faster, {their_memory / our_memory:.0f} times less memory")


if __name__ == "__main__":
    main()
