"""Post-processing: which predictions of an image are submitted. `tune` writes it as JSON, `submit` applies it.

Each candidate has a gain: its score minus the threshold of its class or, with a selector, the forest's expected score
minus the selector's threshold. Candidates with gain >= 0 are submitted, best first, except those that overlap a better
one of their class too much (NMS). Every image gets at least its best candidate, since an image without submitted
instances scores 0, unless images may be left empty. For jaccard by image, a selector may instead add candidates, best
first, while the expected score of the image rises.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fashionseg.coco.results import Prediction
from fashionseg.core import files, rle
from fashionseg.core.errors import UserError
from fashionseg.core.schema import Nullable, mismatch
from fashionseg.submit.candidates import FEATURES, Candidates, features, remove_overlaps
from fashionseg.submit.config import Submission
from fashionseg.submit.forest import Forest

THRESHOLDS_SCHEMA = {"common": float, "own": {str: float}}
SCHEMA = {
    "max_per_image": Nullable(int),
    "nms_iou": float,
    "mask_overlap": float,
    "min_area": float,
    "score_thresholds": THRESHOLDS_SCHEMA,
    "attribute_thresholds": THRESHOLDS_SCHEMA,
    "attribute_pairs": {str: [int]},
    "selector": Nullable(
        {
            "threshold": float,
            "class_means": THRESHOLDS_SCHEMA,
            "forest": {"features": [str]},  # Forest checks the trees
            "true_per_image": Nullable(float),
        }
    ),
    "categories": [int],
    "mask_threshold": Nullable(float),
    "may_be_empty": bool,
}
NEVER = 2.0  # a threshold above every score: the class is never submitted


@dataclass(frozen=True)
class Thresholds:
    """A common value, and `own` values by name where they differ; names are ids as text, as in JSON."""

    common: float
    own: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.own.get(name, self.common)


@dataclass(frozen=True)
class Selector:
    """Predicts each candidate's score with `forest`, from the mean score of its class (class_means) and FEATURES.

    threshold: lowest expected score that is submitted. true_per_image: mean number of true instances per image; if
    given, candidates are added while they do not lower the image's expected TP / (TP + FP + FN).
    """

    threshold: float
    class_means: Thresholds
    forest: Forest
    true_per_image: float | None = None

    def expected_scores(self, candidate_features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(n,) expected score, 0..1, for features (n, 14) and classes (n,)."""
        means = np.array([self.class_means[str(class_id)] for class_id in classes], float)
        return self.forest.predict(np.column_stack([means, candidate_features]))


def expected_jaccard(hits: ArrayLike, submitted: ArrayLike, true_count: float) -> np.ndarray:
    """TP / (TP + FP + FN) of an expected number of hits among submitted instances, with true_count true instances."""
    return hits / (submitted + np.maximum(true_count - hits, 0))


