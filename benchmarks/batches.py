"""How batches are best made: `python benchmarks/batches.py [side]`.

1. Masks through augmentation: each within its box by the drawn affine map (ours), against imgaug's own stack of
   segmentation maps. 2. Reading ahead: our worker processes against none, Keras' threads and Keras' forked processes.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from imgaug.augmentables.segmaps import SegmentationMapsOnImage
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter  # what fit reads through

from fashionseg import params
from fashionseg.core import rle
from fashionseg.data import augment
from fashionseg.data.batches import Batches
from fashionseg.data.config import NO_AUGMENTATION

PICTURES, INSTANCES, WORKERS, EPOCHS = 32, 10, 2, 6
STANDARD = params.load("augment").augment


def competition(folder: Path, side: int) -> dict:
    """Pictures of `side` x 3/4 side with annotations of four times that, as the real ones."""
    generator = np.random.default_rng(0)
    document = {"images": [], "annotations": [], "categories": [{"id": 0, "name": "blob"}]}
    height, width = 4 * side, 3 * side
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for number in range(PICTURES):
        picture = cv2.resize(generator.integers(0, 256, (12, 9, 3), np.uint8), (side * 3 // 4, side))
        cv2.imwrite(str(folder / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        document["images"].append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        for cy, cx, ry, rx in generator.uniform((0.2, 0.2, 0.03, 0.03), (0.8, 0.8, 0.3, 0.3), (INSTANCES, 4)):
            mask = ((y / height - cy) / ry) ** 2 + ((x / width - cx) / rx) ** 2 < 1 + 0.2 * np.sin(x / 9) * np.sin(
                y / 7
            )
            (segmentation,) = rle.encode(mask).to_coco()
            document["annotations"].append(
                {"image_id": number, "category_id": 0, "segmentation": segmentation, "area": int(mask.sum())}
            )
    return document


def milliseconds(work: Callable[[int], object], times: int) -> float:
    """Processor time a call, which other programs on the machine disturb least."""
    work(0)
    began = time.process_time()
    for number in range(times):
        work(number)
    return (time.process_time() - began) / times * 1e3


def masks_through_augmentation(side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side * 3 // 4, 3), np.uint8)
    box = np.ones((side // 3, side // 4), np.uint8)
    patches = [augment.Patch(k, 2 * k, box) for k in range(INSTANCES)]
    stack = np.zeros((*image.shape[:2], INSTANCES), np.uint8)
    for k in range(INSTANCES):
        stack[2 * k : 2 * k + side // 3, k : k + side // 4, k] = 1
    ours = milliseconds(lambda seed: augment.apply(augment.policy(STANDARD.imgaug, seed), image, patches), 40)
    theirs = milliseconds(
        lambda seed: augment.policy(STANDARD.imgaug, seed)(
            image=image, segmentation_maps=SegmentationMapsOnImage(stack, image.shape)
        ),
        40,
    )
    print(
        f"augmentation with {INSTANCES} masks: {ours:.1f} ms by patches, {theirs:.1f} ms as segmentation maps: ", end=""
    )
    print(f"{theirs / ours:.1f} times")


def per_sample(document: dict, folder: Path, side: int) -> None:
    for name, augmentation in {
        "none": NO_AUGMENTATION,
        "as in params.yaml": STANDARD,
        "with large-scale jitter": replace(STANDARD, scale=[0.1, 2.0]),
        "with copy-paste": replace(STANDARD, copy_paste=1.0),
    }.items():
        batches = Batches(document, folder, side, 1, 40, augmentation=augmentation)
        print(f"a sample, augmentation {name}: {milliseconds(batches.__getitem__, PICTURES - 1):.1f} ms in one process")


def reading_ahead(document: dict, folder: Path, side: int) -> None:
    def epoch(workers: int = 0, keras_workers: int = 1, processes: bool = False) -> float:
        batches = Batches(document, folder, side, 2, 40, augmentation=STANDARD, workers=workers)
        batches.workers, batches.use_multiprocessing = keras_workers, processes
        seconds = []
        for batches.epoch in range(EPOCHS):  # the first starts the workers, other programs disturb some
            adapter = PyDatasetAdapter(batches)
            began = time.perf_counter()
            adapter.on_epoch_begin()
            for _ in adapter.get_numpy_iterator():
                pass
            adapter.on_epoch_end()
            seconds.append(time.perf_counter() - began)
        return min(seconds) / PICTURES * 1e3

    alone = epoch()
    print(f"an epoch, a picture: {alone:.1f} ms in one process")
    for name, options in {
        "our worker processes": {"workers": WORKERS},
        "Keras' threads": {"keras_workers": WORKERS},
        "Keras' forked processes": {"keras_workers": WORKERS, "processes": True},
    }.items():
        taken = epoch(**options)
        print(f"  {taken:.1f} ms with {WORKERS} of {name}: {alone / taken:.2f} times as fast")


if __name__ == "__main__":
    logging.disable()
    cv2.setNumThreads(0)
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    masks_through_augmentation(side)
    with tempfile.TemporaryDirectory() as folder:
        document = competition(Path(folder), side)
        per_sample(document, Path(folder), side)
        reading_ahead(document, Path(folder), side)
