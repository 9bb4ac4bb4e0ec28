"""The forest that predicts the value of each claim over the metric's sweep."""

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
from fashionseg.submit.postprocess import Rule, Selector, Thresholds
from fashionseg.submit.tune.matching import Image

DEPTH = 8  # of the winner's trees
SAMPLE = 30_000  # candidates of which a tree is grown where there are more than three times as many


def fit_selector(
    images: list[Image], agreed: list[np.ndarray], rule: Rule, params: Tune, seed: int, workers: int
) -> tuple[Selector | None, np.ndarray, dict[str, pd.DataFrame]]:
    """The forest; the values that forests which never saw an image expect of its candidates; tables on both.

    agreed: how many F1 thresholds each candidate's attributes exceed; rule: which attributes are claimed. Tables:
    `calibration` and `importance`. The forest is None where candidates are too few.
    """
    overlap = np.concatenate([kaggle_metric.level(image.iou) for image in images])
    value = overlap * np.concatenate(agreed) / kaggle_metric.LEVELS**2
    classes = np.concatenate([image.found.classes for image in images])
    known = np.concatenate([features(i.found, rule.attribute_sets(i.found.predictions)) for i in images])
    ends = np.cumsum([len(image.iou) for image in images])
    groups = np.searchsorted(ends, np.arange(len(value)), side="right")
    folds = min(params.folds, len(np.unique(groups)))
    if folds < 2 or len(value) < 10 * params.leaf:
        empty = {"calibration": ["expected", "value", "claims"], "importance": ["feature", "importance"]}
        return None, np.zeros(0), {name: pd.DataFrame(columns=columns) for name, columns in empty.items()}
    # The encoder gives each class its mean value, drawn to that of all where examples are few.
    encoder = TargetEncoder(target_type="continuous", cv=KFold(5, shuffle=True, random_state=seed))
    trees = RandomForestRegressor(
        params.trees,
        max_depth=DEPTH,
        min_samples_leaf=params.leaf,
        max_features=1 / 3,
        max_samples=SAMPLE if len(value) > 3 * SAMPLE else None,
        random_state=seed,
        n_jobs=workers,
    )
    model = Pipeline(
        [
            ("class", ColumnTransformer([("mean", encoder, [0])], remainder="passthrough")),
            ("round", FunctionTransformer(np.round, kw_args={"decimals": 4})),
            ("forest", trees),
        ]
    )
    columns = np.column_stack([classes, known])
    expected = cross_val_predict(model, columns, value, groups=groups, cv=GroupKFold(folds))
    model.fit(columns, value)
    encoder = model["class"].named_transformers_["mean"]
    means = dict(zip(encoder.categories_[0].astype(int), encoder.encodings_[0].round(4), strict=True))
    of_class = Thresholds(round(float(encoder.target_mean_), 4), {str(c): float(mean) for c, mean in means.items()})
    names = ("of_class", *FEATURES)
    forest = model["forest"]
    bins = np.minimum((expected * 10).astype(int), 9)
    calibration = pd.DataFrame({"expected": expected, "value": value, "claims": 1}).groupby(bins)
    tables = {
        "calibration": calibration.agg({"expected": "mean", "value": "mean", "claims": "sum"}),
        "importance": pd.DataFrame({"feature": names, "importance": forest.feature_importances_}),
    }
    return Selector(0.0, of_class, from_sklearn(forest, names)), expected, tables
