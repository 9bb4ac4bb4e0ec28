"""Candidates for submission: the predictions of one image on the submission's grid, and their features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fashionseg.coco import masks as mask_ops
from fashionseg.coco.results import Prediction
from fashionseg.core import documents, rle
from fashionseg.submit.config import Submission

FEATURES = (
    "score",  # of the class, with predict.mask_scores times that of the mask
    "margin",  # score of the class minus that of the next best one
    "agreement",  # share of the TTA views (test-time augmentation) that detect it
    "mask_score",  # mean probability within the mask
    "stability",  # how sharp the mask's edge is
    "area",  # logarithm of the mask's share of the image
    "fill",  # mask area over box area
    "box_fit",  # IoU of the predicted box and the mask's bounding box
    "rank",  # 0 for the best of the image
    "behind",  # best score of the image minus its score
    "same",  # best score among others of its class that cover more than half of its mask
    "other",  # best score among other classes' that cover more than half of its mask
    "attributes",  # number of attributes submitted
    "attribute_f1",  # expected F1 of the attributes submitted, if their probabilities are right
)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Predictions (n) of one image, highest score first, and their masks (n) on the grid.

    classes, scores, areas (n,), areas in pixels of the grid; iou (n, n) float32; covered (n, n) float32, the share of
    the row's mask that the column's mask covers.
    """

    predictions: list[Prediction]
    masks: rle.Runs
    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    iou: np.ndarray
    covered: np.ndarray


def grid_size(height: int, width: int, params: Submission) -> tuple[int, int]:
    """Height and width of the submission's grid for an image: a square of longest_side; or longest_side for the long
    side, the other rounded down; or the image's size where longest_side is None."""
    side, long = params.longest_side, max(height, width)
    if side is None:
        return height, width
    return (side, side) if params.square else (max(1, height * side // long), max(1, width * side // long))


def predictions_by_image(predictions: Sequence[Prediction], document: dict[str, Any]) -> dict[int, list[Prediction]]:
    """Predictions of each image of a COCO document, highest score first."""
    groups = documents.by_image(predictions, document)
    return {image_id: sorted(group, key=lambda p: -p["score"]) for image_id, group in groups.items()}


def masks_on_grid(
    predictions: Sequence[Prediction], height: int, width: int, params: Submission, mask_threshold: float | None
) -> rle.Runs:
    """Masks, on the grid, of predictions of an image of height x width pixels.

    From the soft masks at mask_threshold, or from the segmentations if it is None.
    """
    if mask_threshold is None:
        masks = rle.from_coco([prediction["segmentation"] for prediction in predictions])
        return masks.resize(*grid_size(height, width, params))
    windows = windows_on_grid(predictions, height, width, params)
    return rle.concatenate([window.above(mask_threshold) for window in windows])


def windows_on_grid(
    predictions: Sequence[Prediction], height: int, width: int, params: Submission
) -> list[mask_ops.Window]:
    """The soft masks of predictions of an image of height x width pixels at the pixels that the grid shows."""
    grid = grid_size(height, width, params)
    return [
        mask_ops.enlarged(mask_ops.unpack(prediction["mask"]), prediction["bbox"], height, width).resized(*grid)
        for prediction in predictions
    ]


def make_candidates(
    predictions: list[Prediction], height: int, width: int, params: Submission, mask_threshold: float | None = None
) -> Candidates:
    """The predictions of an image of height x width pixels, highest score first, with at least params.min_area pixels
    on the grid."""
    masks = masks_on_grid(predictions, height, width, params, mask_threshold)
    large = np.flatnonzero(masks.areas() >= params.min_area)
    predictions, masks = [predictions[i] for i in large], masks[large]
    areas = masks.areas()
    iou, shared = np.zeros((2, len(large), len(large)))
    if len(large):
        rles = masks.to_coco()
        iou = coco_mask.iou(rles, rles, [0] * len(rles))
        shared = np.rint(iou / (1 + iou) * (areas[:, None] + areas))  # pixels: less work than asking pycocotools again
    return Candidates(
        predictions=predictions,
        masks=masks,
        classes=np.array([prediction["category_id"] for prediction in predictions], int),
        scores=np.array([prediction["score"] for prediction in predictions], float),
        areas=areas,
        iou=iou.astype(np.float32),
        covered=(shared / np.maximum(areas[:, None], 1)).astype(np.float32),
    )


def features(candidates: Candidates, attribute_sets: Sequence[frozenset[int]]) -> np.ndarray:
    """(n, 14) FEATURES, rounded to 4 decimals. attribute_sets: the submitted attributes of each candidate."""
    count = len(candidates.scores)
    if not count:
        return np.zeros((0, len(FEATURES)))
    predictions = candidates.predictions
    pixels = int(candidates.masks.heights[0] * candidates.masks.widths[0])
    mask_boxes = candidates.masks.boxes()
    boxes = np.array([prediction["bbox"] for prediction in predictions], float)
    heights, widths = np.array([prediction["segmentation"]["size"] for prediction in predictions], float).T
    boxes *= np.stack([candidates.masks.widths / widths, candidates.masks.heights / heights] * 2, axis=1)
    covering = (candidates.covered > 0.5) & ~np.eye(count, dtype=bool)
    same_class = candidates.classes[:, None] == candidates.classes
    probabilities = [dict(zip(p["attribute_ids"], p["attribute_scores"], strict=True)) for p in predictions]
    columns = {
        "score": candidates.scores,
        **{name: [p[name] for p in predictions] for name in ("margin", "agreement", "mask_score", "stability")},
        "area": np.log(candidates.areas / pixels),
        "fill": candidates.areas / np.maximum(boxes[:, 2] * boxes[:, 3], 1),
        "box_fit": np.diag(coco_mask.iou(boxes, mask_boxes.astype(float), [0] * count)),
        "rank": np.arange(count),
        "behind": candidates.scores[0] - candidates.scores,
        "same": (covering * same_class * candidates.scores).max(axis=1),
        "other": (covering * ~same_class * candidates.scores).max(axis=1),
        "attributes": [len(ids) for ids in attribute_sets],
        "attribute_f1": [_expected_f1(p, ids) for p, ids in zip(probabilities, attribute_sets, strict=True)],
    }
    return np.round(np.stack([np.asarray(columns[name], float) for name in FEATURES], axis=1), 4)


def _expected_f1(probabilities: dict[int, float], submitted: frozenset[int]) -> float:
    """2 x expected hits / (submitted + expected true); 1 where both are 0."""
    submitted_and_true = sum(probabilities.values()) + len(submitted)
    return 2 * sum(probabilities[id] for id in submitted) / submitted_and_true if submitted_and_true else 1.0


def remove_overlaps(candidates: Candidates, order: Sequence[int], params: Submission) -> tuple[list[int], rle.Runs]:
    """Masks of the candidates `order`, best first, without pixels of better ones.

    params.overlap: of the same class or of any. A mask left with fewer than params.min_area pixels is dropped. Returns
    the candidates kept and their masks.
    """
    taken: dict[Any, rle.Runs] = {}
    kept, masks = [], []
    for i in order:
        group = int(candidates.classes[i]) if params.overlap == "same_class" else None
        mask = candidates.masks[i].subtract(taken[group]) if group in taken else candidates.masks[i]
        if mask.areas()[0] >= params.min_area:
            taken[group] = taken[group].union(mask) if group in taken else mask
            kept.append(i)
            masks.append(mask)
    return kept, rle.concatenate(masks)
