"""What to claim: the rule that scores best under the competition's metric on the validation images."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg import rle
from fashionseg.claims import Prediction, Rule, by_image, grid, on_grid
from fashionseg.evaluation import kaggle
from fashionseg.params import Submission

SCORES = np.arange(5, 100, 5) / 100
RULES = [Rule(float(score), count) for count in (1, None) for score in SCORES]


@dataclass(frozen=True)
class Matched:
    """The predictions of one image, best first: scores (n,), `kaggle.hits` (n, 10, 10), and how many are true."""

    scores: np.ndarray
    hits: np.ndarray
    true_count: int


def match(document: dict[str, Any], predictions: list[Prediction], params: Submission) -> list[Matched]:
    """Compares predictions with the truth once; every rule is then a matter of choosing among them."""
    predicted = by_image(predictions, (image["id"] for image in document["images"]))
    truth: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in predicted}
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    matched = []
    for image in track(document["images"], "match"):
        kept, masks = on_grid(predicted[image["id"]], params)
        true = truth[image["id"]]
        true_masks = rle.from_coco([annotation["segmentation"] for annotation in true])
        true_masks = true_masks.resize(*grid(image["height"], image["width"], params.longest_side))
        found = kaggle.hits(_instances(kept, masks), _instances(true, true_masks))
        matched.append(Matched(np.array([prediction["score"] for prediction in kept]), found, len(true)))
    return matched


def sweep(matched: list[Matched], formula: str) -> pd.DataFrame:
    """The metric's mean over all images for each of RULES: columns claims, threshold, value."""
    rows = []
    for rule in RULES:
        values = [kaggle.value(image.hits[rule.chosen(image.scores)], image.true_count, formula) for image in matched]
        claims = "all" if rule.claims_per_image is None else "best"
        rows.append({"claims": claims, "threshold": rule.score, "value": float(np.mean(values))})
    return pd.DataFrame(rows)


def tune(
    document: dict[str, Any], predictions: list[Prediction], formula: str, params: Submission
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best rule with its value and the value of claiming everything, and the table of all rules.

    Of equal rules the first of RULES wins, few claims of any score: an image without a claim scores nothing.
    """
    table = sweep(match(document, predictions, params), formula)
    best = int(table["value"].to_numpy().argmax())
    values = {"metric": formula, "value": table["value"][best], "value_of_all": table["value"][len(SCORES)]}
    return {**asdict(RULES[best]), **values}, table


def _instances(rows: list[dict[str, Any]], masks: rle.Runs) -> kaggle.Instances:
    classes = np.array([row["category_id"] for row in rows], int)
    return kaggle.Instances(masks, classes, [frozenset(row["attribute_ids"]) for row in rows])
