"""Candidates of all validation images as arrays of whole numbers, so that a sweep of thresholds needs no masks."""

from dataclasses import dataclass, replace

import numpy as np

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Tune
from fashionseg.submit.postprocess import PostProcessing, expected_jaccard
from fashionseg.submit.tune.matched_images import MatchedImage

SUPPRESSION = {"nms_iou": (0.3, 0.5, 0.7), "mask_overlap": (0.5, 0.7, 0.9)}  # values that are tried
ROUNDING = 1e-12  # rounding error of a sum over many images
CANDIDATE_COLUMNS = ("images", "classes", "nearest", "iou_levels", "f1_levels")  # of MatchCounts, one value a candidate


@dataclass(frozen=True)
class RankedCandidates:
    """Candidates (n) of many images after suppression, best first within an image.

    counts: as if all were submitted; scores (n,): the score, or the score that a selector expects.
    """

    counts: kaggle_metric.MatchCounts
    scores: np.ndarray

    def submitted(self, gains: np.ndarray, single: bool) -> np.ndarray:
        """(n,) bool: the best candidate of each image and, unless `single`, all with gain >= 0. Where an image may be
        left empty (counts.filler_class is None) the best needs that gain, too.

        gains (n,): scores minus a threshold, which may differ by class: suppression is within a class, so only the
        order within a class must be that of the scores.
        """
        starts = np.flatnonzero(np.diff(self.counts.images, prepend=-1))
        best = np.zeros(len(gains), bool)
        if len(starts):
            highest = np.maximum.reduceat(gains, starts)
            ties = np.flatnonzero(gains == np.repeat(highest, np.diff(starts, append=len(gains))))
            best[ties[np.diff(self.counts.images[ties], prepend=-1) > 0]] = True  # the first of equals
        above = gains >= 0
        if self.counts.filler_class is None:
            return best & above if single else above
        return best if single else best | above

    def submitted_counts(self, gains: np.ndarray, single: bool) -> kaggle_metric.MatchCounts:
        """The counts of what `submitted` chooses."""
        return self.rows(self.submitted(gains, single)).counts

    def metric_score(self, gains: np.ndarray, single: bool, metric: Tune) -> float:
        """The competition's metric of what `submitted` chooses."""
        return kaggle_metric.score(self.submitted_counts(gains, single), metric)

    def jaccard_gains(self, true_per_image: float) -> np.ndarray:
        """(n,) the expected score of what a selector with this true_per_image submits, -1 for the others."""
        images = self.counts.images
        first = np.searchsorted(images, images)
        sums = np.cumsum(self.scores)
        hits = sums - (sums - self.scores)[first]
        jaccards = expected_jaccard(hits, np.arange(len(images)) - first + 1, true_per_image)
        best, last = np.zeros(self.counts.image_count), np.zeros(self.counts.image_count, int)
        np.maximum.at(best, images, jaccards)
        reaching = np.flatnonzero(jaccards >= best[images] - ROUNDING)
        last[images[reaching]] = reaching  # the last of equals
        return np.where(np.arange(len(images)) <= last[images], self.scores, -1.0)

    def rows(self, chosen: np.ndarray) -> "RankedCandidates":
        """Some of the candidates. chosen: (n,) bool, or their indices in the order wanted."""
        columns = {name: getattr(self.counts, name)[chosen] for name in CANDIDATE_COLUMNS}
        return RankedCandidates(replace(self.counts, **columns), self.scores[chosen])

    def of_images(self, chosen: np.ndarray) -> "RankedCandidates":
        """The candidates of some images, renumbered from 0. chosen: (image_count,) bool."""
        counts, numbers = self.counts, np.cumsum(chosen) - 1
        kept, true = self.rows(chosen[counts.images]), chosen[counts.true_images]
        counts = replace(
            kept.counts,
            images=numbers[kept.counts.images],
            true_images=numbers[counts.true_images[true]],
            true_classes=counts.true_classes[true],
            image_count=int(chosen.sum()),
        )
        return replace(kept, counts=counts)


@dataclass(frozen=True, kw_only=True)
class CandidateTable:
    """Candidates (n) of many images before suppression, and the pairs (p) of which one may suppress the other.

    counts: as if all were submitted; areas (n,) in pixels of the grid; suppressed, by (p,): indices of two candidates
    of one image and class, either of which may have the higher score; iou (p,) of their masks; covered (p,) the share
    of `suppressed` that `by` covers.
    """

    counts: kaggle_metric.MatchCounts
    areas: np.ndarray
    suppressed: np.ndarray
    by: np.ndarray
    iou: np.ndarray
    covered: np.ndarray

    @classmethod
    def of(cls, images: list[MatchedImage], f1_levels: list[np.ndarray], filler_class: int | None) -> "CandidateTable":
        """f1_levels: of each image (n,), how many F1 thresholds the attributes of each candidate exceed."""
        counts, pairs, start = [], [], 0
        for image, levels in zip(images, f1_levels, strict=True):
            candidates = image.candidates
            of_image = kaggle_metric.image_counts(
                candidates.classes,
                image.nearest,
                image.iou,
                levels,
                true_classes=image.truth.classes,
                filler_class=filler_class,
            )
            counts.append(of_image)
            same_class = candidates.classes[:, None] == candidates.classes
            near = candidates.iou > min(SUPPRESSION["nms_iou"])
            near |= candidates.covered > min(SUPPRESSION["mask_overlap"])
            pair = np.nonzero(same_class & near)
            pairs.append([*(rows + start for rows in pair), candidates.iou[pair], candidates.covered[pair]])
            start += len(levels)
        suppressed, by, iou, covered = map(np.concatenate, zip(*pairs, strict=True))
        return cls(
            counts=kaggle_metric.joined(counts),
            areas=np.concatenate([image.candidates.areas for image in images]),
            suppressed=suppressed,
            by=by,
            iou=iou,
            covered=covered,
        )

    def ranked(self, scores: np.ndarray, post: PostProcessing) -> RankedCandidates:
        """What `post.select` leaves of each image's candidates by these scores (n,) >= 0 if no gain is below 0."""
        images = self.counts.images
        order = np.lexsort((-scores, images))
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order)) - np.searchsorted(images, images)[order]
        excluded = self.areas < post.min_area
        pairs = (self.iou > post.nms_iou) | (self.covered > post.mask_overlap)
        pairs &= rank[self.suppressed] > rank[self.by]
        suppressed, by = self.suppressed[pairs], self.by[pairs]
        by_rank = np.argsort(rank[by], kind="stable")
        ends = np.cumsum(np.bincount(rank[by]))
        for rows in np.split(by_rank, ends[:-1]):  # by rising rank: whether `by` itself is suppressed is then known
            excluded[suppressed[rows[~excluded[by[rows]]]]] = True
        return RankedCandidates(self.counts, scores).rows(order[~excluded[order]])
