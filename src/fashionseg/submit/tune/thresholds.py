"""Thresholds of single attributes and classes, where there are enough examples to differ from the common threshold."""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Tune
from fashionseg.submit.postprocess import NEVER, PostProcessing, Thresholds
from fashionseg.submit.tune.candidate_table import ROUNDING, RankedCandidates
from fashionseg.submit.tune.matched_images import MatchedImage

SCORE_THRESHOLDS = np.arange(0, 100, 5) / 100  # of scores and of expected scores
PARTS = 4  # parts of the images; a class gets its own threshold only where it lowers the metric on none of them
MIN_EXAMPLES = 20  # with fewer, the common threshold holds


def attribute_thresholds(images: list[MatchedImage], attribute_pairs: dict[str, list[int]]) -> Thresholds:
    """Thresholds by "category/attribute" with the best F1 on candidates that overlap a true instance by IoU > 0.5.

    attribute_pairs: as in `PostProcessing`; predictions of other pairs count as not made.
    """
    seen = {category: frozenset(ids) for category, ids in attribute_pairs.items()}
    rows = []
    for image in images:
        for i in np.flatnonzero(image.iou > kaggle_metric.THRESHOLDS[0]):
            prediction, true = image.candidates.predictions[i], image.truth.attributes[image.nearest[i]]
            scores = dict(zip(prediction["attribute_ids"], prediction["attribute_scores"], strict=True))
            of_class = seen.get(str(prediction["category_id"]), frozenset())
            scores = {attribute: score for attribute, score in scores.items() if attribute in of_class}
            rows += [
                (f"{prediction['category_id']}/{attribute}", scores.get(attribute, 0.0), attribute in true)
                for attribute in sorted(true | scores.keys())
            ]
    table = pd.DataFrame(rows, columns=["pair", "score", "true"])
    if not table["true"].any():
        return Thresholds(0.5)
    common = _best_f1_threshold(table)
    frequent = table[table["true"].groupby(table["pair"]).transform("sum") >= MIN_EXAMPLES]
    return Thresholds(common, {str(pair): _best_f1_threshold(group) for pair, group in frequent.groupby("pair")})


def _best_f1_threshold(table: pd.DataFrame) -> float:
    precision, recall, thresholds = precision_recall_curve(table["true"], table["score"])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    # Halfway to the next lower score, as scores of new images fall between; score 0 means that it was not predicted.
    best = int(f1[:-1].argmax())
    return round(float(max(thresholds[best] + thresholds[max(best - 1, 0)], 0.02) / 2), 4)


def class_thresholds(ranked: RankedCandidates, post: PostProcessing, metric: Tune) -> Thresholds:
    """A threshold for each class with enough examples, the most frequent first.

    A threshold is taken where it lowers the metric on none of PARTS of the images and raises it on some: judged on all
    images at once, it would fit their noise.
    """
    image_numbers, single = np.arange(ranked.counts.image_count), post.max_per_image == 1
    parts = [ranked.of_images(image_numbers % PARTS == part) for part in range(min(PARTS, len(image_numbers)))]

    def image_scores(part: RankedCandidates, thresholds: Thresholds) -> np.ndarray:
        return kaggle_metric.image_scores(part.submitted_counts(_gains(part, thresholds), single), metric)

    classes, counts = np.unique(ranked.counts.classes, return_counts=True)
    best, best_scores = post.score_thresholds, [image_scores(part, post.score_thresholds) for part in parts]
    for class_id in classes[np.argsort(-counts, kind="stable")][: (counts >= MIN_EXAMPLES).sum()]:
        # A class's threshold changes only images with candidates of it. `all` has one score for all images together.
        affected = [np.full(part.counts.image_count, metric.average == "all") for part in parts]
        for part, images in zip(parts, affected, strict=True):
            images[part.counts.images[part.counts.classes == class_id]] = True
        changing = [
            _class_and_submitted(part.of_images(images), class_id, best, single)
            for part, images in zip(parts, affected, strict=True)
        ]
        for threshold in sorted(
            (*SCORE_THRESHOLDS, NEVER), key=lambda t: abs(t - best.common)
        ):  # of equals the nearest
            tried = Thresholds(best.common, {**best.own, str(class_id): float(threshold)})
            tried_scores = [before.copy() for before in best_scores]
            for after, part, images in zip(tried_scores, changing, affected, strict=True):
                if images.any():
                    after[images[: len(after)]] = image_scores(part, tried)
            changes = zip(tried_scores, best_scores, strict=True)
            gain = np.array([after.mean() - before.mean() for after, before in changes])
            if (gain > -ROUNDING).all() and gain.sum() > ROUNDING:
                best, best_scores = tried, tried_scores
    return best


def _gains(ranked: RankedCandidates, thresholds: Thresholds) -> np.ndarray:
    classes, positions = np.unique(ranked.counts.classes, return_inverse=True)
    return ranked.scores - np.array([thresholds[str(class_id)] for class_id in classes], float)[positions]


def _class_and_submitted(
    ranked: RankedCandidates, class_id: int, thresholds: Thresholds, single: bool
) -> RankedCandidates:
    """The candidates of a class, and those of other classes that may be submitted at any threshold of the class."""
    of_class = ranked.counts.classes == class_id
    gains = np.where(of_class, -np.inf, _gains(ranked, thresholds))
    return ranked.rows(of_class | ranked.submitted(gains, single))
