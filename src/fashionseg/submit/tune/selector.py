"""Fits the selector: a random forest that predicts the score of each candidate, mean over all pairs of thresholds."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, TargetEncoder

from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import FEATURES, features
from fashionseg.submit.config import Tune
from fashionseg.submit.forest import from_sklearn
from fashionseg.submit.postprocess import PostProcessing, Selector, Thresholds
from fashionseg.submit.tune.matched_images import MatchedImage

ENCODER_FOLDS = 5  # of the candidates, where a class is replaced by its mean score
DEPTH = 8  # of the trees of the 2020 winner
MAX_SAMPLES = 30_000  # candidates a tree is fitted to, where there are more than three times as many


def fit_selector(
    images: list[MatchedImage],
    f1_levels: list[np.ndarray],
    post: PostProcessing,
    params: Tune,
    *,
    seed: int,
    workers: int,
) -> tuple[Selector | None, np.ndarray, dict[str, pd.DataFrame]]:
    """The selector; the expected scores (n,) of all candidates by cross-validation; tables calibration, importance.

    f1_levels: how many F1 thresholds the attributes of each candidate exceed; post: which attributes are submitted.
    The selector is None where there are too few candidates for a forest.
    """
    iou_levels = np.concatenate([kaggle_metric.level(image.iou) for image in images])
    scores = iou_levels * np.concatenate(f1_levels) / kaggle_metric.THRESHOLD_COUNT**2
    classes = np.concatenate([image.candidates.classes for image in images])
    ends = np.cumsum([len(image.iou) for image in images])
    image_numbers = np.searchsorted(ends, np.arange(len(scores)), side="right")
    folds = min(params.folds, len(np.unique(image_numbers)))
    splits = list(GroupKFold(folds).split(scores, groups=image_numbers)) if folds > 1 else []
    least = min((len(train) for train, _ in splits), default=0)
    if least < ENCODER_FOLDS or len(scores) < 10 * params.leaf:
        empty = {"calibration": ["expected", "value", "instances"], "importance": ["feature", "importance"]}
        return None, np.zeros(0), {name: pd.DataFrame(columns=columns) for name, columns in empty.items()}
    attribute_sets = [post.attribute_sets(image.candidates.predictions) for image in images]
    rows = [features(image.candidates, sets) for image, sets in zip(images, attribute_sets, strict=True)]
    columns = np.column_stack([classes, np.concatenate(rows)])
    model = _model(params, len(scores), seed=seed, workers=workers)
    expected = cross_val_predict(model, columns, scores, cv=splits)
    model.fit(columns, scores)
    encoder = model["class"].named_transformers_["mean"]
    means = dict(zip(encoder.categories_[0].astype(int), encoder.encodings_[0].round(4), strict=True))
    class_means = Thresholds(round(float(encoder.target_mean_), 4), {str(c): float(mean) for c, mean in means.items()})
    names = ("of_class", *FEATURES)
    tables = {
        "calibration": _calibration(expected, scores),
        "importance": pd.DataFrame({"feature": names, "importance": model["forest"].feature_importances_}),
    }
    return Selector(0.0, class_means, from_sklearn(model["forest"], names)), expected, tables


def _model(params: Tune, count: int, *, seed: int, workers: int) -> Pipeline:
    """Class, then FEATURES -> score. The class is replaced by its mean score, shrunk to the mean of all where rare."""
    encoder = TargetEncoder(target_type="continuous", cv=KFold(ENCODER_FOLDS, shuffle=True, random_state=seed))
    forest = RandomForestRegressor(
        params.trees,
        max_depth=DEPTH,
        min_samples_leaf=params.leaf,
        max_features=1 / 3,
        max_samples=MAX_SAMPLES if count > 3 * MAX_SAMPLES else None,
        random_state=seed,
        n_jobs=max(1, workers),
    )
    return Pipeline(
        [
            ("class", ColumnTransformer([("mean", encoder, [0])], remainder="passthrough")),
            ("round", FunctionTransformer(np.round, kw_args={"decimals": 4})),
            ("forest", forest),
        ]
    )


def _calibration(expected: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """One row a tenth of the expected score: expected and value, the mean of both scores, and instances, how many."""
    bins = np.minimum((expected * 10).astype(int), 9)
    table = pd.DataFrame({"expected": expected, "value": scores, "instances": 1})
    return table.groupby(bins).agg({"expected": "mean", "value": "mean", "instances": "sum"})
