"""Images in, COCO results out: networks on TTA views (test-time augmentation), masks pasted at the original size."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.progress import track

from fashionseg.coco import masks
from fashionseg.console.device import describe
from fashionseg.core import digests, paths, pictures, rle
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Ahead, Batch, Pictures, padded
from fashionseg.data.labels import Labels
from fashionseg.model.compilation import compile_steps
from fashionseg.model.mask_rcnn import Detector, MaskRCNN
from fashionseg.model.weights import saved
from fashionseg.predict.config import Predict
from fashionseg.predict.fusion import Detections, fuse
from fashionseg.predict.parts import Parts, parts_of

CODE = ("core", "coco", "data", "model", "predict")  # packages that results hang on: those of the deps in dvc.yaml


def load(folder: Path, side: int | None = None) -> tuple[MaskRCNN, Labels]:
    """The trained network of a folder, for images of `side` pixels or those of the training, and its labels. Raises
    UserError as `saved.load`."""
    network, description = saved.load(folder, side)
    return network, Labels.of(description)


@dataclass(frozen=True)
class View:
    """One TTA view: a network, the side of its images in pixels, and whether the image is flipped."""

    detector: Detector
    side: int
    flipped: bool

    def detect(self, batch: Batch) -> list[Detections]:
        """Detections of each image without padding: arrays as named by `MaskRCNN.detect`, flipped back; boxes in shares
        of the image's width and height."""
        images, sizes = batch["images"], batch["sizes"]
        if self.flipped:
            images = images.copy()
            for image, (height, width) in zip(images, sizes, strict=True):
                image[:height, :width] = image[:height, :width][:, ::-1].copy()
        padded_detections = self.detector.predict_on_batch({"images": images, "sizes": sizes})
        padded_detections["boxes"] = padded_detections["boxes"] / sizes[:, None, [1, 0, 1, 0]]
        if self.flipped:
            left, top, right, bottom = np.moveaxis(padded_detections["boxes"], -1, 0)
            padded_detections["boxes"] = np.stack([1 - right, top, 1 - left, bottom], axis=-1)
            padded_detections["masks"] = padded_detections["masks"][..., ::-1]
        real = padded_detections["classes"] > 0
        return [
            {name: values[row][real[row]] for name, values in padded_detections.items()} for row in range(len(images))
        ]


def _detector(network: MaskRCNN, params: Predict) -> Detector:
    detector = Detector(network, params.score, params.nms_iou, params.mask_scores)
    compile_steps(detector)
    return detector


class Predictor:
    """One or more trained networks, each in a folder, on the TTA views of params (scales, flip), fused into one result.

    Calling it on an image (H, W, 3) uint8 RGB gives its COCO results without image_id. Raises UserError where the
    networks have different labels, or where two scales give the same image size.
    """

    def __init__(self, folders: Sequence[Path], params: Predict):
        self.params = params
        self.views = []
        labels_of = {}
        for folder in folders:
            network, labels = load(folder)
            labels_of[folder] = labels, network.roi_heads.attributes == "none"
            try:
                sides = params.sides(network.config.side)
            except ValueError as error:
                raise UserError(f"{error}.") from None
            detector = _detector(network, params)
            for side in sides:
                if network.square and side != detector.network.config.side:
                    detector = _detector(load(folder, side)[0], params)
                self.views += [View(detector, side, flipped) for flipped in (False, True)[: 1 + params.flip]]
        self.labels, without_attributes = labels_of[folders[0]]
        self.detections = self.views[0].detector.network.roi_heads.detections
        for folder in folders[1:]:
            labels, without = labels_of[folder]
            if labels != self.labels:
                raise UserError(f"{folder} was trained on other labels than {folders[0]}; they cannot be fused.")
            if without != without_attributes:
                raise UserError(f"of {folder} and {folders[0]} only one has attributes; they cannot be fused.")

    @property
    def sides(self) -> set[int]:
        """Long sides of the images that the views need, pixels."""
        return {view.side for view in self.views}

    @property
    def square(self) -> bool:
        """Whether one of the networks takes square images alone."""
        return any(view.detector.network.square for view in self.views)

    def detect(self, batches: dict[int, Batch]) -> list[Detections]:
        """The fused detections of each image. batches: the same images by side, for each of `sides`."""
        by_view = [view.detect(batches[view.side]) for view in self.views]
        fused = [fuse(of_image) for of_image in zip(*by_view, strict=True)]
        return [{name: values[: self.detections] for name, values in of_image.items()} for of_image in fused]

    def __call__(self, image: np.ndarray) -> list[dict[str, Any]]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image is (H, W, 3) uint8 RGB. Received: {image.shape} {image.dtype}")
        (found,) = self.detect({side: padded([pictures.resized(image, side)], side) for side in self.sides})
        return coco_results(found, image.shape[:2], self.labels, self.params)


