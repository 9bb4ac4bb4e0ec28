"""Fits the post-processing of each strategy for each formula of the metric."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Submission, Tune
from fashionseg.submit.postprocess import PostProcessing, Thresholds
from fashionseg.submit.tune.candidate_table import SUPPRESSION, CandidateTable, RankedCandidates
from fashionseg.submit.tune.matched_images import MatchedImage
from fashionseg.submit.tune.selector import fit_selector
from fashionseg.submit.tune.thresholds import SCORE_THRESHOLDS, attribute_thresholds, class_thresholds

FORMULAS = ("precision", "jaccard")
AREA_FACTORS = (2, 4, 8, 16)  # times submission.min_area


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """Fits post-processing to images.

    categories: ids of the label file; attribute_count: attributes it has; attribute_pairs: as in `PostProcessing`;
    filler_class: as in `MatchCounts`.
    """

    params: Tune
    submission: Submission
    categories: list[int]
    attribute_count: int
    attribute_pairs: dict[str, list[int]]
    filler_class: int | None
    seed: int
    workers: int

    def fit(
        self, images: list[MatchedImage], mask_threshold: float | None = None
    ) -> tuple[dict[tuple[str, str], PostProcessing], dict[str, pd.DataFrame]]:
        """The post-processing of each (strategy, formula), and the tables thresholds, calibration and importance.

        mask_threshold: the one that the masks of the images were made with. There is no strategy `selector` where
        candidates are too few for a forest.
        """
        common = PostProcessing(
            max_per_image=None,
            nms_iou=1.0,
            mask_overlap=1.0,
            min_area=self.submission.min_area,
            score_thresholds=Thresholds(0.5),
            attribute_thresholds=attribute_thresholds(images, self.attribute_pairs),
            attribute_pairs=self.attribute_pairs,
            selector=None,
            categories=self.categories,
            mask_threshold=mask_threshold,
            may_be_empty=self.filler_class is None,
        )
        f1_levels = [self.f1_levels(image, common) for image in images]
        table = CandidateTable.of(images, f1_levels, self.filler_class)
        scores = np.concatenate([image.candidates.scores for image in images])
        selector, expected, tables = fit_selector(
            images, f1_levels, common, self.params, seed=self.seed, workers=self.workers
        )
        ranked = table.ranked(scores, common)
        fitted, sweeps = {}, {"threshold": SCORE_THRESHOLDS}
        for formula in FORMULAS:
            metric = replace(self.params, formula=formula)
            threshold, single, sweeps[formula] = self._best_threshold(ranked, metric)
            by_score = replace(common, score_thresholds=Thresholds(threshold), max_per_image=1 if single else None)
            fitted["score", formula] = by_score
            score_of = self._score_at(threshold, single, metric)
            by_rule, _ = self._best_suppression(table, scores, by_score, score_of)
            own_thresholds = class_thresholds(table.ranked(scores, by_rule), by_rule, metric)
            fitted["rule", formula] = replace(by_rule, score_thresholds=own_thresholds)
            if selector:
                with_selector = replace(common, selector=selector)
                fitted["selector", formula] = self._fit_selector_strategy(table, expected, with_selector, metric)
        return fitted, {"thresholds": pd.DataFrame(sweeps), **tables}

    def f1_levels(self, image: MatchedImage, post: PostProcessing) -> np.ndarray:
        """(n,) how many F1 thresholds the attributes submitted of each candidate exceed."""
        attribute_sets = post.attribute_sets(image.candidates.predictions)
        levels = [
            kaggle_metric.f1_level(ids, image.truth.attributes[true], self.params.f1, self.attribute_count)
            if iou
            else 0
            for ids, true, iou in zip(attribute_sets, image.nearest, image.iou, strict=True)
        ]
        return np.array(levels, int)

    def _best_threshold(self, ranked: RankedCandidates, metric: Tune) -> tuple[float, bool, np.ndarray]:
        """The best score threshold; whether only the best candidate of an image scores at least as high; the metric
        at each of SCORE_THRESHOLDS."""
        at_thresholds = np.array([ranked.metric_score(ranked.scores - t, False, metric) for t in SCORE_THRESHOLDS])
        best = at_thresholds.argmax()
        # The best candidate of an image is submitted at any threshold, unless the image may be left empty.
        tried = SCORE_THRESHOLDS if self.filler_class is None else SCORE_THRESHOLDS[:1]
        at_single = np.array([ranked.metric_score(ranked.scores - t, True, metric) for t in tried])
        single = bool(at_single.max() >= at_thresholds.max())
        if single and self.filler_class is None:
            best = at_single.argmax()
        return float(SCORE_THRESHOLDS[best]), single, at_thresholds

    def _score_at(self, threshold: float, single: bool, metric: Tune) -> Callable[[RankedCandidates], float]:
        return lambda ranked: ranked.metric_score(ranked.scores - threshold, single, metric)

    def _best_suppression(
        self,
        table: CandidateTable,
        scores: np.ndarray,
        post: PostProcessing,
        score_of: Callable[[RankedCandidates], float],
    ) -> tuple[PostProcessing, float]:
        """Suppression and least area with the highest score, tried one after the other, and that score."""
        options = [{name: value} for name, values in SUPPRESSION.items() for value in values]
        options = [] if post.max_per_image == 1 else options  # a single instance suppresses nothing
        options += [{"min_area": self.submission.min_area * factor} for factor in AREA_FACTORS]
        best = score_of(table.ranked(scores, post))
        for option in options:
            tried = replace(post, **option)
            if (score := score_of(table.ranked(scores, tried))) > best:
                post, best = tried, score
        return post, best

    def _fit_selector_strategy(
        self, table: CandidateTable, expected: np.ndarray, post: PostProcessing, metric: Tune
    ) -> PostProcessing:
        """With a selector: the best candidate alone, one threshold for all images or, for jaccard by image, as many
        candidates as raise the expected score of each image."""
        selector = post.selector
        threshold, single, _ = self._best_threshold(table.ranked(expected, post), metric)
        by_threshold = replace(post, max_per_image=1 if single else None)
        score_of = self._score_at(threshold, single, metric)
        by_threshold, best = self._best_suppression(table, expected, by_threshold, score_of)
        if not single:  # after suppression a lower threshold may be best
            _, _, at_thresholds = self._best_threshold(table.ranked(expected, by_threshold), metric)
            threshold, best = float(SCORE_THRESHOLDS[at_thresholds.argmax()]), at_thresholds.max()
        if (metric.formula, metric.average) == ("jaccard", "image") and self.filler_class is not None:
            true_per_image = round(len(table.counts.true_images) / table.counts.image_count, 3)
            by_image, score = self._best_suppression(
                table,
                expected,
                replace(post, selector=replace(selector, true_per_image=true_per_image)),
                lambda ranked: ranked.metric_score(ranked.jaccard_gains(true_per_image), False, metric),
            )
            if score > best:
                return by_image
        return replace(by_threshold, selector=replace(selector, threshold=threshold))
