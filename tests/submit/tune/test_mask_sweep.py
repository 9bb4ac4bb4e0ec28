"""The sweep of mask thresholds equals matching the images again at each threshold."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import stats

from fashionseg.coco import masks
from fashionseg.submit import kaggle_metric
from fashionseg.submit.tune.mask_sweep import MASK_THRESHOLDS, NEAR_IOU, MaskSweep
from fashionseg.submit.tune.matched_images import match_images
from submission_scenes import PARAMS, document, prediction, rectangle


def test_sweep_equals_matching_at_every_threshold():
    """Soft masks of noise: the IoU level of the best candidate near each true instance."""
    random = np.random.default_rng(2)
    truth, predictions = [], []
    for i in range(1, 6):
        for place in range(4):
            x, y = place % 2 * 50, place // 2 * 50
            truth.append(prediction(rectangle(x + 5, y + 5, 30, 30), 1.0, image_id=i))
            for _ in range(2):
                noise = cv2.GaussianBlur(random.random((28, 28), np.float32), (0, 0), 2) * 0.3 + 0.4
                box = [x + 4, y + 4, *random.integers(26, 36, 2).tolist()]
                seen = masks.paste(masks.unpack(masks.pack(noise)), box, 100, 100, 0.5)[0].decode(0)
                score = round(float(random.uniform(0.1, 0.9)), 3)
                predictions.append({**prediction(seen, score, image_id=i), "bbox": box, "mask": masks.pack(noise)})
    scene = document(5, *truth), predictions
    images = match_images(*scene, PARAMS)
    sweep = MaskSweep.of(scene[0], images, PARAMS, workers=1)
    assert len(sweep.scores) > 10
    for column, threshold in enumerate([None, *MASK_THRESHOLDS]):
        row = 0
        for number, (image, moved) in enumerate(
            zip(images, match_images(*scene, replace(PARAMS, min_area=0), 1, threshold), strict=True)
        ):
            best = {}
            for i in range(len(image.iou)):
                if image.iou[i] >= NEAR_IOU:
                    best.setdefault(int(image.nearest[i]), i)
            for true in sorted(best):
                truth_mask = image.truth.masks[true]
                iou = moved.candidates.masks[best[true]].elementwise_iou(truth_mask)[0]
                assert (sweep.images[row], sweep.scores[row]) == (number, image.candidates.scores[best[true]])
                assert sweep.iou_levels[row, column] == sum(iou > t for t in kaggle_metric.THRESHOLDS)
                row += 1
        assert row == len(sweep.scores)


@pytest.mark.parametrize("gains", [[3, 3, 2], [3, 0, 0], [9, -2, -3], [0, 0, 0], [-1, -2, 0]])
def test_a_threshold_is_chosen_for_a_gain_beyond_its_standard_error(gains):
    """Of the images 1, 3, 4 and 5, which has no mask near a truth; image 2, of another fold, asks for another one."""
    images, place = np.array([1, 3, 4, 5]), 6
    levels = np.full((8, 1 + len(MASK_THRESHOLDS)), 5)
    levels[:, 1:] -= 4
    levels[:, place] = 5 + np.array([*gains, -5, *gains, -5])
    sweep = MaskSweep(np.array([1, 3, 4, 2] * 2), np.array([0.5] * 4 + [0.25] * 4), levels)
    sums = [0.75 * gain for gain in [*gains, 0]]
    beyond = np.mean(sums) > stats.sem(sums)
    assert sweep.best_threshold(images) == (MASK_THRESHOLDS[place - 1] if beyond else None)


def test_a_wide_picture_on_its_grid():
    wide = np.zeros((200, 400), bool)
    wide[40:120, 80:200] = True
    scene = document(1, prediction(wide, 1.0))
    scene["images"][0] |= {"height": 200, "width": 400}
    (image,) = images = match_images(scene, [prediction(wide, 0.9)], PARAMS)
    assert (image.candidates.masks.boxes().tolist(), image.iou.tolist()) == ([[20, 10, 30, 20]], [1])
    levels = MaskSweep.of(scene, images, PARAMS, workers=1).iou_levels[0]
    assert levels[1 + MASK_THRESHOLDS.tolist().index(0.5)] == levels[0] == 10
