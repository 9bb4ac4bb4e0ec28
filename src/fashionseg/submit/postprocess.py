"""The rule by which predictions become claims: what tuning writes to the claims file and submitting reads.

Each candidate of an image has a worth: its score less the threshold of its class or, with a selector, the value that
the forest expects of it less the least that pays. Claimed are those worth 0 or more, best first, without what a better
claim of the class already holds; at least the best, as an image without a claim scores nothing. For jaccard by image
a selector may instead claim, best first, while the image's own expected value rises.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fashionseg.core import files, rle
from fashionseg.core.errors import UserError
from fashionseg.submit.candidates import FEATURES, Candidates, Prediction, features, separate
from fashionseg.submit.config import Submission
from fashionseg.submit.forest import Forest

NEVER = 2.0  # a threshold that no score reaches: a class left out


@dataclass(frozen=True)
class Thresholds:
    """A value for all, and own ones for some; names are ids as text, as JSON has them."""

    common: float
    own: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.own.get(name, self.common)


@dataclass(frozen=True)
class Selector:
    """What a candidate is worth: `forest` on FEATURES and the mean value of its class; claims of `least` pay.

    instances: how many true ones an image has on average; given, a claim pays while it raises the image's own expected
    TP / (TP + FP + FN). None where one floor for all images serves.
    """

    least: float
    of_class: Thresholds
    forest: Forest
    instances: float | None = None

    def values(self, known: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(n,) expected value, 0..1, from features (n, 14) and classes (n,)."""
        of_class = np.array([self.of_class[str(number)] for number in classes], float)
        return self.forest.predict(np.column_stack([of_class, known]))


def expected_jaccard(hits: ArrayLike, claims: ArrayLike, instances: float) -> np.ndarray:
    """TP / (TP + FP + FN) of claims that should bring so many hits, on an image of so many true instances."""
    return hits / (claims + np.maximum(instances - hits, 0))


@dataclass(frozen=True)
class Rule:
    """attributes: least score by "category/attribute"; scores: least score by category, NEVER for one left out.

    A candidate goes whose IoU with a better claim of its class exceeds nms_iou, of which that covers more than the
    share mask_overlap, or of fewer than min_area pixels of the grid. claims_per_image: None for all that pay.
    categories: ids of the label file the rule was made for. mask_threshold: of the masks' probabilities, None for the
    masks as predicted.
    """

    claims_per_image: int | None
    nms_iou: float
    mask_overlap: float
    min_area: int
    scores: Thresholds
    attributes: Thresholds
    selector: Selector | None
    categories: list[int]
    mask_threshold: float | None = None

    def attribute_sets(self, predictions: Sequence[Prediction]) -> list[frozenset[int]]:
        """The attributes claimed of each prediction."""
        return [
            frozenset(
                attribute
                for attribute, score in zip(p["attribute_ids"], p["attribute_scores"], strict=True)
                if score >= self.attributes[f"{p['category_id']}/{attribute}"]
            )
            for p in predictions
        ]

    def worth(self, found: Candidates) -> np.ndarray:
        """(n,) of one image's candidates."""
        if self.selector:
            known = features(found, self.attribute_sets(found.predictions))
            return self.selector.values(known, found.classes) - self.selector.least
        return found.scores - np.array([self.scores[str(number)] for number in found.classes], float)

    def chosen(self, found: Candidates, worth: np.ndarray) -> list[int]:
        """The candidates that are claimed, best first."""
        alike = found.classes[:, None] == found.classes
        doubled = alike & ((found.iou > self.nms_iou) | (found.covered > self.mask_overlap))
        out, kept, hits = found.areas < self.min_area, [], 0.0
        for i in np.argsort(-worth, kind="stable").tolist():
            if len(kept) == self.claims_per_image or (kept and not self._pays(float(worth[i]), hits, len(kept))):
                break
            if not out[i]:
                kept.append(i)
                hits += float(worth[i])
                out = out | doubled[:, i]
        return kept

    def _pays(self, worth: float, hits: float, claims: int) -> bool:
        """Whether one more pays beside claims that should bring so many hits."""
        if not self.selector or self.selector.instances is None:
            return worth >= 0
        instances = self.selector.instances
        return bool(expected_jaccard(hits + worth, claims + 1, instances) >= expected_jaccard(hits, claims, instances))

    def claims(self, found: Candidates, params: Submission) -> tuple[list[Prediction], list[frozenset[int]], rle.Runs]:
        """What is claimed of an image: predictions, their attributes and their masks on the grid, none shared."""
        order, masks = separate(found, self.chosen(found, self.worth(found)), params)
        predictions = [found.predictions[i] for i in order]
        return predictions, self.attribute_sets(predictions), masks


def write(path: str | Path, rule: Rule, notes: dict[str, Any]) -> None:
    """The claims file: JSON, a tree of the selector a line; notes come first, for the reader."""
    saved = {**notes, **asdict(rule)}
    trees = []
    if rule.selector:
        trees = [json.dumps(tree) for tree in rule.selector.forest.trees]
        saved["selector"]["forest"]["trees"] = []
    text = json.dumps(saved, indent=1, allow_nan=False)
    files.write_text(path, text.replace('"trees": []', '"trees": [\n' + ",\n".join(trees) + "\n]") + "\n")


def read(path: str | Path, document: dict[str, Any]) -> Rule:
    """The rule of a claims file. Raises UserError where it holds none or one for other classes than the document's."""
    saved = files.read_json(path)
    try:
        values = {name: saved[name] for name in Rule.__dataclass_fields__}
        values |= {name: Thresholds(**saved[name]) for name in ("scores", "attributes")}
        if selector := saved["selector"]:
            forest = Forest(tuple(selector["forest"]["features"]), selector["forest"]["trees"])
            values["selector"] = Selector(
                selector["least"], Thresholds(**selector["of_class"]), forest, selector["instances"]
            )
            if forest.features != ("of_class", *FEATURES):
                raise KeyError("features")
            forest.predict(np.zeros((0, len(forest.features))))  # reads all the trees
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} holds no claims rule of this version ({error}); run `dvc repro tune`.") from None
    known = {f"{category['id']}/{a['id']}" for category in document["categories"] for a in document["attributes"]}
    others = values["attributes"].own.keys() - known
    if others or values["categories"] != [category["id"] for category in document["categories"]]:
        what = "attributes" if others else "classes"
        raise UserError(f"{path} was made for other {what} than these predictions; run `dvc repro tune`.")
    return Rule(**values)
