"""Padded batches for Keras, of few shapes, prefetched by worker processes.

Keras' own prefetching is not used: `use_multiprocessing` forks a process with TensorFlow or JAX threads in every epoch,
and threads block each other on the GIL; both were slower than no workers, these are faster (benchmarks/batches.py).
loky starts them without fork; they import no Keras, get plain values and live as long as the trainer.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import keras
import numpy as np
import pandas as pd
from joblib.externals.loky import ProcessPoolExecutor

from fashionseg.core import documents, pictures
from fashionseg.core.errors import UserError
from fashionseg.data import augment, repeats, samples, shapes
from fashionseg.data.config import NO_AUGMENTATION, Augment
from fashionseg.data.labels import Labels
from fashionseg.data.samples import MASK_SIDE, Sample, Source

AHEAD = 3  # batches prefetched after the current one

Batch = dict[str, np.ndarray]


class Pictures(keras.utils.PyDataset):
    """The images of a COCO document, for prediction: batches of images and sizes.

    images: the folder that file_name is relative to; side in pixels. An item is a
    dict of images (B, H, W, 3) uint8 RGB 0..255, padded right and bottom with 127, and sizes (B, 2) int32, height and
    width without padding. The longer of H and W is `side`. Images of about the same aspect share a batch (`shapes`), or
    all are in squares with `square`; the aspects fix which, not the side. The last batch of a shape is filled up with
    others: `records_of` names those that count. workers: processes that prefetch, 0 for none; they and the order of
    calls do not change an item. share: (i, n) for the i-th of n equal parts of each batch alone, as each of n trainers
    takes one; what names a batch's images names them all. Raises UserError without images.
    """

    def __init__(
        self,
        document: dict[str, Any],
        images: str | Path,
        side: int,
        batch_size: int,
        workers: int = 0,
        square: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        super().__init__(workers=1)  # Keras' own; 1 means none
        self.records = document["images"]
        if not self.records:
            raise UserError("the COCO document has no image to make batches of; check the split.")
        self.images = Path(images)
        self.side = side
        self.batch_size = batch_size
        self.processes = workers
        place, parts = share
        self._share = slice(place * batch_size // parts, (place + 1) * batch_size // parts)
        sizes = np.array([[record["height"], record["width"]] for record in self.records])
        fitted = np.array([pictures.fit(*size, side) for size in sizes.tolist()])
        self._groups = np.full(len(sizes), shapes.SQUARE) if square else shapes.groups(sizes)
        self.shapes = {
            group: (side, side) if group == shapes.SQUARE else shapes.shape(fitted[self._groups == group], side)
            for group in np.unique(self._groups).tolist()
        }
        self._plan: list[shapes.Rows] | None = None
        self._under_way: dict[int, list[Future[Any]]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._planned())

    def records_of(self, index: int) -> list[dict[str, Any]]:
        """The records of a batch's first rows; the others only fill it."""
        rows = self._planned()[index]
        return [self.records[image] for image in rows.images[: rows.count]]

    def names_of(self, index: int) -> list[str]:
        """The file names of a batch's images."""
        return [self.records[image]["file_name"] for image in self._planned()[index].images]

    def __getitem__(self, index: int) -> Batch:
        if self.processes:
            return self._batch(index, [future.result() for future in self._prefetched(index)])
        return self._batch(index, [task[0](*task[1:]) for task in self._tasks(index)])

    def _prefetched(self, index: int) -> list[Future[Any]]:
        """The futures of a batch; also submits the AHEAD batches after it."""
        with self._lock:
            for ahead in range(index, min(index + 1 + AHEAD, len(self))):
                if ahead not in self._under_way:
                    pool = _pool(self.processes)
                    self._under_way[ahead] = [pool.submit(*task) for task in self._tasks(ahead)]
            return self._under_way.pop(index)

    def _order(self) -> np.ndarray:
        return np.arange(len(self.records))

    def _planned(self) -> list[shapes.Rows]:
        """The batches of an epoch."""
        if self._plan is None:
            order = pd.Series(self._order())
            before = order.groupby(order).cumcount().to_numpy()
            self._plan = shapes.batches(order.to_numpy(), before, self._groups, self.batch_size)
        return self._plan

    def _chosen(self, index: int) -> tuple[list[int], list[int]]:
        """The images of this share of a batch, and how often each came before in this epoch."""
        rows = self._planned()[index]
        return rows.images[self._share].tolist(), rows.before[self._share].tolist()

    def _tasks(self, index: int) -> list[tuple[Any, ...]]:
        """The function and plain arguments that read each image of a batch."""
        return [self._task(image, before) for image, before in zip(*self._chosen(index), strict=True)]

    def _task(self, image: int, before: int) -> tuple[Any, ...]:
        record = self.records[image]
        return samples.read, self.images / record["file_name"], record["height"], record["width"], self.side

    def _batch(self, index: int, read: list[np.ndarray]) -> Batch:
        group = self._groups[self._planned()[index].images[0]]
        return padded(read, *self.shapes[group])


