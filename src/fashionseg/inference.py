"""Images in, instances out: batches through the detector, masks pasted into the photograph's own grid as runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from fashionseg import io, rle
from fashionseg.data.batches import Pictures
from fashionseg.data.labels import Labels
from fashionseg.errors import UserError
from fashionseg.model.mask_rcnn import JIT, Detector, MaskRCNN
from fashionseg.params import Predict


def load(folder: Path) -> tuple[MaskRCNN, Labels]:
    """The network that training left in a folder, and the ids of what it tells apart.

    Needs mask_rcnn.json and mask_rcnn.weights.h5 alone. Raises UserError where they are missing or do not belong
    together.
    """
    description = io.read_json(folder / "mask_rcnn.json")
    network = MaskRCNN(**description["network"])
    weights = folder / "mask_rcnn.weights.h5"
    if not weights.exists():
        raise UserError(f"{weights} is missing; run `dvc repro train` to make it.")
    try:
        network.load_weights(weights)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights} does not fit mask_rcnn.json beside it ({reason}); train again.") from None
    return network, Labels.of(description)


def predict(
    document: dict[str, Any], images: Path, models: Path, params: Predict, workers: int
) -> list[dict[str, Any]]:
    """COCO results of every image of a COCO document, at the images' original size, best first within an image."""
    network, labels = load(models)
    detector = Detector(network, params.score, params.nms_iou)
    detector.compile(jit_compile=JIT)
    pictures = Pictures(document, images, network.side, params.batch_size, workers)
    results = []
    with ThreadPoolExecutor(workers) as pool:
        for record, size, found in track(_detections(detector, pictures), "predict", len(pictures.records)):
            results += instances(record, size, found, labels, params, pool)
    return results


def _detections(
    detector: Detector, pictures: Pictures
) -> Iterator[tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]]:
    """The record of each image, its size (2,) in the padded square, and its detections, one image at a time."""
    for index in range(len(pictures)):
        batch = pictures[index]
        found = detector.predict_on_batch(batch)
        records = pictures.records[index * pictures.batch_size :][: pictures.batch_size]
        for row, record in enumerate(records):
            yield record, batch["sizes"][row], {name: values[row] for name, values in found.items()}


def instances(
    record: dict[str, Any],
    size: np.ndarray,
    found: dict[str, np.ndarray],
    labels: Labels,
    params: Predict,
    pool: ThreadPoolExecutor,
) -> list[dict[str, Any]]:
    """COCO results of one image. `found` is one row of what `MaskRCNN.detect` gives; size (2,) its height and width.

    Beside COCO's keys a result has margin, the score minus that of the next best class, mask_score, the mean
    probability within the mask, and attribute_ids with attribute_scores, those of at least params.attribute_score.
    """
    used = np.flatnonzero(found["classes"] > 0)
    height, width = record["height"], record["width"]
    scale = np.array([width / size[1], height / size[0]] * 2)
    boxes = found["boxes"][used] * scale

    def pasted(mask: np.ndarray, box: np.ndarray) -> tuple[rle.Runs, float]:
        return paste(mask, box, height, width, params.mask_threshold)

    masks = list(pool.map(pasted, found["masks"][used], boxes))
    if not masks:
        return []
    runs = rle.concatenate([mask for mask, _ in masks])
    attributes = found.get("attributes", np.zeros((len(found["classes"]), 0)))
    results = []
    for i, box, (_, mask_score), area, segmentation in zip(
        used, boxes, masks, runs.areas(), runs.to_coco(), strict=True
    ):
        x1, y1, x2, y2 = box.tolist()
        likely = np.flatnonzero(attributes[i] >= params.attribute_score)
        if area:
            results.append(
                {
                    "image_id": record["id"],
                    "category_id": labels.category_ids[found["classes"][i] - 1],
                    "score": round(float(found["scores"][i]), 6),
                    "segmentation": segmentation,
                    "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                    "margin": round(float(found["margins"][i]), 4),
                    "mask_score": round(mask_score, 4),
                    "attribute_ids": [labels.attribute_ids[place] for place in likely],
                    "attribute_scores": [round(float(attributes[i, place]), 4) for place in likely],
                }
            )
    return results


def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float) -> tuple[rle.Runs, float]:
    """One mask (M, M) of probabilities put into its box (4,) of a picture, as runs, and the mean probability in it.

    torchvision's paste_masks_in_image without its bitmap of the whole picture: the mask gets a border of one cell, the
    box grows with it and is cut to whole pixels, the mask is resized bilinearly, then compared with the threshold.
    """
    side = mask.shape[0]
    padded = np.pad(mask, 1)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (side + 2) / side
    x1, y1 = (centre - half).astype(int)
    x2, y2 = (centre + half).astype(int)
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2 + 1, width), min(y2 + 1, height)
    resized = cv2.resize(padded, (int(max(x2 - x1 + 1, 1)), int(max(y2 - y1 + 1, 1))), interpolation=cv2.INTER_LINEAR)
    crop = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    inside = crop > threshold
    mask_score = float(crop[inside].mean()) if inside.any() else 0.0
    return rle.encode(inside).paste(top, left, height, width), mask_score