class Subset:
    """The images of a COCO document in batches, and the networks of `folders` that look at them.

    images_for: gives the folder of the images for a view of this side in pixels; workers: processes that read them.
    """

    def __init__(
        self,
        document: dict[str, Any],
        images_for: Callable[[int], Path],
        folders: Sequence[Path],
        params: Predict,
        workers: int,
    ):
        self.params = params
        self.folders = folders
        _check_different(folders)
        self.predictor = Predictor(folders, params)
        square = self.predictor.square
        self.pictures = [
            Pictures(document, images_for(side), side, params.batch_size, workers, square=square)
            for side in self.predictor.sides
        ]

    def __len__(self) -> int:
        return len(self.pictures[0])

    def __getitem__(self, index: int) -> dict[int, Batch]:
        """The images of batch `index` by side, as `Predictor.detect` takes them."""
        return {of_side.side: of_side[index] for of_side in self.pictures}

    def results(self, index: int, of_batch: list[Detections], over: Callable[..., Any] = map) -> list[dict[str, Any]]:
        """The COCO results of batch `index`, from the detections of each of its images; over: as `map`."""

        def of_image(record: dict[str, Any], found: Detections) -> list[dict[str, Any]]:
            size = record["height"], record["width"]
            results = coco_results(found, size, self.predictor.labels, self.params)
            return [{"image_id": record["id"], **result} for result in results]

        return list(chain.from_iterable(over(of_image, self.pictures[0].records_of(index), of_batch)))

    @contextmanager
    def parts(self, target: str | Path) -> Iterator[Parts]:
        """Those of `target`; says how many of them a killed call has left."""
        with parts_of(target, _made_by(self.pictures, self.folders, self.params)) as parts:
            if done := parts.count():
                print(f"{done} of {len(self)} batches are taken over from {parts.folder}")
            yield parts


def predict(
    document: dict[str, Any],
    images_for: Callable[[int], Path],
    folders: Sequence[Path],
    params: Predict,
    target: str | Path,
    *,
    workers: int,
) -> int:
    """Writes COCO results of every image of a COCO document into `target`, at the images' original size, those of an
    image in one place and best first; returns how many.

    images_for: gives the folder of the images for a view of this side in pixels. What a killed call had done of the
    same is not done again. While the network is at a batch the next one is read and the masks of the last are pasted.
    """
    subset = Subset(document, images_for, folders, params, workers)
    print(describe(subset.predictor.views[0].detector.network.dtype_policy.name))
    with (
        subset.parts(target) as parts,
        ThreadPoolExecutor(max(1, workers)) as pool,
        ThreadPoolExecutor(1) as before,
        ThreadPoolExecutor(1) as behind,
    ):
        batches = Ahead(subset, before)

        def finish(index: int, of_batch: list[Detections]) -> None:
            parts.add(index, subset.results(index, of_batch, pool.map))

        finishing = None
        for index in track(range(parts.count(), len(subset)), "predict"):
            of_batch = subset.predictor.detect(batches[index])
            if finishing:
                finishing.result()
            finishing = behind.submit(finish, index, of_batch)
        if finishing:
            finishing.result()
        return parts.join()


def _check_different(folders: Sequence[Path]) -> None:
    """Raises UserError where two folders hold the same network: merged it would count twice."""
    known = {}
    for folder in folders:
        other = known.setdefault(digests.of_files([folder / name for name in paths.NETWORK]), folder)
        if other is not folder:
            raise UserError(
                f"predict.models: {folder} holds the same network as {other}; leave it out, or change the params of "
                "model and train in params.yaml, which `dvc exp run -S` leaves at its values."
            )


def _made_by(pictures: Sequence[Pictures], folders: Sequence[Path], params: Predict) -> str:
    """A digest of all that results hang on; of images size and time."""
    images = [of_side.images / record["file_name"] for of_side in pictures for record in of_side.records]
    states = [(file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None for file in images]
    networks = [digests.of_files([folder / name for name in paths.NETWORK]) for folder in folders]
    code = digests.of_code(CODE)
    values = keras.backend.backend(), repr(params), pictures[0].records, list(map(str, images)), states, networks, code
    return digests.of_text(json.dumps(values))


def coco_results(
    detections: Detections, size: tuple[int, int], labels: Labels, params: Predict
) -> list[dict[str, Any]]:
    """COCO results of one image without image_id. detections: of `Predictor.detect`; size: height, width in pixels.

    A result has the keys of `results.KEYS`, and attributes of at least params.attribute_score. The segmentation is made
    from the rounded soft mask and the rounded bbox that are in the result, so that a reader can make it again at
    another threshold.
    """
    height, width = size
    corners = detections["boxes"] * np.array([width, height] * 2)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).round(2).tolist()
    packed = list(map(masks.pack, detections["masks"]))
    done = [
        masks.paste(masks.unpack(mask), box, height, width, params.mask_threshold)
        for mask, box in zip(packed, boxes, strict=True)
    ]
    if not done:
        return []
    runs = rle.concatenate([mask for mask, _ in done])
    attributes = detections.get("attributes", np.zeros((len(done), 0)))
    results = []
    for i, (area, segmentation) in enumerate(zip(runs.areas(), runs.to_coco(), strict=True)):
        likely = np.flatnonzero(attributes[i] >= params.attribute_score)
        if area:
            results.append(
                {
                    "category_id": labels.category_ids[detections["classes"][i] - 1],
                    "score": round(float(detections["scores"][i]), 6),
                    "segmentation": segmentation,
                    "bbox": boxes[i],
                    "margin": round(float(detections["margins"][i]), 4),
                    "agreement": round(float(detections["agreement"][i]), 4),
                    "mask": packed[i],
                    "mask_score": round(done[i][1], 4),
                    "stability": round(masks.stability(detections["masks"][i]), 4),
                    "attribute_ids": [labels.attribute_ids[place] for place in likely],
                    "attribute_scores": [round(float(attributes[i, place]), 4) for place in likely],
                }
            )
    return results
