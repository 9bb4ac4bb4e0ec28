"""What to claim, chosen on the validation images; what that gains, measured on images not used to choose.

Three ways, each fitted to a formula: `score`, one threshold for all classes; `rule`, thresholds for each class and
attribute, suppression and least area as well; `selector`, a forest that predicts the value of each claim over the sweep
(the winner's of 2020). Thresholds of attributes and of the masks' probabilities are common to all three. Predictions
meet the truth once; what is swept after that is whole numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.progress import track
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, TargetEncoder

from fashionseg import rle
from fashionseg.claiming.candidates import (
    FEATURES,
    Candidates,
    Prediction,
    by_image,
    candidates,
    features,
    grid,
    on_grid,
)
from fashionseg.claiming.forest import from_sklearn
from fashionseg.claiming.rule import NEVER, Rule, Selector, Thresholds, expected_jaccard
from fashionseg.errors import UserError
from fashionseg.evaluation import kaggle
from fashionseg.params import Submission, Tune

FORMULAS = ("precision", "jaccard")
FLOORS = np.arange(0, 100, 5) / 100  # of scores and of expected values
SUPPRESSION = {"nms_iou": (0.3, 0.5, 0.7), "mask_overlap": (0.5, 0.7, 0.9)}
AREAS = (1, 2, 4, 8, 16)  # times submission.min_area
MASK_THRESHOLDS = np.arange(30, 75, 5) / 100  # of a mask's probabilities
NEAR = 0.3  # IoU of a mask that another threshold may bring to a true instance
SWEPT = 1000  # images at most for which masks are pasted at every threshold
PARTS = 4  # of the images, on each of which a class's own threshold has to pay
FEW = 20  # examples; with fewer, the value common to all serves
DEPTH = 8  # of the winner's trees
SAMPLE = 30_000  # candidates of which a tree is grown where there are more than three times as many
BATCH = 50  # images that a worker takes at a time
ROUNDING = 1e-12  # of a sum of many images' values
COLUMNS = ("images", "classes", "true", "overlap", "agreement")  # of a tally, one row a claim


@dataclass(frozen=True)
class Image:
    """Candidates of one validation image; for each the true instance of its class it overlaps most, and their IoU."""

    found: Candidates
    truth: kaggle.Instances
    true: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Pool:
    """Candidates of many images without those that a better one holds already, and the worth (n,) of each."""

    tally: kaggle.Tally
    worth: np.ndarray

    def claimed(self, worth: np.ndarray, single: bool) -> kaggle.Tally:
        """What is worth 0 or more, or only the best; the best of an image always is.

        worth (n,) may differ from that of the pool by a number for each class, which does not change the order within
        a class, and that is all the order that counts.
        """
        starts = np.flatnonzero(np.diff(self.tally.images, prepend=-1))
        best = np.zeros(len(worth), bool)
        if len(starts):
            most = np.maximum.reduceat(worth, starts)
            at_most = np.flatnonzero(worth == np.repeat(most, np.diff(starts, append=len(worth))))
            best[at_most[np.diff(self.tally.images[at_most], prepend=-1) > 0]] = True  # of equals the first
        claimed = best if single else best | (worth >= 0)
        return replace(self.tally, **{name: getattr(self.tally, name)[claimed] for name in COLUMNS})

    def value(self, worth: np.ndarray, single: bool, metric: Tune) -> float:
        return kaggle.value(self.claimed(worth, single), metric)

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

    def of(self, chosen: np.ndarray) -> "Pool":
        """That of some of the images: `chosen` (count,) bool."""
        tally, number = self.tally, np.cumsum(chosen) - 1
        rows, true = chosen[tally.images], chosen[tally.true_images]
        columns = {name: getattr(tally, name)[rows] for name in COLUMNS}
        columns |= {"images": number[columns["images"]], "count": int(chosen.sum())}
        truth = {"true_images": number[tally.true_images[true]], "true_classes": tally.true_classes[true]}
        return Pool(replace(tally, **columns, **truth), self.worth[rows])


@dataclass(frozen=True)
class Stock:
    """Candidates of many images in one table, and all pairs of them of which one might suppress the other.

    tally: as if all were claimed; areas (n,); loser, winner (p,) numbers of candidates of one image and class; their
    iou (p,); covered (p,) the share of the loser that the winner covers.
    """

    tally: kaggle.Tally
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
            overlap = kaggle.level(image.iou)
            tallies.append(
                kaggle.Tally(zeros, found.classes, image.true, overlap, levels, true_zeros, classes, count=1)
            )
            alike = found.classes[:, None] == found.classes
            near = (found.iou > min(SUPPRESSION["nms_iou"])) | (found.covered > min(SUPPRESSION["mask_overlap"]))
            pair = np.nonzero(alike & near)
            pairs.append([*(rows + start for rows in pair), found.iou[pair], found.covered[pair]])
            start += len(levels)
        areas = np.concatenate([image.found.areas for image in images])
        return cls(kaggle.joined(tallies), areas, *map(np.concatenate, zip(*pairs, strict=True)))

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
        kept = order[~out[order]]
        columns = {name: getattr(self.tally, name)[kept] for name in COLUMNS}
        return Pool(replace(self.tally, **columns), worth[kept])


def match(
    document: dict[str, Any],
    predictions: list[Prediction],
    params: Submission,
    workers: int = 1,
    mask_threshold: float | None = None,
) -> list[Image]:
    """Predictions of all images against the truth, on the submission's grid; their masks as `Rule` says."""
    predicted = by_image(predictions, document)
    truth: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in predicted}
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    tasks = [
        joblib.delayed(_matched)(
            predicted[image["id"]], truth[image["id"]], image["height"], image["width"], params, mask_threshold
        )
        for image in document["images"]
    ]
    done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
    return list(track(done, "match", total=len(tasks)))


