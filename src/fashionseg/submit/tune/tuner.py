"""Fits the rule of each way to each formula."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import Rule, Thresholds
from fashionseg.submit.tune.matching import Image
from fashionseg.submit.tune.pool import SUPPRESSION, Pool, Stock
from fashionseg.submit.tune.selector import fit_selector
from fashionseg.submit.tune.thresholds import FLOORS, attribute_thresholds, class_thresholds

FORMULAS = ("precision", "jaccard")
AREAS = (1, 2, 4, 8, 16)  # times submission.min_area


@dataclass(frozen=True)
class Tuner:
    """Fits rules to images. categories: ids of the label file; attributes: how many it has."""

    params: Tune
    submission: Submission
    categories: list[int]
    attributes: int
    seed: int
    workers: int

    def fit(
        self, images: list[Image], mask_threshold: float | None = None
    ) -> tuple[dict[tuple[str, str], Rule], dict[str, pd.DataFrame]]:
        """The rule of each way and formula, and tables: thresholds; calibration and importance of the selector.

        mask_threshold: the one that the images' masks are of.
        There is no selector where candidates are too few for a forest.
        """
        common = Rule(
            claims_per_image=None,
            nms_iou=1.0,
            mask_overlap=1.0,
            min_area=self.submission.min_area,
            scores=Thresholds(0.5),
            attributes=attribute_thresholds(images),
            selector=None,
            categories=self.categories,
            mask_threshold=mask_threshold,
        )
        agreed = [self.agreed(image, common) for image in images]
        stock = Stock.of(images, agreed)
        scores = np.concatenate([image.found.scores for image in images])
        selector, expected, tables = fit_selector(images, agreed, common, self.params, self.seed, self.workers)
        by_score = stock.pool(scores, common)
        rules, sweeps = {}, {"threshold": FLOORS}
        for formula in FORMULAS:
            metric = replace(self.params, formula=formula)
            floor, single, sweeps[formula] = self._floor(by_score, metric)
            score = replace(common, scores=Thresholds(floor), claims_per_image=1 if single else None)
            rule, _ = self._suppressed(stock, scores, score, self._by_floor(floor, single, metric))
            rules["score", formula] = score
            rules["rule", formula] = replace(rule, scores=class_thresholds(stock.pool(scores, rule), rule, metric))
            if selector:
                rules["selector", formula] = self._claiming(stock, expected, replace(common, selector=selector), metric)
        return rules, {"thresholds": pd.DataFrame(sweeps), **tables}

    def agreed(self, image: Image, rule: Rule) -> np.ndarray:
        """(n,) how many F1 thresholds each candidate's attributes exceed."""
        claimed = rule.attribute_sets(image.found.predictions)
        levels = [
            kaggle_metric.agreement(ids, image.truth.attributes[true], self.params.f1, self.attributes) if iou else 0
            for ids, true, iou in zip(claimed, image.true, image.iou, strict=True)
        ]
        return np.array(levels, int)

    def _floor(self, pool: Pool, metric: Tune) -> tuple[float, bool, np.ndarray]:
        """The least worth that pays best, whether the best of an image alone does better, and the values at FLOORS."""
        values = np.array([pool.value(pool.worth - floor, False, metric) for floor in FLOORS])
        single = pool.value(pool.worth, True, metric) >= values.max()
        return float(FLOORS[values.argmax()]), bool(single), values

    def _by_floor(self, floor: float, single: bool, metric: Tune) -> Callable[[Pool], float]:
        """What a pool is worth when one floor serves all its images."""
        return lambda pool: pool.value(pool.worth - floor, single, metric)

    def _suppressed(
        self, stock: Stock, worth: np.ndarray, rule: Rule, value: Callable[[Pool], float]
    ) -> tuple[Rule, float]:
        """The rule with the suppression and least area whose pool has most value, one after the other; that value."""
        options = [{name: value} for name, values in SUPPRESSION.items() for value in values]
        options = [] if rule.claims_per_image == 1 else options  # a single claim has no rival
        options += [{"min_area": self.submission.min_area * factor} for factor in AREAS[1:]]
        best = value(stock.pool(worth, rule))
        for option in options:
            tried = replace(rule, **option)
            if (reached := value(stock.pool(worth, tried))) > best:
                rule, best = tried, reached
        return rule, best

    def _claiming(self, stock: Stock, expected: np.ndarray, rule: Rule, metric: Tune) -> Rule:
        """The rule of a selector: the single claim, one floor for all images or, for jaccard by image, one for each."""
        selector = rule.selector
        least, single, _ = self._floor(stock.pool(expected, rule), metric)
        chooser = replace(rule, claims_per_image=1 if single else None)
        chooser, best = self._suppressed(stock, expected, chooser, self._by_floor(least, single, metric))
        if not single:  # with doubles gone more claims pay
            least, _, values = self._floor(stock.pool(expected, chooser), metric)
            best = values.max()
        if (metric.formula, metric.average) == ("jaccard", "image"):
            instances = round(len(stock.tally.true_images) / stock.tally.count, 3)
            by_image, reached = self._suppressed(
                stock,
                expected,
                replace(rule, selector=replace(selector, instances=instances)),
                lambda pool: pool.value(pool.paying(instances), False, metric),
            )
            if reached > best:
                return by_image
        return replace(chooser, selector=replace(selector, least=least))
