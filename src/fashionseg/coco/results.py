"""Predictions as `predict` writes them: COCO results with more keys, checked by `read`, where they are read.

margin: score of the class, without the mask's, minus that of the next best class; agreement: share of TTA views that
detect it; mask: the soft mask over bbox (`masks.unpack`); segmentation: where it exceeds predict.mask_threshold;
mask_score: its mean probability there; stability: `masks.stability`; attribute_ids with attribute_scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashionseg.coco import masks
from fashionseg.core import documents, rle
from fashionseg.core.errors import UserError

Prediction = dict[str, Any]

COCO_KEYS = ("image_id", "category_id", "score", "segmentation", "bbox")
KEYS = (*COCO_KEYS, "margin", "agreement", "mask", "mask_score", "stability", "attribute_ids", "attribute_scores")


OUTSIDE = 1.0  # pixels by which a box may leave its image


def read(path: str | Path, document: dict[str, Any], keys: Sequence[str] = KEYS) -> list[Prediction]:
    """The predictions of a file for the images of a COCO document.

    Raises UserError as `documents.read`, and for the first prediction that lacks one of `keys`, has an image, category
    or attribute id that the document lacks, a mask that is none or of another size than its image, more or fewer
    attribute_scores than attribute_ids or, with the keys of `predict`, a soft mask that is none or a box outside of its
    image.
    """
    predictions = documents.read(path, documents.PREDICTIONS)
    try:
        _check(predictions, document, keys)
    except _Wrong as wrong:
        number, what = wrong.args
        raise UserError(f"{path}: prediction {number} (from 0) {what}") from None
    return predictions


class _Wrong(Exception):
    """Number of a prediction, what is wrong with it, and what to do."""


def _check(predictions: Sequence[Prediction], document: dict[str, Any], keys: Sequence[str]) -> None:
    again, together = "run `dvc repro predict`.", "run `dvc repro` so that both are of the same data."
    sizes = {image["id"]: [image["height"], image["width"]] for image in document["images"]}
    known = documents.ids_of(document)
    for number, prediction in enumerate(predictions):
        if missing := [key for key in keys if key not in prediction]:
            raise _Wrong(number, f"has no {missing[0]}: it is of another version; {again}")
        if foreign := documents.foreign(prediction, known):
            raise _Wrong(number, f"has {foreign[0]} {foreign[1]}, which the COCO document lacks; {together}")
        size, (height, width) = prediction["segmentation"]["size"], sizes[prediction["image_id"]]
        if size != [height, width]:
            raise _Wrong(
                number, f"has a mask of {size[0]} x {size[1]} pixels on an image of {height} x {width}; {together}"
            )
        ids, scores = prediction.get("attribute_ids", []), prediction.get("attribute_scores")
        if scores is not None and len(ids) != len(scores):
            raise _Wrong(number, f"has {len(ids)} attribute_ids and {len(scores)} attribute_scores; {again}")
        if fault := _fault(prediction, height, width) if "mask" in keys else "":
            raise _Wrong(number, f"{fault}; {again}")
    try:
        rle.check_coco([prediction["segmentation"] for prediction in predictions])
    except rle.RunError as error:
        raise _Wrong(error.row, f"has no mask: {error.reason}; {again}") from None


def _fault(prediction: Prediction, height: int, width: int) -> str:
    """Of soft mask and box, which `predict` alone gives, '' for none."""
    x, y, w, h = prediction["bbox"]
    if min((x, y, w, h, width - x - w, height - y - h)) < -OUTSIDE:
        return f"has the bbox {prediction['bbox']} on an image of {height} x {width}"
    try:
        masks.unpack(prediction["mask"])
    except ValueError as error:
        return f"has no soft mask: {error}"
    return ""
