"""AP while a network learns, the best weights, and the end once AP no longer rises."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask
from small import fit, rows, values

from fashionseg import params
from fashionseg.coco import average_precision
from fashionseg.core import files
from fashionseg.data.labels import Labels
from fashionseg.model import box_head, efficientnet_lite
from fashionseg.model.nms import INSTANCES_IOU
from fashionseg.predict import inference
from fashionseg.predict.config import Predict
from fashionseg.train import validation
from fashionseg.train.optimizer import unwrapped
from fashionseg.train.validation import AveragePrecision, subset
from networks import USUAL, mask_rcnn

NETWORK = USUAL | {
    "backbone": "efficientnet_lite0", "weights": "random", "frozen_stages": 0, "side": 64, "classes": 2,
    "fpn_channels": 8, "anchor_side": 16, "proposals": 8, "detections": 4, "attributes": "none",
    "attribute_count": 0, "precision": "float32", "rois": 8, "seed": 0,
}  # fmt: skip
CATEGORIES = [{"id": 40, "name": "vest"}, {"id": 41, "name": "cape"}]


def test_it_is_what_evaluate_finds(tmp_path, monkeypatch):
    """For predictions by `predict`, of which every second one is true."""
    monkeypatch.setattr(efficientnet_lite, "LITE_BLOCKS", [(1, *row[1:]) for row in efficientnet_lite.LITE_BLOCKS])
    monkeypatch.setattr(box_head, "DENSE", 32)
    sizes = [(60, 80), (80, 50), (64, 64)]
    for number, (height, width) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        scale = 64 / max(height, width)
        small = cv2.resize(noise, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(tmp_path / f"{number}.png"), small)
    images = [{"id": n, "file_name": f"{n}.png", "height": h, "width": w} for n, (h, w) in enumerate(sizes)]
    document = {"images": images, "categories": CATEGORIES, "annotations": []}
    network = mask_rcnn(**NETWORK)
    kernel = network.roi_heads.mask_head.kernel
    kernel.assign(kernel * 1000)  # else all probabilities are about the threshold
    scorer = AveragePrecision(network, document, tmp_path, batch_size=2, workers=0)
    assert scorer(lambda *_: None) == {"AP": None, "AP50": None}
    monkeypatch.setattr(inference, "compile_steps", lambda _: None)  # it is
    monkeypatch.setattr(inference, "load", lambda folder, side=None: (network, Labels.of(document)))
    monkeypatch.setattr(inference, "Detector", lambda *_: scorer.detector)
    params = Predict(
        batch_size=2,
        score=0.05,
        nms_iou=INSTANCES_IOU,
        mask_scores=True,
        mask_threshold=0.5,
        attribute_score=0.05,
        flip=False,
        scales=[1.0],
        models=[],
    )
    inference.predict(
        document, lambda side: tmp_path, [tmp_path], params, target := tmp_path / "predictions.json", workers=1
    )
    predictions = files.read_json(target)
    for number, prediction in enumerate(predictions[::2]):
        area = int(mask.area(prediction["segmentation"]))
        annotation = {key: prediction[key] for key in ("image_id", "category_id", "segmentation", "bbox")}
        document["annotations"].append({**annotation, "id": number + 1, "area": area, "iscrowd": 0})
    expected = average_precision.summary(average_precision.evaluate(document, predictions)["segm"])
    assert 0 < expected["AP"] < 1
    seen = []
    found = scorer(lambda *batch: seen.append(batch))
    assert found == {name: pytest.approx(expected[name], abs=1e-3) for name in ("AP", "AP50")}
    assert seen == [(1, 2), (2, 2)]


def test_its_thresholds_are_those_of_params():
    predict = params.load("predict", path=Path(__file__).parents[2] / "params.yaml").predict
    own = validation.SCORE, INSTANCES_IOU, validation.MASK_THRESHOLD, validation.MASK_SCORES
    assert (predict.score, predict.nms_iou, predict.mask_threshold, predict.mask_scores) == own


def test_a_large_validation_set_is_sampled_by_seed():
    images = [{"id": number} for number in range(20)]
    annotations = [{"id": number, "image_id": number // 2} for number in range(40)]
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    assert subset(document, 20, 0) is document
    found = [subset(document, 5, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    ids = [image["id"] for image in found[0]["images"]]
    assert len(set(ids)) == 5
    assert [annotation["image_id"] for annotation in found[0]["annotations"]] == [i for i in ids for _ in range(2)]


PLAIN = {"drops": [], "warmup_steps": 0}


def test_the_best_weights_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    two = fit(tmp_path / "two", epochs=2, validate_epochs=0, **PLAIN)
    best = fit(tmp_path / "four", epochs=4, given=[0.2, 0.5, None, 0.4], **PLAIN)
    for expected, got in zip(values(two.weights), values(best.weights), strict=True):
        np.testing.assert_array_equal(got, expected)
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "validation AP was best after epoch 2, 0.500: these weights are kept"
    table = rows(tmp_path / "four/results", "eval/AP")
    assert (table["step"].tolist(), table["AP"].tolist()) == ([0, 1, 3], [0.2, 0.5, 0.4])
    assert not list((tmp_path / "two").rglob("AP.tsv"))
    assert [path.name for path in (tmp_path / "four/checkpoints").glob("best-*")] == ["best-0002.npz"]


def test_of_equal_scores_the_last_is_best(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, epochs=3, given=[0.0, 0.0, 0.0])
    assert "best after epoch 3, 0.000:" in capsys.readouterr().out


def test_every_so_many_epochs_and_after_the_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, epochs=5, validate_epochs=2)
    for name in ("AP", "loss", "mask"):
        assert rows(tmp_path / "results", f"eval/{name}")["step"].tolist() == [1, 3, 4]


def test_never(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, epochs=2, validate_epochs=0)
    assert len(rows(tmp_path / "results", "train/loss")) == 2
    assert not (tmp_path / "results/plots/metrics/eval").exists()


def test_training_ends_once_ap_no_longer_rises(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = fit(tmp_path, epochs=9, patience=2, given=[0.3, 0.5, 0.5, 0.4])
    assert rows(tmp_path / "results", "eval/AP")["AP"].tolist() == [0.3, 0.5, 0.5, 0.4]
    assert "best after epoch 3, 0.500:" in capsys.readouterr().out
    again = fit(tmp_path, epochs=9, patience=2)  # killed before the outs were written: nothing is trained
    for expected, got in zip(values(model.weights), values(again.weights), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_best_weights_are_kept_as_the_average(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = fit(tmp_path / "two", epochs=2, validate_epochs=0, ema=0.7, **PLAIN)
    for average, got in zip(values(unwrapped(two).averages), values(two.trainable_variables), strict=True):
        np.testing.assert_array_equal(got, average)
    best = fit(tmp_path / "four", epochs=4, given=[0.2, 0.5, None, 0.4], ema=0.7, **PLAIN)
    for expected, got in zip(values(two.weights), values(best.weights), strict=True):
        np.testing.assert_array_equal(got, expected)
