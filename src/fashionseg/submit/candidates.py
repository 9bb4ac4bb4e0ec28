"""What could be claimed of an image: its predictions on the submission's grid, and what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fashionseg.core import rle
from fashionseg.core.errors import UserError
from fashionseg.predict import masks as mask_ops
from fashionseg.predict.results import KEYS, Prediction, check
from fashionseg.submit.config import Submission

FEATURES = (
    "score",  # of the class
    "margin",  # score minus that of the next best class
    "agreement",  # share of the views that show it
    "mask_score",  # mean probability within the mask
    "stability",  # how sharp the mask's edge is
    "area",  # logarithm of the mask's share of the picture
    "fill",  # mask area over box area
    "box_fit",  # IoU of the predicted box and that of the mask
    "rank",  # 0 for the best of the image
    "behind",  # score of the image's best minus its own
    "same",  # best score among others of the class that share half of the mask
    "other",  # best score among those of other classes that share half of the mask
    "attributes",  # how many would be claimed
    "attribute_f1",  # what their F1 would be if the probabilities were right
)


@dataclass(frozen=True)
class Candidates:
    """Predictions of one image, best score first, and their masks (n) on the grid.

    classes, scores, areas (n,); iou (n, n) float32; covered (n, n) float32, the share of the row's mask that is in
    the column's.
    """

    predictions: list[Prediction]
    masks: rle.Runs
    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    iou: np.ndarray
    covered: np.ndarray


def grid(height: int, width: int, longest_side: int) -> tuple[int, int]:
    """Height and width in which the competition counts pixels: the long side as given, the other rounded down."""
    long = max(height, width)
    return max(1, height * longest_side // long), max(1, width * longest_side // long)


def by_image(predictions: Sequence[Prediction], document: dict[str, Any]) -> dict[int, list[Prediction]]:
    """Predictions of each image of a COCO document, best first. Raises UserError as `predictions.check` does."""
    check(predictions, document, KEYS)
    groups: dict[int, list[Prediction]] = {image["id"]: [] for image in document["images"]}
    for prediction in predictions:
        groups[prediction["image_id"]].append(prediction)
    return {image_id: sorted(group, key=lambda p: -p["score"]) for image_id, group in groups.items()}


def on_grid(
    predictions: Sequence[Prediction], height: int, width: int, params: Submission, mask_threshold: float | None
) -> rle.Runs:
    """Masks on the grid of predictions of an image of height x width: the segmentations, or what exceeds a threshold.

    Both ways are resized from the image's own size, where predictions are made.
    """
    if mask_threshold is None:
        try:
            masks = rle.from_coco([prediction["segmentation"] for prediction in predictions])
        except rle.RunError as error:
            where = f"a prediction of image {predictions[error.row]['image_id']}"
            raise UserError(f"{where} has a broken mask: {error.reason}; run `dvc repro predict`.") from None
    else:
        probabilities = [mask_ops.unpack(prediction["mask"]) for prediction in predictions]
        pasted = [
            mask_ops.paste(mask, prediction["bbox"], height, width, mask_threshold)[0]
            for mask, prediction in zip(probabilities, predictions, strict=True)
        ]
        masks = rle.concatenate(pasted)
    return masks.resize(*grid(height, width, params.longest_side))


def candidates(
    predictions: list[Prediction], height: int, width: int, params: Submission, mask_threshold: float | None = None
) -> Candidates:
    """The predictions, best first, of an image of height x width that are large enough on the grid."""
    masks = on_grid(predictions, height, width, params, mask_threshold)
    large = np.flatnonzero(masks.areas() >= params.min_area)
    predictions, masks = [predictions[i] for i in large], masks[large]
    iou, covered = np.zeros((2, len(large), len(large)), np.float32)
    if len(large):
        rles = masks.to_coco()
        iou, covered = (coco_mask.iou(rles, rles, [kind] * len(rles)).astype(np.float32) for kind in (0, 1))
    classes = np.array([prediction["category_id"] for prediction in predictions], int)
    scores = np.array([prediction["score"] for prediction in predictions], float)
    return Candidates(predictions, masks, classes, scores, masks.areas(), iou, covered)


def features(found: Candidates, attribute_ids: Sequence[frozenset[int]]) -> np.ndarray:
    """(n, 14) of FEATURES, rounded to 4 decimals; attribute_ids: the n sets that would be claimed."""
    count = len(found.scores)
    if not count:
        return np.zeros((0, len(FEATURES)))
    pixels = int(found.masks.heights[0] * found.masks.widths[0])
    tight = found.masks.boxes()
    boxes = np.array([prediction["bbox"] for prediction in found.predictions], float)
    heights, widths = np.array([prediction["segmentation"]["size"] for prediction in found.predictions], float).T
    boxes *= np.stack([found.masks.widths / widths, found.masks.heights / heights] * 2, axis=1)
    half = (found.covered > 0.5) & ~np.eye(count, dtype=bool)
    alike = found.classes[:, None] == found.classes
    probabilities = [dict(zip(p["attribute_ids"], p["attribute_scores"], strict=True)) for p in found.predictions]
    named = {
        "score": found.scores,
        **{name: [p[name] for p in found.predictions] for name in ("margin", "agreement", "mask_score", "stability")},
        "area": np.log(found.areas / pixels),
        "fill": found.areas / np.maximum(boxes[:, 2] * boxes[:, 3], 1),
        "box_fit": np.diag(coco_mask.iou(boxes, tight.astype(float), [0] * count)),
        "rank": np.arange(count),
        "behind": found.scores[0] - found.scores,
        "same": (half * alike * found.scores).max(axis=1),
        "other": (half * ~alike * found.scores).max(axis=1),
        "attributes": [len(ids) for ids in attribute_ids],
        "attribute_f1": [_expected_f1(p, ids) for p, ids in zip(probabilities, attribute_ids, strict=True)],
    }
    return np.round(np.stack([np.asarray(named[name], float) for name in FEATURES], axis=1), 4)


def _expected_f1(probabilities: dict[int, float], claimed: frozenset[int]) -> float:
    """Twice what is expected to be right over the expected number of both; 1 where nothing is likely."""
    whole = sum(probabilities.values()) + len(claimed)
    return 2 * sum(probabilities[id] for id in claimed) / whole if whole else 1.0


def separate(found: Candidates, order: Sequence[int], params: Submission) -> tuple[list[int], rle.Runs]:
    """Those of `order`, best first, that stay when no pixel is claimed twice, and their masks.

    A pixel that two claims may not share stays with the better one; what is then smaller than params.min_area goes.
    """
    taken: dict[Any, rle.Runs] = {}
    kept, masks = [], []
    for i in order:
        rivals = int(found.classes[i]) if params.overlap == "same_class" else None
        mask = found.masks[i].subtract(taken[rivals]) if rivals in taken else found.masks[i]
        if mask.areas()[0] >= params.min_area:
            taken[rivals] = taken[rivals].union(mask) if rivals in taken else mask
            kept.append(i)
            masks.append(mask)
    return kept, rle.concatenate(masks)
