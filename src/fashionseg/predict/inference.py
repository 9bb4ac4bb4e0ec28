"""Images in, instances out: views through the networks, masks pasted into the photograph's own grid as runs."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from fashionseg.console.device import describe
from fashionseg.core import files, rle
from fashionseg.core.errors import UserError
from fashionseg.data import samples
from fashionseg.data.batches import Batch, Pictures, padded
from fashionseg.data.labels import Labels
from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import JIT, Detector, MaskRCNN
from fashionseg.predict import masks
from fashionseg.predict.config import Predict
from fashionseg.predict.fusion import Detections, fuse

STEP, LEAST_SIDE = 32, 64  # pixels of a view: what the strides of a pyramid divide


def load(folder: Path, scale: float = 1.0) -> tuple[MaskRCNN, Labels]:
    """The network that training left in a folder, for images `scale` times as large, and the ids that it tells apart.

    Needs mask_rcnn.json and mask_rcnn.weights.h5 alone. Raises UserError where they are missing or do not belong
    together.
    """
    if not (folder / "mask_rcnn.json").exists():
        raise UserError(f"{folder} holds no trained network: mask_rcnn.json is missing; train, or copy one there.")
    description = files.read_json(folder / "mask_rcnn.json")
    try:
        side = round(description["network"]["side"] * scale / STEP) * STEP
        if side < LEAST_SIDE:
            raise UserError(f"predict.scales: {scale} leaves {side} px of a picture; {LEAST_SIDE} are the least.")
        network = MaskRCNN(Network(**{**description["network"], "side": side}))
        labels = Labels.of(description)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}/mask_rcnn.json is of another version of the network ({error}); train again."
        ) from None
    heads = network.roi_heads
    for what, ids, count in (
        ("categories", labels.category_ids, heads.classes),
        ("attributes", labels.attribute_ids, heads.attribute_count if heads.attribute_head else None),
    ):
        if count not in (None, len(ids)):
            raise UserError(
                f"{folder}/mask_rcnn.json names {len(ids)} {what}, but its network tells {count} apart; "
                "copy the whole folder that training wrote."
            )
    weights = folder / "mask_rcnn.weights.h5"
    if not weights.exists():
        raise UserError(f"{weights} is missing; run `dvc repro train` to make it.")
    try:
        network.load_weights(weights)
    except Exception as error:  # a damaged file raises nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{weights} does not fit mask_rcnn.json beside it ({reason}); train again.") from None
    return network, labels


@dataclass(frozen=True)
class View:
    """A way to look at an image: through which network, mirrored or not."""

    detector: Detector
    flipped: bool

    @property
    def side(self) -> int:
        return self.detector.network.config.side

    def detect(self, batch: Batch) -> list[Detections]:
        """The detections of each image without padding, as arrays of `MaskRCNN.detect`'s names, of the picture the
        right way round; boxes in shares of its width and height."""
        images, sizes = batch["images"], batch["sizes"]
        if self.flipped:
            images = images.copy()
            for image, (height, width) in zip(images, sizes, strict=True):
                image[:height, :width] = image[:height, :width][:, ::-1].copy()
        found = self.detector.predict_on_batch({"images": images, "sizes": sizes})
        found["boxes"] = found["boxes"] / sizes[:, None, [1, 0, 1, 0]]
        if self.flipped:
            left, top, right, bottom = np.moveaxis(found["boxes"], -1, 0)
            found["boxes"] = np.stack([1 - right, top, 1 - left, bottom], axis=-1)
            found["masks"] = found["masks"][..., ::-1]
        used = found["classes"] > 0
        return [{name: values[row][used[row]] for name, values in found.items()} for row in range(len(images))]


class Predictor:
    """Trained networks, asked as one. Each folder holds one as training leaves it; params say how they look.

    Calling it on an image (H, W, 3) uint8 RGB gives its instances as `instances` does, without an image_id.
    Raises UserError where the networks tell different things apart, or where two scales come to the same side.
    """

    def __init__(self, folders: Sequence[Path], params: Predict):
        self.params = params
        self.views = []
        known = {}
        for folder in folders:
            sides = set()
            for scale in params.scales:
                network, labels = load(folder, scale)
                if network.config.side in sides:
                    raise UserError(
                        f"predict.scales: {scale} gives {network.config.side} px, as another does; leave one out."
                    )
                sides.add(network.config.side)
                known[folder] = labels, network.roi_heads.attributes == "none"
                detector = Detector(network, params.score, params.nms_iou)
                detector.compile(jit_compile=JIT)
                self.views += [View(detector, flipped) for flipped in ((False, True) if params.flip else (False,))]
        self.labels, plain = known[folders[0]]
        self.detections = self.views[0].detector.network.roi_heads.detections
        for folder, (labels, without) in known.items():
            if labels != self.labels:
                raise UserError(f"{folder} was trained on other labels than {folders[0]}; they cannot be merged.")
            if without != plain:
                raise UserError(f"of {folder} and {folders[0]} only one knows attributes; they cannot be merged.")

    @property
    def sides(self) -> set[int]:
        """Of the padded squares that the views need."""
        return {view.side for view in self.views}

    def detect(self, batches: dict[int, Batch]) -> list[Detections]:
        """What all views together show of each image of a batch, which is given in every one of `sides`."""
        by_view = [view.detect(batches[view.side]) for view in self.views]
        fused = [fuse(of_image) for of_image in zip(*by_view, strict=True)]
        return [{name: values[: self.detections] for name, values in found.items()} for found in fused]

    def __call__(self, image: np.ndarray) -> list[dict[str, Any]]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image is (H, W, 3) uint8 RGB. Received: {image.shape} {image.dtype}")
        (found,) = self.detect({side: padded([samples.resized(image, side)], side) for side in self.sides})
        with ThreadPoolExecutor() as pool:
            return instances(*image.shape[:2], found, self.labels, self.params, pool)


def predict(
    document: dict[str, Any],
    images_for: Callable[[int], Path],
    folders: Sequence[Path],
    params: Predict,
    workers: int,
) -> list[dict[str, Any]]:
    """COCO results of every image of a COCO document, at the images' original size, best first within an image.

    images_for: the folder of the pictures for a view of so many pixels.
    """
    predictor = Predictor(folders, params)
    print(describe(predictor.views[0].detector.network.dtype_policy.name))
    pictures = [Pictures(document, images_for(side), side, params.batch_size, workers) for side in predictor.sides]
    records = document["images"]
    results = []
    with ThreadPoolExecutor(workers) as pool:
        for index in track(range(len(pictures[0])), "predict"):
            found = predictor.detect({of_side.side: of_side[index] for of_side in pictures})
            for record, detections in zip(records[index * params.batch_size :], found, strict=False):
                size = record["height"], record["width"]
                of_image = instances(*size, detections, predictor.labels, params, pool)
                results += [{"image_id": record["id"], **instance} for instance in of_image]
    return results


def instances(
    height: int, width: int, found: Detections, labels: Labels, params: Predict, pool: Executor
) -> list[dict[str, Any]]:
    """COCO results of one image of height x width, but for the image_id; `found` as of `Predictor.detect`.

    Beside COCO's keys a result has those of `predictions.KEYS`; attributes are those of at least
    params.attribute_score. The segmentation is what the rounded mask, pasted into the rounded bbox, exceeds
    params.mask_threshold by, so that who reads the file can paste at another threshold.
    """
    corners = found["boxes"] * np.array([width, height] * 2)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).round(2).tolist()
    packed = list(map(masks.pack, found["masks"]))

    def pasted(mask: str, box: list[float]) -> tuple[rle.Runs, float]:
        return masks.paste(masks.unpack(mask), box, height, width, params.mask_threshold)

    done = list(pool.map(pasted, packed, boxes))
    if not done:
        return []
    runs = rle.concatenate([mask for mask, _ in done])
    attributes = found.get("attributes", np.zeros((len(done), 0)))
    results = []
    for i, (area, segmentation) in enumerate(zip(runs.areas(), runs.to_coco(), strict=True)):
        likely = np.flatnonzero(attributes[i] >= params.attribute_score)
        if area:
            results.append(
                {
                    "category_id": labels.category_ids[found["classes"][i] - 1],
                    "score": round(float(found["scores"][i]), 6),
                    "segmentation": segmentation,
                    "bbox": boxes[i],
                    "margin": round(float(found["margins"][i]), 4),
                    "agreement": round(float(found["agreement"][i]), 4),
                    "mask": packed[i],
                    "mask_score": round(done[i][1], 4),
                    "stability": round(masks.stability(found["masks"][i]), 4),
                    "attribute_ids": [labels.attribute_ids[place] for place in likely],
                    "attribute_scores": [round(float(attributes[i, place]), 4) for place in likely],
                }
            )
    return results