class Batches(Pictures):
    """The images of a COCO document with their instances, for training and validation.

    Adds to an item: boxes (B, N, 4) float32 x1 y1 x2 y2 in padded pixels, x2 = x1 + width; classes (B, N) int32,
    0 = none, else index in the document's categories + 1; masks (B, N, M, M) uint8 0 or 1, each cropped to its box,
    M = MASK_SIDE; with `attributes` also attributes (B, N, A) uint8 0 or 1 in the document's order. N is `instances`:
    the largest are kept, `dropped` counts the others in the document. `tiny` counts instances left out because they
    have fewer than MIN_AREA pixels at this side. An image may have none. raw: where `pictures.originals` finds
    the images at full size, from which those are read that the augmentation enlarges; else they are blurred.

    (seed, epoch) fixes the order if `shuffle`, (seed, epoch, image) the augmentation. With a `repeat_threshold` above 0
    images of rare classes come more than once per epoch (`repeats`), augmented differently each time; the number of
    batches is the same in every epoch. Keras does not pass the epoch to a dataset: set `epoch` before each.
    """

    def __init__(
        self,
        document: dict[str, Any],
        images: str | Path,
        side: int,
        batch_size: int,
        instances: int,
        attributes: bool = False,
        augmentation: Augment = NO_AUGMENTATION,
        seed: int = 0,
        shuffle: bool = False,
        repeat_threshold: float = 0.0,
        workers: int = 0,
        square: bool = False,
        share: tuple[int, int] = (0, 1),
        raw: str | Path | None = None,
    ):
        super().__init__(document, images, side, batch_size, workers, square=square, share=share)
        self.originals = pictures.originals(raw) if raw and max(augmentation.scale) > 1 else None
        self.instances = instances
        self.augmentation = augmentation
        augment.policy(augmentation.imgaug, seed)  # raises here rather than in a worker
        self.seed = seed
        self.shuffle = shuffle
        self._epoch = 0
        truth = documents.by_image(document["annotations"], document)
        self._truth = [truth[record["id"]] for record in self.records]
        self.labels = Labels.of(document)
        self.attributes = attributes
        large = [self._large(record, of_image) for record, of_image in zip(self.records, self._truth, strict=True)]
        classes = [{annotation["category_id"] for annotation in of_image} for of_image in self._truth]
        self._repeats = repeats.factors(classes, repeat_threshold)
        self.tiny = sum(map(len, self._truth)) - sum(large)
        self.dropped = sum(max(0, count - instances) for count in large)

    def _large(self, record: dict[str, Any], of_image: list[dict[str, Any]]) -> int:
        """Number of instances of an image that are large enough before augmentation."""
        scale = self.side / max(record["height"], record["width"])
        return sum(annotation["area"] * scale**2 >= samples.MIN_AREA for annotation in of_image)

    @property
    def epoch(self) -> int:
        """The epoch, from 0; setting it changes order and augmentation."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        with self._lock:
            for future in chain(*self._under_way.values()):
                future.cancel()
            self._under_way.clear()
            self._epoch = epoch
            self._plan = None

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return super()._order()
        counts, random = np.ones(len(self.records), int), np.random.default_rng([self.seed, self.epoch, 1])
        for group in self.shapes:  # each by itself, so that it has as many batches in every epoch
            counts[self._groups == group] = repeats.counts(self._repeats[self._groups == group], random)
        images = np.repeat(np.arange(len(self.records)), counts)
        return np.random.default_rng([self.seed, self.epoch]).permutation(images)

    def _task(self, image: int, before: int) -> tuple[Any, ...]:
        key = [self.seed, self.epoch, image, *[before] * (before > 0)]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        partner = self._partner(image, before)
        other = None if partner is None else self._source(partner)
        return samples.sample, self._source(image), self.side, self.instances, self.augmentation, seed, other

    def _source(self, image: int) -> Source:
        record, of_image = self.records[image], self._truth[image]
        segmentations, name = [annotation["segmentation"] for annotation in of_image], record["file_name"]
        original = self.originals and self.originals / name
        return Source(self.images / name, record["height"], record["width"], segmentations, original)

    def _partner(self, image: int, before: int) -> int | None:
        """The image whose instances are pasted into this one, if any."""
        random = np.random.default_rng([self.seed, self.epoch, image, before, 1])
        return int(random.integers(len(self.records))) if random.random() < self.augmentation.copy_paste else None

    def _batch(self, index: int, read: list[Sample]) -> Batch:
        batch = super()._batch(index, [sample.image for sample in read])
        shape = len(read), self.instances
        batch["boxes"] = np.zeros((*shape, 4), np.float32)
        batch["classes"] = np.zeros(shape, np.int32)
        batch["masks"] = np.zeros((*shape, MASK_SIDE, MASK_SIDE), np.uint8)
        if self.attributes:
            batch["attributes"] = np.zeros((*shape, len(self.labels.attribute_ids)), np.uint8)
        for row, (image, before, sample) in enumerate(zip(*self._chosen(index), read, strict=True)):
            partner = self._partner(image, before)
            instances = self._truth[image] + ([] if partner is None else self._truth[partner])
            truth = [instances[i] for i in sample.kept]
            count = len(truth)
            batch["boxes"][row, :count] = sample.boxes
            batch["classes"][row, :count] = self.labels.classes([one["category_id"] for one in truth])
            batch["masks"][row, :count] = sample.masks
            if self.attributes:
                batch["attributes"][row, :count] = self.labels.multi_hot([one["attribute_ids"] for one in truth])
        return batch


class Ahead(keras.utils.PyDataset):
    """The same batches, each put together by the thread while the device is at the one before. What takes them in
    their order waits for a step's numbers before it asks for the next batch, Keras' `fit` on JAX, too."""

    def __init__(self, batches: Sequence[Any], thread: ThreadPoolExecutor):
        super().__init__(workers=1)
        self.batches = batches
        self.thread = thread
        self.coming: dict[int, Future[Any]] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        for wanted in (index, index + 1)[: len(self) - index]:
            if wanted not in self.coming:
                self.coming[wanted] = self.thread.submit(self.batches.__getitem__, wanted)
        return self.coming.pop(index).result()


def padded(read: Sequence[np.ndarray], height: int, width: int | None = None) -> Batch:
    """A batch of images (B, height, width, 3), by default squares, and sizes from images (h, w, 3) that are no
    larger."""
    images = np.full((len(read), height, width or height, 3), augment.GREY, np.uint8)
    for whole, image in zip(images, read, strict=True):
        whole[: image.shape[0], : image.shape[1]] = image
    return {"images": images, "sizes": np.array([image.shape[:2] for image in read], np.int32)}


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """The worker processes, shared by all datasets of this process."""
    return ProcessPoolExecutor(workers, initializer=samples.prepare_worker, initargs=(os.getpid(),))
