"""What to claim, chosen on the validation images; what that gains, measured on images not used to choose.

Three ways, each fitted to a formula: `score`, one threshold for all classes; `rule`, thresholds for each class and
attribute, suppression and least area as well; `selector`, a forest that predicts the value of each claim over the sweep
(the winner's of 2020). Thresholds of attributes and of the masks' probabilities are common to all three. Predictions
meet the truth once; what is swept after that is whole numbers.
"""

from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.progress import track
from sklearn.model_selection import KFold

from fashionseg.core.errors import UserError
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import Prediction
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import Rule
from fashionseg.submit.tune.mask_sweep import MaskSweep
from fashionseg.submit.tune.matching import BATCH, Image, match
from fashionseg.submit.tune.tuner import Tuner


def claimed(
    rule: Rule, images: list[Image], submission: Submission
) -> list[tuple[kaggle_metric.Instances, kaggle_metric.Instances]]:
    """What the rule claims of each image, masks made free of each other as in the submission, beside the truth."""
    pairs = []
    for image in images:
        predictions, attributes, masks = rule.claims(image.found, submission)
        classes = np.array([prediction["category_id"] for prediction in predictions], int)
        pairs.append((kaggle_metric.Instances(masks, classes, attributes), image.truth))
    return pairs


def _tallies(
    rules: list[Rule], images: list[Image], params: Tune, submission: Submission, attributes: int
) -> list[kaggle_metric.Tally]:
    return [kaggle_metric.tally(claimed(rule, images, submission), params, attributes) for rule in rules]


def tune(
    document: dict[str, Any],
    predictions: list[Prediction],
    params: Tune,
    submission: Submission,
    seed: int,
    workers: int,
) -> tuple[Rule, str, dict[str, float], dict[str, pd.DataFrame]]:
    """The rule of the way whose cross-fitted value is highest, that way, values of `_choice`, and tables.

    Tables: `ways`, one row a formula and way: value on images not used to fit, gain over `score`, standard error of
    the gain; `masks`, `thresholds`, `calibration`, `importance` of the fit to all images. Raises UserError for fewer
    than two images.
    """
    count = len(document["images"])
    if count < 2:
        raise UserError(f"{count} validation image is too few to tune on; split.folds should leave two or more.")
    matched: dict[float | None, list[Image]] = {None: match(document, predictions, submission, workers)}
    sweep = MaskSweep.of(document, matched[None], submission, workers)

    def with_best_masks(chosen: np.ndarray) -> tuple[list[Image], float | None]:
        """All images with their masks at the threshold that serves the chosen ones best."""
        threshold = sweep.best(chosen)
        if threshold not in matched:
            matched[threshold] = match(document, predictions, submission, workers, threshold)
        return matched[threshold], threshold

    categories = [category["id"] for category in document["categories"]]
    attributes = len(document["attributes"])
    tuner = Tuner(params, submission, categories, attributes, seed, workers)
    rules, tables = tuner.fit(*with_best_masks(np.arange(count)))
    tallies: dict[tuple[str, str], list[kaggle_metric.Tally]] = {key: [] for key in rules}  # one a fold
    folds = KFold(min(params.folds, count), shuffle=True, random_state=seed)
    for train, test in track(list(folds.split(np.arange(count))), "cross-fit"):
        images, threshold = with_best_masks(train)
        fitted = tuner.fit([images[i] for i in train], threshold)[0]
        # A fold may be too small for a forest.
        of_fold = [fitted.get((way, formula), fitted["rule", formula]) for way, formula in rules]
        batches = ([images[i] for i in test[start : start + BATCH]] for start in range(0, len(test), BATCH))
        tasks = (joblib.delayed(_tallies)(of_fold, batch, params, submission, attributes) for batch in batches)
        done = joblib.Parallel(max(1, workers))(tasks)
        for key, of_key in zip(rules, zip(*done, strict=True), strict=True):
            tallies[key].append(kaggle_metric.joined(of_key))
    way, values = _choice({way: tallies[way, formula] for way, formula in rules if formula == params.formula}, params)
    return rules[way, params.formula], way, values, {"ways": _ways(tallies, params), "masks": sweep.table(), **tables}


def _choice(tallies: dict[str, list[kaggle_metric.Tally]], metric: Tune) -> tuple[str, dict[str, float]]:
    """The way that is worth most, what each is worth and, as `value`, what such a choice is: one for each fold, made
    by what the ways are worth on the others, since the best of three is a lucky one as well."""

    def value(way: str, folds: list[int]) -> float:
        return kaggle_metric.value(kaggle_metric.joined([tallies[way][fold] for fold in folds]), metric)

    def best(folds: list[int]) -> str:
        return max(tallies, key=lambda way: value(way, folds))  # of equal ones the simplest

    folds = list(range(len(tallies["score"])))
    chosen = [tallies[best([other for other in folds if other != fold])][fold] for fold in folds]
    values = {"value": kaggle_metric.value(kaggle_metric.joined(chosen), metric)} | {
        way: value(way, folds) for way in tallies
    }
    return best(folds), {name: round(number, 5) for name, number in values.items()}


def _ways(tallies: dict[tuple[str, str], list[kaggle_metric.Tally]], params: Tune) -> pd.DataFrame:
    whole = {key: kaggle_metric.joined(of_fold) for key, of_fold in tallies.items()}
    rows = []
    for (way, formula), tally in whole.items():
        metric = replace(params, formula=formula)
        of_image = replace(metric, average="class" if metric.average == "class" else "image")
        value, base = (kaggle_metric.value(one, metric) for one in (tally, whole["score", formula]))
        difference = kaggle_metric.values(tally, of_image) - kaggle_metric.values(whole["score", formula], of_image)
        error = np.std(difference) / np.sqrt(tally.count)
        rows.append({"formula": formula, "way": way, "value": value, "gain": value - base, "error": error})
    return pd.DataFrame(rows)
