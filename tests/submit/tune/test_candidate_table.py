"""The tables of candidates give what `PostProcessing` gives image by image."""

from dataclasses import replace

import numpy as np
import pytest

from fashionseg.submit import kaggle_metric
from fashionseg.submit.postprocess import Selector, Thresholds
from fashionseg.submit.tune.candidate_table import CandidateTable
from fashionseg.submit.tune.matched_images import match_images
from fashionseg.submit.tune.tuner import FORMULAS
from submission_scenes import FILLER_CLASS, PARAMS, PLAIN, TUNE, crowd


@pytest.mark.parametrize(
    "changes", [{}, {"nms_iou": 0.3}, {"mask_overlap": 0.5}, {"nms_iou": 0.5, "mask_overlap": 0.7, "min_area": 300}]
)
def test_suppression_of_all_images_at_once(changes):
    """Compared with `PostProcessing.select` image by image; also for a part of the images."""
    random = np.random.default_rng(4)
    images = match_images(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    gains_by_image = [random.integers(0, 10, len(image.iou)) / 10 for image in images]  # many ties
    post = replace(PLAIN, **changes)
    ranked = CandidateTable.of(images, levels, FILLER_CLASS).ranked(np.concatenate(gains_by_image), post)
    selected = [post.select(image.candidates, gains) for image, gains in zip(images, gains_by_image, strict=True)]
    np.testing.assert_array_equal(ranked.counts.images, np.repeat(np.arange(30), [len(kept) for kept in selected]))
    for column, by_image in (
        (ranked.scores, gains_by_image),
        (ranked.counts.f1_levels, levels),
        (ranked.counts.iou_levels, [kaggle_metric.level(image.iou) for image in images]),
        (ranked.counts.classes, [image.candidates.classes for image in images]),
    ):
        np.testing.assert_array_equal(column, np.concatenate([v[k] for v, k in zip(by_image, selected, strict=True)]))
    some = np.arange(30) % 3 == 1
    expected = CandidateTable.of(images[1::3], levels[1::3], FILLER_CLASS).ranked(
        np.concatenate(gains_by_image[1::3]), post
    )
    for formula in FORMULAS:
        metric = replace(TUNE, formula=formula)
        part = ranked.of_images(some)
        assert part.metric_score(part.scores - 0.4, False, metric) == expected.metric_score(
            expected.scores - 0.4, False, metric
        )


@pytest.mark.parametrize("true_per_image", [0.5, 3.0, 9.0])
def test_jaccard_gains_submit_what_post_processing_selects(true_per_image):
    random = np.random.default_rng(5)
    images = match_images(*crowd(30, random), PARAMS)
    levels = [random.integers(0, 11, len(image.iou)) for image in images]
    gains_by_image = [random.random(len(image.iou)) for image in images]
    post = replace(PLAIN, nms_iou=0.5, selector=Selector(0.0, Thresholds(0.0), None, true_per_image))
    ranked = CandidateTable.of(images, levels, FILLER_CLASS).ranked(np.concatenate(gains_by_image), post)
    selected = [post.select(image.candidates, gains) for image, gains in zip(images, gains_by_image, strict=True)]
    expected = np.concatenate([gains[kept] for gains, kept in zip(gains_by_image, selected, strict=True)])
    np.testing.assert_array_equal(
        ranked.jaccard_gains(true_per_image)[ranked.jaccard_gains(true_per_image) >= 0], expected
    )
    submitted = ranked.submitted_counts(ranked.jaccard_gains(true_per_image), False)
    np.testing.assert_array_equal(submitted.images, np.repeat(np.arange(30), [len(kept) for kept in selected]))