def _matched(
    predictions: list[Prediction],
    rows: list[dict[str, Any]],
    height: int,
    width: int,
    params: Submission,
    mask_threshold: float | None,
) -> Image:
    found = candidates(predictions, height, width, params, mask_threshold)
    masks = rle.from_coco([row["segmentation"] for row in rows]).resize(*grid(height, width, params.longest_side))
    classes = np.array([row["category_id"] for row in rows], int)
    true = kaggle.Instances(masks, classes, [frozenset(row["attribute_ids"]) for row in rows])
    claims = kaggle.Instances(found.masks, found.classes, [frozenset()] * len(found.classes))
    return Image(found, true, *kaggle.overlaps(claims, true))


@dataclass(frozen=True)
class MaskSweep:
    """What masks that lie near a true instance are worth at other thresholds.

    images (p,) the number of each one's image; scores (p,); levels (p, 1 + len(MASK_THRESHOLDS)), how many IoU
    thresholds it exceeds as predicted and at each of MASK_THRESHOLDS.
    """

    images: np.ndarray
    scores: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, document: dict[str, Any], images: list[Image], params: Submission, workers: int) -> "MaskSweep":
        """Of SWEPT images at most, evenly spread; images: those of `match` with the masks as predicted."""
        chosen = range(0, len(images), -(-len(images) // SWEPT))
        sizes = [(document["images"][i]["height"], document["images"][i]["width"]) for i in chosen]
        tasks = [joblib.delayed(_swept)(images[i], *size, params) for i, size in zip(chosen, sizes, strict=True)]
        done = joblib.Parallel(max(1, workers), batch_size=BATCH, return_as="generator")(tasks)
        scores, levels = zip(*track(done, "sweep masks", total=len(tasks)), strict=True)
        numbers = np.repeat(np.array(chosen), [len(of_image) for of_image in scores])
        return cls(numbers, np.concatenate(scores), np.concatenate(levels))

    def best(self, images: np.ndarray) -> float | None:
        """The threshold that serves the masks of the images of these numbers best, each as its score counts."""
        rows = np.isin(self.images, images)
        place = int((self.scores[rows] @ self.levels[rows]).argmax())  # of equals the masks as predicted
        return float(MASK_THRESHOLDS[place - 1]) if place else None

    def table(self) -> pd.DataFrame:
        """One row a threshold: value, the mean share of the IoU thresholds that a mask exceeds."""
        whole = max(self.scores.sum(), 1e-9) * kaggle.LEVELS
        return pd.DataFrame({"threshold": MASK_THRESHOLDS, "value": self.scores @ self.levels[:, 1:] / whole})


def _swept(image: Image, height: int, width: int, params: Submission) -> tuple[np.ndarray, np.ndarray]:
    near = np.flatnonzero(image.iou >= NEAR)
    first = near[np.unique(image.true[near], return_index=True)[1]]  # a true instance is found once, by the best
    true, predictions = image.truth.masks[image.true[first]], [image.found.predictions[i] for i in first]
    ious = [on_grid(predictions, height, width, params, threshold).iou(true) for threshold in MASK_THRESHOLDS]
    return image.found.scores[first], kaggle.level(np.stack([image.iou[first], *ious], axis=1))


def attribute_thresholds(images: list[Image]) -> Thresholds:
    """Least score by "category/attribute" that gives the best F1 on predictions which meet a true instance."""
    rows = []
    for image in images:
        for i in np.flatnonzero(image.iou > kaggle.THRESHOLDS[0]):
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
        selector, expected, tables = self._selector(images, common, agreed)
        by_score = stock.pool(scores, common)
        rules, sweeps = {}, {"threshold": FLOORS}
        for formula in FORMULAS:
            metric = replace(self.params, formula=formula)
            floor, single, sweeps[formula] = self._floor(by_score, metric)
            score = replace(common, scores=Thresholds(floor), claims_per_image=1 if single else None)
            rule, _ = self._suppressed(stock, scores, score, self._by_floor(floor, single, metric))
            rules["score", formula] = score
            rules["rule", formula] = replace(rule, scores=self._by_class(stock.pool(scores, rule), rule, metric))
            if selector:
                rules["selector", formula] = self._claiming(stock, expected, replace(common, selector=selector), metric)
        return rules, {"thresholds": pd.DataFrame(sweeps), **tables}

    def agreed(self, image: Image, rule: Rule) -> np.ndarray:
        """(n,) how many F1 thresholds each candidate's attributes exceed."""
        claimed = rule.attribute_sets(image.found.predictions)
        levels = [
            kaggle.agreement(ids, image.truth.attributes[true], self.params.f1, self.attributes) if iou else 0
            for ids, true, iou in zip(claimed, image.true, image.iou, strict=True)
        ]
        return np.array(levels, int)

    def _selector(
        self, images: list[Image], rule: Rule, agreed: list[np.ndarray]
    ) -> tuple[Selector | None, np.ndarray, dict[str, pd.DataFrame]]:
        """The forest; the values that forests which never saw an image expect of its candidates; tables on both."""
        overlap = np.concatenate([kaggle.level(image.iou) for image in images])
        value = overlap * np.concatenate(agreed) / kaggle.LEVELS**2
        classes = np.concatenate([image.found.classes for image in images])
        known = np.concatenate([features(i.found, rule.attribute_sets(i.found.predictions)) for i in images])
        ends = np.cumsum([len(image.iou) for image in images])
        groups = np.searchsorted(ends, np.arange(len(value)), side="right")
        folds = min(self.params.folds, len(np.unique(groups)))
        if folds < 2 or len(value) < 10 * self.params.leaf:
            empty = {"calibration": ["expected", "value", "claims"], "importance": ["feature", "importance"]}
            return None, np.zeros(0), {name: pd.DataFrame(columns=columns) for name, columns in empty.items()}
        # The encoder gives each class its mean value, drawn to that of all where examples are few.
        encoder = TargetEncoder(target_type="continuous", cv=KFold(5, shuffle=True, random_state=self.seed))
        trees = RandomForestRegressor(
            self.params.trees,
            max_depth=DEPTH,
            min_samples_leaf=self.params.leaf,
            max_features=1 / 3,
            max_samples=SAMPLE if len(value) > 3 * SAMPLE else None,
            random_state=self.seed,
            n_jobs=self.workers,
        )
        model = Pipeline(
            [
                ("class", ColumnTransformer([("mean", encoder, [0])], remainder="passthrough")),
                ("round", FunctionTransformer(np.round, kw_args={"decimals": 4})),
                ("forest", trees),
            ]
        )
        columns = np.column_stack([classes, known])
        expected = cross_val_predict(model, columns, value, groups=groups, cv=GroupKFold(folds))
        model.fit(columns, value)
        encoder = model["class"].named_transformers_["mean"]
        means = dict(zip(encoder.categories_[0].astype(int), encoder.encodings_[0].round(4), strict=True))
        of_class = Thresholds(round(float(encoder.target_mean_), 4), {str(c): float(mean) for c, mean in means.items()})
        names = ("of_class", *FEATURES)
        forest = model["forest"]
        bins = np.minimum((expected * 10).astype(int), 9)
        calibration = pd.DataFrame({"expected": expected, "value": value, "claims": 1}).groupby(bins)
        tables = {
            "calibration": calibration.agg({"expected": "mean", "value": "mean", "claims": "sum"}),
            "importance": pd.DataFrame({"feature": names, "importance": forest.feature_importances_}),
        }
        return Selector(0.0, of_class, from_sklearn(forest, names)), expected, tables

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

    def _by_class(self, pool: Pool, rule: Rule, metric: Tune) -> Thresholds:
        """A threshold for each class with enough examples, the most frequent first, where it costs on none of PARTS of
        the images and pays on some: judged on all of them at once it would fit their noise."""
        number_of = np.arange(pool.tally.count)
        parts = [pool.of(number_of % PARTS == part) for part in range(min(PARTS, len(number_of)))]

        def values(part: Pool, thresholds: Thresholds) -> np.ndarray:
            numbers, place = np.unique(part.tally.classes, return_inverse=True)
            floors = np.array([thresholds[str(number)] for number in numbers], float)
            return kaggle.values(part.claimed(part.worth - floors[place], rule.claims_per_image == 1), metric)

        numbers, counts = np.unique(pool.tally.classes, return_counts=True)
        best, reached = rule.scores, [values(part, rule.scores) for part in parts]
        for number in numbers[np.argsort(-counts, kind="stable")][: (counts >= FEW).sum()]:
            # The threshold of a class changes only images where it is a candidate; counts of all images know no images.
            shown = [np.full(part.tally.count, metric.average == "all") for part in parts]
            for part, seen in zip(parts, shown, strict=True):
                seen[part.tally.images[part.tally.classes == number]] = True
            changing = [part.of(seen) for part, seen in zip(parts, shown, strict=True)]
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


def claimed(rule: Rule, images: list[Image], submission: Submission) -> list[tuple[kaggle.Instances, kaggle.Instances]]:
    """What the rule claims of each image, masks made free of each other as in the submission, beside the truth."""
    pairs = []
    for image in images:
        predictions, attributes, masks = rule.claims(image.found, submission)
        classes = np.array([prediction["category_id"] for prediction in predictions], int)
        pairs.append((kaggle.Instances(masks, classes, attributes), image.truth))
    return pairs


def _tallies(
    rules: list[Rule], images: list[Image], params: Tune, submission: Submission, attributes: int
) -> list[kaggle.Tally]:
    return [kaggle.tally(claimed(rule, images, submission), params, attributes) for rule in rules]


def tune(
    document: dict[str, Any],
    predictions: list[Prediction],
    params: Tune,
    submission: Submission,
    seed: int,
    workers: int,
) -> tuple[Rule, str, dict[str, float], dict[str, pd.DataFrame]]:
    """The rule of the way whose cross-fitted value is highest, that way, values of `_choice`, and tables.

    Tables: `ways`, one row a formula and way: value on images not used to fit, gain over `score`, standard error of
    the gain; `masks`, `thresholds`, `calibration`, `importance` of the fit to all images. Raises UserError for fewer
    than two images.
    """
    count = len(document["images"])
    if count < 2:
        raise UserError(f"{count} validation image is too few to tune on; split.folds should leave two or more.")
    matched: dict[float | None, list[Image]] = {None: match(document, predictions, submission, workers)}
    sweep = MaskSweep.of(document, matched[None], submission, workers)

    def with_best_masks(chosen: np.ndarray) -> tuple[list[Image], float | None]:
        """All images with their masks at the threshold that serves the chosen ones best."""
        threshold = sweep.best(chosen)
        if threshold not in matched:
            matched[threshold] = match(document, predictions, submission, workers, threshold)
        return matched[threshold], threshold

    categories = [category["id"] for category in document["categories"]]
    attributes = len(document["attributes"])
    tuner = Tuner(params, submission, categories, attributes, seed, workers)
    rules, tables = tuner.fit(*with_best_masks(np.arange(count)))
    tallies: dict[tuple[str, str], list[kaggle.Tally]] = {key: [] for key in rules}  # one a fold
    folds = KFold(min(params.folds, count), shuffle=True, random_state=seed)
    for train, test in track(list(folds.split(np.arange(count))), "cross-fit"):
        images, threshold = with_best_masks(train)
        fitted = tuner.fit([images[i] for i in train], threshold)[0]
        # A fold may be too small for a forest.
        of_fold = [fitted.get((way, formula), fitted["rule", formula]) for way, formula in rules]
        batches = ([images[i] for i in test[start : start + BATCH]] for start in range(0, len(test), BATCH))
        tasks = (joblib.delayed(_tallies)(of_fold, batch, params, submission, attributes) for batch in batches)
        done = joblib.Parallel(max(1, workers))(tasks)
        for key, of_key in zip(rules, zip(*done, strict=True), strict=True):
            tallies[key].append(kaggle.joined(of_key))
    way, values = _choice({way: tallies[way, formula] for way, formula in rules if formula == params.formula}, params)
    return rules[way, params.formula], way, values, {"ways": _ways(tallies, params), "masks": sweep.table(), **tables}


def _choice(tallies: dict[str, list[kaggle.Tally]], metric: Tune) -> tuple[str, dict[str, float]]:
    """The way that is worth most, what each is worth and, as `value`, what such a choice is: one for each fold, made
    by what the ways are worth on the others, since the best of three is a lucky one as well."""

    def value(way: str, folds: list[int]) -> float:
        return kaggle.value(kaggle.joined([tallies[way][fold] for fold in folds]), metric)

    def best(folds: list[int]) -> str:
        return max(tallies, key=lambda way: value(way, folds))  # of equal ones the simplest

    folds = list(range(len(tallies["score"])))
    chosen = [tallies[best([other for other in folds if other != fold])][fold] for fold in folds]
    values = {"value": kaggle.value(kaggle.joined(chosen), metric)} | {way: value(way, folds) for way in tallies}
    return best(folds), {name: round(number, 5) for name, number in values.items()}


def _ways(tallies: dict[tuple[str, str], list[kaggle.Tally]], params: Tune) -> pd.DataFrame:
    whole = {key: kaggle.joined(of_fold) for key, of_fold in tallies.items()}
    rows = []
    for (way, formula), tally in whole.items():
        metric = replace(params, formula=formula)
        of_image = replace(metric, average="class" if metric.average == "class" else "image")
        value, base = (kaggle.value(one, metric) for one in (tally, whole["score", formula]))
        difference = kaggle.values(tally, of_image) - kaggle.values(whole["score", formula], of_image)
        error = np.std(difference) / np.sqrt(tally.count)
        rows.append({"formula": formula, "way": way, "value": value, "gain": value - base, "error": error})
    return pd.DataFrame(rows)
