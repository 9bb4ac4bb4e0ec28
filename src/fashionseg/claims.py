"""What is claimed of an image's predictions: on the submission's grid, without forbidden overlap, by a rule."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fashionseg import io, rle
from fashionseg.errors import UserError
from fashionseg.params import Submission

Prediction = dict[str, Any]  # a COCO result


@dataclass(frozen=True)
class Rule:
    """Claims are the predictions of at least `score`, or of an image only the `claims_per_image` best of them."""

    score: float
    claims_per_image: int | None

    def chosen(self, scores: np.ndarray) -> np.ndarray:
        """(n,) bool for the scores (n,) of one image, best first."""
        return (scores >= self.score) & (np.arange(len(scores)) < (self.claims_per_image or len(scores)))


def read_rule(path: str) -> Rule:
    """The rule that tuning wrote. Raises UserError where the file holds none."""
    document = io.read_json(path)
    try:
        return Rule(document["score"], document["claims_per_image"])
    except (KeyError, TypeError):
        raise UserError(f"{path} holds no claims rule (score, claims_per_image); run `dvc repro tune`.") from None


def grid(height: int, width: int, longest_side: int) -> tuple[int, int]:
    """Height and width in which the competition counts pixels: the long side as given, the other rounded down."""
    long = max(height, width)
    return max(1, height * longest_side // long), max(1, width * longest_side // long)


def by_image(predictions: Iterable[Prediction], known: Iterable[int]) -> dict[int, list[Prediction]]:
    """Predictions of each known image id, best first. Raises UserError for a prediction of another image."""
    groups: dict[int, list[Prediction]] = {image_id: [] for image_id in known}
    for prediction in predictions:
        if prediction["image_id"] not in groups:
            raise UserError(f"a prediction is of image {prediction['image_id']}, which the COCO document lacks.")
        groups[prediction["image_id"]].append(prediction)
    return {image_id: sorted(group, key=lambda p: -p["score"]) for image_id, group in groups.items()}


def on_grid(predictions: list[Prediction], params: Submission) -> tuple[list[Prediction], rle.Runs]:
    """The predictions of one image, best first, that can be claimed, and their masks on the submission's grid.

    A pixel that two claims may not share stays with the better one; what is then smaller than params.min_area goes.
    """
    runs = rle.from_coco([prediction["segmentation"] for prediction in predictions])
    if not predictions:
        return [], runs
    height, width = grid(int(runs.heights[0]), int(runs.widths[0]), params.longest_side)
    runs = runs.resize(height, width)
    taken: dict[Any, rle.Runs] = defaultdict(lambda: rle.encode(np.zeros((height, width), bool)))
    free = []
    for prediction, mask in zip(predictions, (runs[i] for i in range(len(runs))), strict=True):
        rivals = prediction["category_id"] if params.overlap == "same_class" else None
        free.append(mask.subtract(taken[rivals]))
        if free[-1].areas()[0] >= params.min_area:
            taken[rivals] = taken[rivals].union(free[-1])
    runs = rle.concatenate(free)
    kept = np.flatnonzero(runs.areas() >= params.min_area)
    return [predictions[i] for i in kept], runs[kept]
