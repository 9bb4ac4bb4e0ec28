"""Predictions as `predict` writes them: COCO results with more keys, checked where a stage reads them.

margin: the score minus that of the next best class; agreement: the share of views that show it; mask: the probabilities
over bbox (`masks.unpack`), of which segmentation is what exceeds predict.mask_threshold; mask_score: their mean within
it; stability: how sharp its edge is; attribute_ids with attribute_scores.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from fashionseg.core.errors import UserError

Prediction = dict[str, Any]

COCO_KEYS = ("image_id", "category_id", "score", "segmentation", "bbox")
KEYS = (*COCO_KEYS, "margin", "agreement", "mask", "mask_score", "stability", "attribute_ids", "attribute_scores")


def check(predictions: Sequence[Prediction], document: dict[str, Any], keys: Sequence[str]) -> None:
    """Raises UserError for the first prediction without one of `keys`, of an image, a category or an attribute that
    the COCO document lacks, of another size than its image, or with a score that is no number."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in document["images"]}
    known = {
        name: {row["id"] for row in document.get(kind, [])}
        for name, kind in (("image_id", "images"), ("category_id", "categories"), ("attribute_ids", "attributes"))
    }
    for number, prediction in enumerate(predictions):
        if missing := [key for key in keys if key not in prediction]:
            raise UserError(
                f"prediction {number} (from 0) has no {missing[0]}: it is of another version; run `dvc repro predict`."
            )
        for name, ids in known.items():
            found = prediction.get(name, []) if name == "attribute_ids" else [prediction[name]]
            if foreign := set(found) - ids:
                raise UserError(
                    f"prediction {number} (from 0) has {name} {min(foreign)}, which the COCO document lacks; "
                    "run `dvc repro` so that both are of the same data."
                )
        size, score = prediction["segmentation"]["size"], prediction["score"]
        if list(size) != sizes[prediction["image_id"]]:
            height, width = sizes[prediction["image_id"]]
            raise UserError(
                f"prediction {number} (from 0) has a mask of {size[0]} x {size[1]} pixels on an image of "
                f"{height} x {width}; run `dvc repro` so that both are of the same data."
            )
        if not isinstance(score, int | float) or not isfinite(score):
            raise UserError(f"prediction {number} (from 0) has the score {score!r}, which is no number.")
