"""Predictions as `predict` writes them: COCO results with more keys, checked by each stage that reads them.

margin: score minus that of the next best class; agreement: share of TTA views that detect it; mask: the soft mask over
bbox (`masks.unpack`); segmentation: where it exceeds predict.mask_threshold; mask_score: its mean probability there;
stability: `masks.stability`; attribute_ids with attribute_scores.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from fashionseg.core.errors import UserError

Prediction = dict[str, Any]

COCO_KEYS = ("image_id", "category_id", "score", "segmentation", "bbox")
KEYS = (*COCO_KEYS, "margin", "agreement", "mask", "mask_score", "stability", "attribute_ids", "attribute_scores")


def check_predictions(predictions: Sequence[Prediction], document: dict[str, Any], keys: Sequence[str]) -> None:
    """Raises UserError for the first prediction that lacks one of `keys`, has an image, category or attribute id that
    the COCO document lacks, a mask of another size than its image, or a score that is not a number."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in document["images"]}
    valid_ids = {
        name: {row["id"] for row in document.get(kind, [])}
        for name, kind in (("image_id", "images"), ("category_id", "categories"), ("attribute_ids", "attributes"))
    }
    for number, prediction in enumerate(predictions):
        if missing := [key for key in keys if key not in prediction]:
            raise UserError(
                f"prediction {number} (from 0) has no {missing[0]}: another version wrote it; run `dvc repro predict`."
            )
        for name, ids in valid_ids.items():
            used = prediction.get(name, []) if name == "attribute_ids" else [prediction[name]]
            if foreign := set(used) - ids:
                raise UserError(
                    f"prediction {number} (from 0) has {name} {min(foreign)}, which the COCO document lacks; "
                    "run `dvc repro` so that both come from the same data."
                )
        size, score = prediction["segmentation"]["size"], prediction["score"]
        if list(size) != sizes[prediction["image_id"]]:
            height, width = sizes[prediction["image_id"]]
            raise UserError(
                f"prediction {number} (from 0) has a mask of {size[0]} x {size[1]} pixels on an image of "
                f"{height} x {width}; run `dvc repro` so that both come from the same data."
            )
        if not isinstance(score, int | float) or not isfinite(score):
            raise UserError(f"prediction {number} (from 0) has the score {score!r}, which is not a number.")
