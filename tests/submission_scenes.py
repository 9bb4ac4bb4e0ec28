"""Small documents and predictions for the tests of submit and tune."""

import cv2
import numpy as np

from fashionseg.coco import masks
from fashionseg.core import rle
from fashionseg.submit.config import Metric, Submission, Tune
from fashionseg.submit.postprocess import PostProcessing, Thresholds
from fashionseg.submit.submission import Sample

PARAMS = Submission(longest_side=100, square=False, min_area=4, overlap="same_class")
FILLER_CLASS = 1
METRIC = Metric(formula="precision", average="image", f1="set")
TUNE = Tune(**vars(METRIC), folds=2, trees=5, leaf=5)
PLAIN = PostProcessing(
    max_per_image=None,
    nms_iou=1.0,
    mask_overlap=1.0,
    min_area=4,
    score_thresholds=Thresholds(0.5),
    attribute_thresholds=Thresholds(0.5),
    attribute_pairs={"1": [5, 9], "2": [5, 9], "3": [5, 9]},
    selector=None,
    categories=[1, 2, 3],
)


def rectangle(x, y, w, h, side=100):
    bitmap = np.zeros((side, side), bool)
    bitmap[y : y + h, x : x + w] = True
    return bitmap


def prediction(bitmap, score, category_id=1, image_id=1):
    mask = rle.encode(bitmap)
    x, y, w, h = mask.boxes()[0]
    probabilities = cv2.resize(bitmap[y : y + h, x : x + w].astype(np.float32), (28, 28))
    return {
        "image_id": image_id,
        "category_id": category_id,
        "score": score,
        "segmentation": mask.to_coco()[0],
        "bbox": mask.boxes()[0].tolist(),
        "margin": score,
        "agreement": 1.0,
        "mask": masks.pack(probabilities),
        "mask_score": 0.5,
        "stability": 0.5,
        "attribute_ids": [],
        "attribute_scores": [],
    }


def sample_of(images, **filler):
    """The sample of `document`."""
    filler = {"EncodedPixels": "1 1", "ClassId": str(FILLER_CLASS), "AttributesIds": "", **filler}
    return Sample(["ImageId", *filler], [str(i) for i in range(1, images + 1)], filler)


def document(images, *truth):
    return {
        "images": [{"id": i, "file_name": f"train/{i}.jpg", "height": 100, "width": 100} for i in range(1, images + 1)],
        "annotations": [{"id": i, **row} for i, row in enumerate(truth, 1)],
        "categories": [{"id": 1, "name": "vest"}, {"id": 2, "name": "shoe, boot"}, {"id": 3, "name": "bag"}],
        "attributes": [{"id": 5, "name": "lined"}, {"id": 9, "name": "mini"}],
    }


def scene(images, told_by):
    """Eight candidates an image without overlaps: four are right, four false positives; `told_by` tells which."""
    random = np.random.default_rng(1)
    truth, predictions = [], []
    for i in range(1, images + 1):
        for place in range(8):
            x, y = place % 4 * 25, place // 4 * 50
            right, category_id = place < 4, int(random.integers(1, 4))
            mask = rectangle(x, y, int(random.integers(8, 20)), int(random.integers(10, 45)))
            if right:
                truth.append(prediction(mask, 1.0, category_id, i))
            candidate = prediction(mask, round(float(random.uniform(0.05, 0.95)), 3), category_id, i)
            if told_by:
                candidate[told_by] = round(float(right * 0.3 + random.uniform(0.3, 0.6)), 4)
            predictions.append(candidate)
    return document(images, *truth), predictions


def crowd(images, random):
    """Candidates of two classes with many overlaps, about half of them true."""
    truth, predictions = [], []
    for i in range(1, images + 1):
        for _ in range(random.integers(0, 12)):
            mask = rectangle(*random.integers(0, 4, 2) * 10, *random.integers(1, 5, 2) * 10)
            score, category_id = round(float(random.uniform(0.05, 0.95)), 1), int(random.integers(1, 3))
            predictions.append(prediction(mask, score, category_id, i))
            if random.random() < 0.5:
                truth.append(prediction(mask, 1.0, category_id, i))
    return document(images, *truth), predictions
