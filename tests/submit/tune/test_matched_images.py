"""Candidates of the validation images matched with the truth, by worker processes."""

import numpy as np

from fashionseg.core import rle
from fashionseg.submit.candidates import grid_size
from fashionseg.submit.tune.matched_images import match_images
from submission_scenes import PARAMS, crowd


def test_candidates_keep_the_predictions_they_are_of():
    """The very objects: a second copy, from the workers, took more memory than all else."""
    document, predictions = crowd(6, np.random.default_rng(3))
    predictions[0]["segmentation"] = rle.from_kaggle(["1 1"], [100], [100]).to_coco()[0]  # below the least area
    images = match_images(document, predictions, PARAMS, workers=2)
    given = {id(prediction) for prediction in predictions[1:]}
    for image in images:
        candidates = image.candidates
        assert candidates.classes.tolist() == [p["category_id"] for p in candidates.predictions]
        masks = rle.from_coco([p["segmentation"] for p in candidates.predictions])
        assert masks.resize(*grid_size(100, 100, PARAMS)).to_coco() == candidates.masks.to_coco()
        given -= {id(prediction) for prediction in candidates.predictions}
    assert not given
