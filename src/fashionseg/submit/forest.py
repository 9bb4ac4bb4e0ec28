"""A forest of regression trees as plain nested lists: read from JSON, evaluated with NumPy, no pickled code."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Tree = Any  # a number (leaf), or [feature name, threshold, tree where at most the threshold, tree where above]


@dataclass(frozen=True)
class Forest:
    """Predicts the mean of its trees. features: the names of the columns of what it is asked about."""

    features: tuple[str, ...]
    trees: list[Tree]

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of all trees, the roots first: feature, threshold, next node (2, nodes) below and above, value.

        A leaf leads to itself.
        """
        nodes = list(self.trees)  # grows while we walk it
        feature, threshold, after, value = [], [], [], []
        for number, node in enumerate(nodes):
            leaf = not isinstance(node, list)
            feature.append(0 if leaf else self.features.index(node[0]))
            threshold.append(0.0 if leaf else node[1])
            value.append(node if leaf else 0.0)
            after.append((number, number) if leaf else (len(nodes), len(nodes) + 1))
            nodes += [] if leaf else node[2:]
        return np.array(feature), np.array(threshold, np.float32), np.array(after).T, np.array(value)

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """(n,) for columns (n, features); compares in float32 as scikit-learn does. Raises ValueError for nan."""
        feature, threshold, after, value = self._nodes
        columns = columns.astype(np.float32)
        if np.isnan(columns).any():
            raise ValueError("a feature is nan")
        rows = np.arange(len(columns))[:, None]
        before, now = None, np.tile(np.arange(len(self.trees)), (len(columns), 1))  # (n, trees)
        while before is None or (before != now).any():
            above = columns[rows, feature[now]] > threshold[now]
            before, now = now, after[above.astype(int), now]
        return value[now].mean(axis=1)


def from_sklearn(forest: Any, features: Sequence[str]) -> Forest:
    """The trees of a fitted RandomForestRegressor.

    Its features must be rounded to 4 decimals: then thresholds rounded to 5 still lie between the same two values.
    """

    def nested(tree: Any, node: int) -> Tree:
        if tree.children_left[node] < 0:
            return round(float(tree.value[node, 0, 0]), 6)
        low, high = (nested(tree, int(children[node])) for children in (tree.children_left, tree.children_right))
        return [features[tree.feature[node]], round(float(tree.threshold[node]), 5), low, high]

    return Forest(tuple(features), [nested(member.tree_, 0) for member in forest.estimators_])
