"""Chooses the post-processing on the validation images, and estimates by cross-validation how it scores on new ones.

Three strategies are fitted to each formula of the metric: `score`, one score threshold for all classes; `rule`, also
thresholds by class, suppression and a least area; `selector`, a forest that predicts the score of each candidate, as
the 2020 winner did. Thresholds of attributes and of the soft masks are the same in all three. Predictions are matched
with the truth once; everything after that is whole numbers.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from rich.progress import track
from sklearn.model_selection import KFold

from fashionseg.coco.results import Prediction
from fashionseg.core.errors import UserError
from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import PostProcessing
from fashionseg.submit.tune.mask_sweep import MaskSweep
from fashionseg.submit.tune.matched_images import BATCH, MatchedImage, match_images
from fashionseg.submit.tune.tuner import Tuner


class Tuned(NamedTuple):
    """The post-processing of the best strategy; that strategy; scores by cross-validation; tables.

    scores: of each strategy, and `value`, that of choosing the strategy as well. tables: `strategies`, one row a
    formula and strategy: value, gain over `score` and its standard error, by cross-validation; `masks`, `thresholds`,
    `calibration`, `importance`, of the fit to all images.
    """

    post: PostProcessing
    strategy: str
    scores: dict[str, float]
    tables: dict[str, pd.DataFrame]


def tune(
    document: dict[str, Any],
    predictions: list[Prediction],
    attribute_pairs: dict[str, list[int]],
    params: Tune,
    submission: Submission,
    *,
    filler_class: int | None,
    seed: int,
    workers: int,
) -> Tuned:
    """Post-processing for predictions like these.

    document: COCO with the truth; predictions: COCO results of it; attribute_pairs: `postprocess.attribute_pairs` of
    the training data, the only attributes that are submitted; filler_class: as in `MatchCounts`. Raises UserError for
    fewer than two images.
    """
    count = len(document["images"])
    if count < 2:
        raise UserError(f"{count} validation image is too few to tune on; change split.folds to get two or more.")
    every = np.arange(count)
    folds = list(KFold(min(params.folds, count), shuffle=True, random_state=seed).split(every))
    images = match_images(document, predictions, submission, workers)
    sweep = MaskSweep.of(document, images, submission, workers)
    thresholds = [sweep.best_threshold(train) for train, _ in [*folds, (every, every)]]
    tuner = Tuner(
        params=params,
        submission=submission,
        categories=[category["id"] for category in document["categories"]],
        attribute_count=len(document["attributes"]),
        attribute_pairs=attribute_pairs,
        filler_class=filler_class,
        seed=seed,
        workers=workers,
    )
    of_folds: dict[int, dict[tuple[str, str], kaggle_metric.MatchCounts]] = {}
    matched_at = None
    # Fit by fit in the order of their thresholds, the fit to all images after those of the folds: so the masks of one
    # threshold alone are in memory, some gigabytes.
    for place in track(sorted(range(len(thresholds)), key=lambda place: thresholds[place] or 0), "cross-validate"):
        if thresholds[place] != matched_at:
            matched_at = thresholds[place]
            images.clear()
            images += match_images(document, predictions, submission, workers, matched_at)
        if place < len(folds):
            train, test = folds[place]
            posts = tuner.fit([images[i] for i in train], matched_at)[0]
            of_folds[place] = _count(posts, [images[i] for i in test], tuner)
        else:
            fitted, tables = tuner.fit(images, matched_at)
    fold_counts = {  # a fold may have too few candidates for a forest
        (strategy, formula): [
            of_folds[fold].get((strategy, formula), of_folds[fold]["rule", formula]) for fold in range(len(folds))
        ]
        for strategy, formula in fitted
    }
    of_strategies = {s: fold_counts[s, formula] for s, formula in fitted if formula == params.formula}
    strategy, scores = _choose_strategy(of_strategies, params)
    tables = {"strategies": _strategy_table(fold_counts, params), "masks": sweep.table(), **tables}
    return Tuned(fitted[strategy, params.formula], strategy, scores, tables)


def submitted_and_true(
    post: PostProcessing, images: list[MatchedImage], submission: Submission
) -> list[tuple[kaggle_metric.ImageInstances, kaggle_metric.ImageInstances]]:
    """What is submitted of each image, masks without overlaps as in the CSV, and the truth."""
    pairs = []
    for image in images:
        predictions, attribute_sets, masks = post.apply(image.candidates, submission)
        classes = np.array([prediction["category_id"] for prediction in predictions], int)
        pairs.append((kaggle_metric.ImageInstances(masks, classes, attribute_sets), image.truth))
    return pairs


def _count(
    posts: dict[tuple[str, str], PostProcessing], images: list[MatchedImage], tuner: Tuner
) -> dict[tuple[str, str], kaggle_metric.MatchCounts]:
    """The counts of each post-processing of a tuner on the same images."""

    def counts(images: list[MatchedImage]) -> list[kaggle_metric.MatchCounts]:
        pairs = [submitted_and_true(post, images, tuner.submission) for post in posts.values()]
        of_metric = tuner.params, tuner.attribute_count, tuner.filler_class
        return [kaggle_metric.count_matches(of_post, *of_metric) for of_post in pairs]

    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    done = joblib.Parallel(max(1, tuner.workers))(joblib.delayed(counts)(batch) for batch in batches)
    return {key: kaggle_metric.joined(of_post) for key, of_post in zip(posts, zip(*done, strict=True), strict=True)}


def _choose_strategy(
    fold_counts: dict[str, list[kaggle_metric.MatchCounts]], metric: Tune
) -> tuple[str, dict[str, float]]:
    """The strategy with the highest cross-validated score, the score of each, and `value`.

    The highest of three scores is partly luck. So for `value` each fold is scored with the strategy that is best on
    the other folds.
    """

    def score(strategy: str, folds: list[int]) -> float:
        return kaggle_metric.score(kaggle_metric.joined([fold_counts[strategy][fold] for fold in folds]), metric)

    def best(folds: list[int]) -> str:
        return max(fold_counts, key=lambda strategy: score(strategy, folds))  # of equals the simplest

    folds = list(range(len(fold_counts["score"])))
    chosen = [fold_counts[best([other for other in folds if other != fold])][fold] for fold in folds]
    scores = {"value": kaggle_metric.score(kaggle_metric.joined(chosen), metric)} | {
        strategy: score(strategy, folds) for strategy in fold_counts
    }
    return best(folds), {name: round(number, 5) for name, number in scores.items()}


def _strategy_table(fold_counts: dict[tuple[str, str], list[kaggle_metric.MatchCounts]], params: Tune) -> pd.DataFrame:
    all_counts = {key: kaggle_metric.joined(of_folds) for key, of_folds in fold_counts.items()}
    rows = []
    for (strategy, formula), counts in all_counts.items():
        metric = replace(params, formula=formula)
        by_image = replace(metric, average="class" if metric.average == "class" else "image")
        base = all_counts["score", formula]
        value = kaggle_metric.score(counts, metric)
        difference = kaggle_metric.image_scores(counts, by_image) - kaggle_metric.image_scores(base, by_image)
        rows.append(
            {
                "formula": formula,
                "strategy": strategy,
                "value": value,
                "gain": value - kaggle_metric.score(base, metric),
                "error": np.std(difference) / np.sqrt(counts.image_count),
            }
        )
    return pd.DataFrame(rows)
