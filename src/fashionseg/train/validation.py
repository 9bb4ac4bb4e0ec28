"""Average precision on validation images while a network learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fashionseg.coco import average_precision, masks
from fashionseg.core import rle
from fashionseg.data.batches import Pictures
from fashionseg.data.labels import Labels
from fashionseg.model.compilation import compile_steps
from fashionseg.model.mask_rcnn import Detector, MaskRCNN
from fashionseg.model.nms import INSTANCES_IOU

SCORE, MASK_THRESHOLD, MASK_SCORES = 0.05, 0.5, True  # as NMS, those of `predict` as params.yaml comes


class AveragePrecision:
    """Calling it gives COCO's AP and AP50 of a network's masks, None where no image has an instance.

    The images are those of a COCO document; `folder` is where their file_name counts from. Masks are compared at the
    original size: on all images and without TTA it is what `evaluate` finds.
    """

    def __init__(
        self,
        network: MaskRCNN,
        document: dict[str, Any],
        folder: str | Path,
        *,
        batch_size: int,
        workers: int,
    ):
        self.document = document
        self.pictures = Pictures(self.document, folder, network.config.side, batch_size, workers, square=network.square)
        self.labels = Labels.of(document)
        self.detector = Detector(network, SCORE, INSTANCES_IOU, MASK_SCORES)
        compile_steps(self.detector)

    def __call__(self, after_batch: Callable[[int, int], None]) -> dict[str, float | None]:
        """after_batch: called with the number of batches done and of all."""
        results: list[dict[str, Any]] = []
        for index in range(len(self.pictures)):
            batch = self.pictures[index]
            found = self.detector.predict_on_batch(batch)
            found["boxes"] = found["boxes"] / batch["sizes"][:, None, [1, 0, 1, 0]]
            for row, record in enumerate(self.pictures.records_of(index)):
                results += self._results({name: values[row] for name, values in found.items()}, record)
            after_batch(index + 1, len(self.pictures))
        scores = average_precision.summary(average_precision.evaluate_kind(self.document, results, "segm"))
        return {name: scores[name] for name in ("AP", "AP50")}

    def _results(self, found: dict[str, np.ndarray], record: dict[str, Any]) -> list[dict[str, Any]]:
        """COCO results of one image, its boxes given in shares of width and height."""
        height, width = record["height"], record["width"]
        real = np.flatnonzero(found["classes"])
        if not len(real):
            return []
        corners = found["boxes"] * np.array([width, height] * 2)
        boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        runs = [masks.enlarged(found["masks"][i], boxes[i], height, width).above(MASK_THRESHOLD) for i in real]
        pasted = rle.concatenate(runs)
        return [
            {
                "image_id": record["id"],
                "category_id": self.labels.category_ids[found["classes"][i] - 1],
                "score": float(found["scores"][i]),
                "segmentation": segmentation,
            }
            for i, area, segmentation in zip(real, pasted.areas(), pasted.to_coco(), strict=True)
            if area
        ]


def subset(document: dict[str, Any], limit: int, seed: int) -> dict[str, Any]:
    """A COCO document with at most `limit` of its images, drawn by `seed`, and their annotations."""
    images = document["images"]
    if len(images) <= limit:
        return document
    chosen = [images[i] for i in sorted(np.random.default_rng(seed).choice(len(images), limit, replace=False))]
    ids = {image["id"] for image in chosen}
    annotations = [annotation for annotation in document["annotations"] if annotation["image_id"] in ids]
    return {**document, "images": chosen, "annotations": annotations}
