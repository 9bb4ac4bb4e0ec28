"""A forest of regression trees as nested lists: read from JSON, evaluated with NumPy, without pickled code."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Tree = Any  # a number (leaf), or [feature name, threshold, subtree for <= threshold, subtree for > threshold]


@dataclass(frozen=True)
class Forest:
    """Predicts the mean of its trees. features: names of the columns of `predict`, in order."""

    features: tuple[str, ...]
    trees: list[Tree]

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nodes of all trees, roots first: feature, threshold, children (2, nodes) for <= and >, value.

        The children of a leaf are the leaf itself. Raises ValueError where a threshold or a leaf is NaN or missing.
        """
        nodes = list(self.trees)  # grows during the loop
        feature, threshold, children, value = [], [], [], []
        for number, node in enumerate(nodes):
            leaf = not isinstance(node, list)
            feature.append(0 if leaf else self.features.index(node[0]))
            threshold.append(0.0 if leaf else node[1])
            value.append(node if leaf else 0.0)
            children.append((number, number) if leaf else (len(nodes), len(nodes) + 1))
            nodes += [] if leaf else node[2:]
        numbers = np.array([threshold, value], float)
        if not np.isfinite(numbers).all():
            raise ValueError("a threshold or leaf of a tree is missing or NaN")
        return np.array(feature), numbers[0].astype(np.float32), np.array(children).T, numbers[1]

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """(n,) for columns (n, features); compares in float32 as scikit-learn does. Raises ValueError for NaN."""
        feature, threshold, children, value = self._nodes
        columns = columns.astype(np.float32)
        if np.isnan(columns).any():
            raise ValueError("a feature is NaN")
        rows = np.arange(len(columns))[:, None]
        previous, nodes = None, np.tile(np.arange(len(self.trees)), (len(columns), 1))  # (n, trees)
        while previous is None or (previous != nodes).any():
            above = columns[rows, feature[nodes]] > threshold[nodes]
            previous, nodes = nodes, children[above.astype(int), nodes]
        return value[nodes].mean(axis=1)


def from_sklearn(forest: Any, features: Sequence[str]) -> Forest:
    """The trees of a fitted RandomForestRegressor.

    Fit it on features rounded to 4 decimals: then thresholds rounded to 5 decimals split the same values.
    """

    def nested(tree: Any, node: int) -> Tree:
        if tree.children_left[node] < 0:
            return round(float(tree.value[node, 0, 0]), 6)
        low, high = (nested(tree, int(children[node])) for children in (tree.children_left, tree.children_right))
        return [features[tree.feature[node]], round(float(tree.threshold[node]), 5), low, high]

    return Forest(tuple(features), [nested(member.tree_, 0) for member in forest.estimators_])
