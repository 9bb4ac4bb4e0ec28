"""Candidates of all images as tables of whole numbers, on which a sweep of thresholds needs no mask."""

from dataclasses import dataclass, replace

import numpy as np

from fashionseg.submit import kaggle_metric
from fashionseg.submit.config import Tune
from fashionseg.submit.postprocess import Rule, expected_jaccard
from fashionseg.submit.tune.matching import Image

SUPPRESSION = {"nms_iou": (0.3, 0.5, 0.7), "mask_overlap": (0.5, 0.7, 0.9)}
ROUNDING = 1e-12  # of a sum of many images' values
COLUMNS = ("images", "classes", "true", "overlap", "agreement")  # of a tally, one row a claim


@dataclass(frozen=True)
class Pool:
    """Candidates of many images without those that a better one holds already, and the worth (n,) of each."""

    tally: kaggle_metric.Tally
    worth: np.ndarray

    def claims(self, worth: np.ndarray, single: bool) -> np.ndarray:
        """(n,) bool: what is worth 0 or more, or only the best; the best of an image always is.

        worth (n,) may differ from that of the pool by a number for each class, which does not change the order within
        a class, and that is all the order that counts.
        """
        starts = np.flatnonzero(np.diff(self.tally.images, prepend=-1))
        best = np.zeros(len(worth), bool)
        if len(starts):
            most = np.maximum.reduceat(worth, starts)
            at_most = np.flatnonzero(worth == np.repeat(most, np.diff(starts, append=len(worth))))
            best[at_most[np.diff(self.tally.images[at_most], prepend=-1) > 0]] = True  # of equals the first
        return best if single else best | (worth >= 0)

    def claimed(self, worth: np.ndarray, single: bool) -> kaggle_metric.Tally:
        """The tally of `claims`."""
        return self.only(self.claims(worth, single)).tally

    def value(self, worth: np.ndarray, single: bool, metric: Tune) -> float:
        return kaggle_metric.value(self.claimed(worth, single), metric)

    def paying(self, instances: float) -> np.ndarray:
        """(n,) worth, of what `Rule` with a selector of so many `instances` claims; -1 of the others."""
        images = self.tally.images
        first = np.searchsorted(images, images)
        sums = np.cumsum(self.worth)
        hits = sums - (sums - self.worth)[first]
        values = expected_jaccard(hits, np.arange(len(images)) - first + 1, instances)
        best, last = np.zeros(self.tally.count), np.zeros(self.tally.count, int)
        np.maximum.at(best, images, values)
        reached = np.flatnonzero(values >= best[images] - ROUNDING)
        last[images[reached]] = reached  # the last of equals
        return np.where(np.arange(len(images)) <= last[images], self.worth, -1.0)

    def only(self, rows: np.ndarray) -> "Pool":
        """Some of the candidates: `rows` (n,) bool, or their numbers in the order wanted."""
        columns = {name: getattr(self.tally, name)[rows] for name in COLUMNS}
        return Pool(replace(self.tally, **columns), self.worth[rows])

    def of_images(self, chosen: np.ndarray) -> "Pool":
        """That of some of the images: `chosen` (count,) bool."""
        tally, number = self.tally, np.cumsum(chosen) - 1
        kept, true = self.only(chosen[tally.images]), chosen[tally.true_images]
        truth = {"true_images": number[tally.true_images[true]], "true_classes": tally.true_classes[true]}
        return replace(
            kept, tally=replace(kept.tally, images=number[kept.tally.images], count=int(chosen.sum()), **truth)
        )


@dataclass(frozen=True)
class Stock:
    """Candidates of many images in one table, and all pairs of them of which one might suppress the other.

    tally: as if all were claimed; areas (n,); loser, winner (p,) numbers of candidates of one image and class; their
    iou (p,); covered (p,) the share of the loser that the winner covers.
    """

    tally: kaggle_metric.Tally
    areas: np.ndarray
    loser: np.ndarray
    winner: np.ndarray
    iou: np.ndarray
    covered: np.ndarray

    @classmethod
    def of(cls, images: list[Image], agreed: list[np.ndarray]) -> "Stock":
        """agreed: how many F1 thresholds each candidate of each image exceeds."""
        tallies, pairs, start = [], [], 0
        for image, levels in zip(images, agreed, strict=True):
            found, classes = image.found, image.truth.classes
            zeros, true_zeros = np.zeros(len(levels), int), np.zeros(len(classes), int)
            overlap = kaggle_metric.level(image.iou)
            tallies.append(
                kaggle_metric.Tally(zeros, found.classes, image.true, overlap, levels, true_zeros, classes, count=1)
            )
            alike = found.classes[:, None] == found.classes
            near = (found.iou > min(SUPPRESSION["nms_iou"])) | (found.covered > min(SUPPRESSION["mask_overlap"]))
            pair = np.nonzero(alike & near)
            pairs.append([*(rows + start for rows in pair), found.iou[pair], found.covered[pair]])
            start += len(levels)
        areas = np.concatenate([image.found.areas for image in images])
        return cls(kaggle_metric.joined(tallies), areas, *map(np.concatenate, zip(*pairs, strict=True)))

    def pool(self, worth: np.ndarray, rule: Rule) -> Pool:
        """What `rule.chosen` leaves of each image's candidates, worth (n,) 0 or more, best first, if all paid."""
        images = self.tally.images
        order = np.lexsort((-worth, images))
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order)) - np.searchsorted(images, images)[order]
        out = self.areas < rule.min_area
        doubled = (self.iou > rule.nms_iou) | (self.covered > rule.mask_overlap)
        doubled &= rank[self.loser] > rank[self.winner]
        loser, winner = self.loser[doubled], self.winner[doubled]
        by_rank = np.argsort(rank[winner], kind="stable")
        ends = np.cumsum(np.bincount(rank[winner]))
        for pairs in np.split(by_rank, ends[:-1]):  # the winners of a rank stay or went by those of the ranks before
            out[loser[pairs[~out[winner[pairs]]]]] = True
        return Pool(self.tally, worth).only(order[~out[order]])