def attribute_pairs(document: dict[str, Any]) -> dict[str, list[int]]:
    """By category id (as text), the attribute ids that its instances in a COCO document have."""
    ids: dict[int, set[int]] = {}
    for annotation in document["annotations"]:
        ids.setdefault(annotation["category_id"], set()).update(annotation.get("attribute_ids", []))
    return {str(category): sorted(ids[category]) for category in sorted(ids) if ids[category]}


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """The parameters that decide which predictions of an image are submitted, and with which attributes.

    max_per_image: most instances submitted per image; None: all with gain >= 0. nms_iou, mask_overlap: a candidate is
    suppressed when its IoU with a better one of its class exceeds nms_iou, or when that one covers more than the share
    mask_overlap of it. min_area: in pixels of the grid. score_thresholds: by category id, NEVER for a class never
    submitted. attribute_thresholds: by "category id/attribute id". attribute_pairs: attributes that may be submitted,
    from the function of that name. categories: category ids of the label file it was tuned for. mask_threshold: of the
    soft masks; None keeps the predicted segmentations. may_be_empty: images may be left without instances.
    """

    max_per_image: int | None
    nms_iou: float
    mask_overlap: float
    min_area: int
    score_thresholds: Thresholds
    attribute_thresholds: Thresholds
    attribute_pairs: dict[str, list[int]]
    selector: Selector | None
    categories: list[int]
    mask_threshold: float | None = None
    may_be_empty: bool = False

    def attribute_sets(self, predictions: Sequence[Prediction]) -> list[frozenset[int]]:
        """The attributes to submit of each prediction."""
        return [self._above_threshold(p) & self._seen_in_training(p) for p in predictions]

    def dropped_attributes(self, predictions: Sequence[Prediction]) -> int:
        """Number of attributes that reach their threshold but are not in attribute_pairs."""
        return sum(len(self._above_threshold(p) - self._seen_in_training(p)) for p in predictions)

    def _above_threshold(self, prediction: Prediction) -> frozenset[int]:
        return frozenset(
            attribute
            for attribute, score in zip(prediction["attribute_ids"], prediction["attribute_scores"], strict=True)
            if score >= self.attribute_thresholds[f"{prediction['category_id']}/{attribute}"]
        )

    def _seen_in_training(self, prediction: Prediction) -> frozenset[int]:
        return self._attribute_sets_seen.get(str(prediction["category_id"]), frozenset())

    @cached_property
    def _attribute_sets_seen(self) -> dict[str, frozenset[int]]:
        return {category: frozenset(ids) for category, ids in self.attribute_pairs.items()}

    def gains(self, candidates: Candidates) -> np.ndarray:
        """(n,) score or expected score of each candidate, minus its threshold."""
        if self.selector:
            columns = features(candidates, self.attribute_sets(candidates.predictions))
            return self.selector.expected_scores(columns, candidates.classes) - self.selector.threshold
        thresholds = [self.score_thresholds[str(class_id)] for class_id in candidates.classes]
        return candidates.scores - np.array(thresholds, float)

    def select(self, candidates: Candidates, gains: np.ndarray) -> list[int]:
        """Indices of the candidates to submit, highest gain first."""
        same_class = candidates.classes[:, None] == candidates.classes
        suppresses = same_class & ((candidates.iou > self.nms_iou) | (candidates.covered > self.mask_overlap))
        excluded, kept, hits = candidates.areas < self.min_area, [], 0.0
        for i in np.argsort(-gains, kind="stable").tolist():
            needed = not kept and not self.may_be_empty
            if len(kept) == self.max_per_image or not (needed or self._adds(float(gains[i]), hits, len(kept))):
                break
            if not excluded[i]:
                kept.append(i)
                hits += float(gains[i])
                excluded = excluded | suppresses[:, i]
        return kept

    def _adds(self, gain: float, hits: float, submitted: int) -> bool:
        """Whether to add a candidate to `submitted` ones with `hits` expected hits."""
        if not self.selector or self.selector.true_per_image is None:
            return gain >= 0
        true_count = self.selector.true_per_image
        before = expected_jaccard(hits, submitted, true_count)
        return bool(expected_jaccard(hits + gain, submitted + 1, true_count) >= before)

    def apply(
        self, candidates: Candidates, params: Submission
    ) -> tuple[list[Prediction], list[frozenset[int]], rle.Runs]:
        """Predictions to submit of an image, their attributes, and their masks on the grid without overlaps."""
        order, masks = remove_overlaps(candidates, self.select(candidates, self.gains(candidates)), params)
        predictions = [candidates.predictions[i] for i in order]
        return predictions, self.attribute_sets(predictions), masks


def write(path: str | Path, post: PostProcessing, notes: dict[str, Any]) -> None:
    """Writes the post-processing as JSON, one line per tree of the forest; notes for readers come first."""
    saved = {**notes, **asdict(post)}
    trees = []
    if post.selector:
        trees = [json.dumps(tree) for tree in post.selector.forest.trees]
        saved["selector"]["forest"]["trees"] = []
    text = json.dumps(saved, indent=1, allow_nan=False)
    files.write_text(path, text.replace('"trees": []', '"trees": [\n' + ",\n".join(trees) + "\n]") + "\n")


def read(path: str | Path, document: dict[str, Any]) -> PostProcessing:
    """Reads a file of `write`. Raises UserError where it is something else or was tuned for other classes or attributes
    than the COCO document's."""
    saved = files.read_json(path)
    try:
        if fault := mismatch(saved, SCHEMA):
            raise ValueError(fault)
        values = {name: saved[name] for name in PostProcessing.__dataclass_fields__}
        values |= {name: Thresholds(**saved[name]) for name in ("score_thresholds", "attribute_thresholds")}
        if selector := saved["selector"]:
            forest = Forest(tuple(selector["forest"]["features"]), selector["forest"]["trees"])
            values["selector"] = Selector(
                selector["threshold"], Thresholds(**selector["class_means"]), forest, selector["true_per_image"]
            )
            if forest.features != ("of_class", *FEATURES):
                raise KeyError("features")
            forest.predict(np.zeros((0, len(forest.features))))  # fails for an invalid tree
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is not a post-processing file of this version ({error}); run `dvc repro tune`."
        ) from None
    pairs = {f"{category['id']}/{a['id']}" for category in document["categories"] for a in document["attributes"]}
    used = {f"{category}/{attribute}" for category, ids in values["attribute_pairs"].items() for attribute in ids}
    foreign = (used | values["attribute_thresholds"].own.keys()) - pairs
    if foreign or values["categories"] != [category["id"] for category in document["categories"]]:
        what = "attributes" if foreign else "classes"
        raise UserError(f"{path} was tuned for other {what} than these predictions have; run `dvc repro tune`.")
    return PostProcessing(**values)
