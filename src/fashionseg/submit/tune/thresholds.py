"""Thresholds of single attributes and classes, where there is enough to tell them from the common one."""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Tune
from fashionseg.submit.postprocess import NEVER, Rule, Thresholds
from fashionseg.submit.tune.matching import Image
from fashionseg.submit.tune.pool import ROUNDING, Pool

FLOORS = np.arange(0, 100, 5) / 100  # of scores and of expected values
PARTS = 4  # of the images, on each of which a class's own threshold has to pay
FEW = 20  # examples; with fewer, the value common to all serves


def attribute_thresholds(images: list[Image]) -> Thresholds:
    """Least score by "category/attribute" that gives the best F1 on predictions which meet a true instance."""
    rows = []
    for image in images:
        for i in np.flatnonzero(image.iou > kaggle_metric.THRESHOLDS[0]):
            prediction, true = image.found.predictions[i], image.truth.attributes[image.true[i]]
            scores = dict(zip(prediction["attribute_ids"], prediction["attribute_scores"], strict=True))
            rows += [
                (f"{prediction['category_id']}/{name}", scores.get(name, 0.0), name in true)
                for name in sorted(true | scores.keys())
            ]
    table = pd.DataFrame(rows, columns=["name", "score", "true"])
    if not table["true"].any():
        return Thresholds(0.5)
    common = _best_f1(table)
    enough = table[table["true"].groupby(table["name"]).transform("sum") >= FEW]
    return Thresholds(common, {str(name): _best_f1(group) for name, group in enough.groupby("name")})


def _best_f1(table: pd.DataFrame) -> float:
    precision, recall, thresholds = precision_recall_curve(table["true"], table["score"])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    # Halfway to the next lower score, as new pictures' scores fall between; a score of 0 stands for one not predicted.
    best = int(f1[:-1].argmax())
    return round(float(max(thresholds[best] + thresholds[max(best - 1, 0)], 0.02) / 2), 4)


def class_thresholds(pool: Pool, rule: Rule, metric: Tune) -> Thresholds:
    """A threshold for each class with enough examples, the most frequent first, where it costs on none of PARTS of the
    images and pays on some: judged on all of them at once it would fit their noise."""
    number_of, single = np.arange(pool.tally.count), rule.claims_per_image == 1
    parts = [pool.of_images(number_of % PARTS == part) for part in range(min(PARTS, len(number_of)))]

    def values(part: Pool, thresholds: Thresholds) -> np.ndarray:
        return kaggle_metric.values(part.claimed(_worth(part, thresholds), single), metric)

    numbers, counts = np.unique(pool.tally.classes, return_counts=True)
    best, reached = rule.scores, [values(part, rule.scores) for part in parts]
    for number in numbers[np.argsort(-counts, kind="stable")][: (counts >= FEW).sum()]:
        # The threshold of a class changes only images where it is a candidate; counts of all images know no images.
        shown = [np.full(part.tally.count, metric.average == "all") for part in parts]
        for part, seen in zip(parts, shown, strict=True):
            seen[part.tally.images[part.tally.classes == number]] = True
        changing = [
            _beside(part.of_images(seen), number, best, single) for part, seen in zip(parts, shown, strict=True)
        ]
        for floor in sorted((*FLOORS, NEVER), key=lambda floor: abs(floor - best.common)):  # of equals the nearest
            tried = Thresholds(best.common, {**best.own, str(number): float(floor)})
            value = [before.copy() for before in reached]
            for after, part, seen in zip(value, changing, shown, strict=True):
                if seen.any():
                    after[seen[: len(after)]] = values(part, tried)
            gain = np.array([after.mean() - before.mean() for after, before in zip(value, reached, strict=True)])
            if (gain > -ROUNDING).all() and gain.sum() > ROUNDING:
                best, reached = tried, value
    return best


def _worth(pool: Pool, thresholds: Thresholds) -> np.ndarray:
    numbers, place = np.unique(pool.tally.classes, return_inverse=True)
    return pool.worth - np.array([thresholds[str(number)] for number in numbers], float)[place]


def _beside(pool: Pool, number: int, thresholds: Thresholds, single: bool) -> Pool:
    """The candidates of a class, and of the others those that are claimed whatever its threshold, or might be."""
    of_class = pool.tally.classes == number
    return pool.only(of_class | pool.claims(np.where(of_class, -np.inf, _worth(pool, thresholds)), single))
