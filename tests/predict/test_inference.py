"""COCO results at the original size from a network's padded images; TTA; export; inspection."""

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event

import cv2
import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from fashionseg.__main__ import main
from fashionseg.coco import masks
from fashionseg.core import cluster, digests, files, pictures
from fashionseg.core.errors import UserError
from fashionseg.data import samples, shapes
from fashionseg.data.batches import padded
from fashionseg.data.labels import Labels
from fashionseg.model import box_head, device, efficientnet_lite
from fashionseg.model import boxes as box_ops
from fashionseg.model.compilation import compile_steps
from fashionseg.model.mask_rcnn import Detector
from fashionseg.model.nms import INSTANCES_IOU
from fashionseg.predict import inference, inspect, on_cluster
from fashionseg.predict.config import Predict
from fashionseg.predict.parts import Parts
from networks import USUAL, mask_rcnn


def test_coco_results_are_at_the_original_size():
    detections = {
        "boxes": np.array([[0.25, 0.2, 0.75, 1], [0, 0, 1, 0.9]], np.float32),
        "scores": np.array([0.9, 0.6], np.float32),
        "classes": np.array([2, 1], np.int32),
        "masks": np.stack([np.full((28, 28), 0.75), np.zeros((28, 28))]).astype(np.float32),
        "margins": np.array([0.85, 0.3], np.float32),
        "attributes": np.array([[0.04, 0.8, 0.05], [1, 1, 1]], np.float32),
        "agreement": np.ones(2),
    }
    labels, settings = Labels([40, 41], [7, 9, 30], [], []), replace(SETTINGS, mask_threshold=0.5)
    results = inference.coco_results(detections, (200, 320), labels, settings)
    (result,) = results  # the second has no pixel above the threshold
    assert (result["category_id"], result["score"]) == (41, pytest.approx(0.9))
    assert result["bbox"] == [80, 40, 160, 160]
    assert result["segmentation"]["size"] == [200, 320]
    pasted, mask_score = masks.paste(masks.unpack(result["mask"]), result["bbox"], 200, 320, 0.5)
    assert pasted.to_coco() == [result["segmentation"]]
    assert mask_score == pytest.approx(result["mask_score"], abs=1e-4)
    assert result["stability"] == 1
    assert result["margin"] == pytest.approx(0.85)
    assert 0.7 < result["mask_score"] <= 0.75  # a little less at the edge
    assert (result["attribute_ids"], result["attribute_scores"]) == ([9, 30], [0.8, 0.05])
    del detections["attributes"]
    (result,) = inference.coco_results(detections, (200, 320), labels, settings)
    assert result["attribute_ids"] == result["attribute_scores"] == []


RECIPE = USUAL | {
    "backbone": "efficientnet_lite0", "weights": "random", "frozen_stages": 0, "side": 64, "classes": 2,
    "fpn_channels": 8, "anchor_side": 16, "proposals": 8, "detections": 4, "attributes": "none",
    "attribute_count": 0, "precision": "float32", "rois": 8, "seed": 0,
}  # fmt: skip
CATEGORIES = [{"id": 40, "name": "vest"}, {"id": 41, "name": "cape"}]
SETTINGS = Predict(
    batch_size=2,
    score=0.1,
    nms_iou=INSTANCES_IOU,
    mask_scores=True,
    mask_threshold=0.4,
    attribute_score=0.05,
    flip=False,
    scales=[1.0],
    models=[],
)


@pytest.fixture(scope="module", autouse=True)
def small():
    """EfficientNet-Lite0 with each block once, dense layers of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite, "LITE_BLOCKS", [(1, *row[1:]) for row in efficientnet_lite.LITE_BLOCKS])
        patch.setattr(box_head, "DENSE", 32)
        yield


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A folder as training leaves it; the network has random weights. It is read and compiled once for each scale and
    batch size, however many predictors ask: that takes seconds."""
    folder = tmp_path_factory.mktemp("models")
    mask_rcnn(**RECIPE).save_weights(folder / "mask_rcnn.weights.h5")
    files.write_json(folder / "mask_rcnn.json", {"network": RECIPE, "categories": CATEGORIES})
    load = inference.load
    known = cache(lambda side: load(folder, side))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            inference,
            "load",
            lambda path, side=None: known(side or RECIPE["side"]) if path == folder else load(path, side),
        )
        patch.setattr(inference, "Detector", cache(Detector))
        patch.setattr(inference, "compile_steps", cache(compile_steps))
        yield folder


@pytest.fixture(scope="module")
def predictor(trained):
    return inference.Predictor([trained], SETTINGS)


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (80, 60), interpolation=cv2.INTER_LINEAR)


def predicted(folder, document, networks, settings, images_for=None):
    """What `inference.predict` writes."""
    target = folder / "predictions.json"
    count = inference.predict(document, images_for or (lambda side: folder), networks, settings, target, workers=1)
    results = files.read_json(target)
    assert len(results) == count
    assert not list(folder.glob(".predictions*"))
    return results


def test_a_killed_prediction_goes_on(trained, image, tmp_path, monkeypatch, capsys):
    """After the last batch that was done; other params, networks or pictures begin afresh."""
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.roll(image, 9 * number, axis=1)[..., ::-1])
    document = {"images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in range(5)]}
    expected = predicted(tmp_path, document, [trained], SETTINGS)
    add, detect, detected = Parts.add, inference.Predictor.detect, []

    def dying(parts, batch, results):
        if batch == 2:
            raise KeyboardInterrupt
        add(parts, batch, results)

    def counted(predictor, batches):
        detected.append(1)
        return detect(predictor, batches)

    monkeypatch.setattr(inference.Predictor, "detect", counted)

    def killed():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Parts, "add", dying)
            predicted(tmp_path, document, [trained], SETTINGS)
        detected.clear()

    (tmp_path / "predictions.json").unlink()
    killed()
    assert not (tmp_path / "predictions.json").exists()
    assert predicted(tmp_path, document, [trained], SETTINGS) == expected
    assert len(detected) == 1
    assert f"2 of 3 batches are taken over from {tmp_path}/.predictions.unfinished" in capsys.readouterr().out
    killed()
    assert predicted(tmp_path, document, [trained], replace(SETTINGS, mask_threshold=0.6)) != expected
    assert len(detected) == 3
    killed()
    shutil.copy(tmp_path / "4.png", tmp_path / "0.png")
    changed = predicted(tmp_path, document, [trained], SETTINGS)
    assert len(detected) == 3
    assert [r["score"] for r in changed if r["image_id"] == 0] == [r["score"] for r in expected if r["image_id"] == 4]


def test_the_next_batch_is_read_while_the_network_is_at_one(trained, image, tmp_path, monkeypatch):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    document = {"images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in range(5)]}
    read, detect, known, seen = (
        inference.Subset.__getitem__,
        inference.Predictor.detect,
        [Event() for _ in range(3)],
        [],
    )

    def noted(subset, index):
        known[index].set()
        return read(subset, index)

    def waiting(predictor, batches):
        seen.append(all(one.wait(60) for one in known[: len(seen) + 2]))
        return detect(predictor, batches)

    monkeypatch.setattr(inference.Subset, "__getitem__", noted)
    monkeypatch.setattr(inference.Predictor, "detect", waiting)
    predicted(tmp_path, document, [trained], SETTINGS)
    assert seen == [True] * 3


def test_a_dask_cluster_predicts_the_same(trained, image, tmp_path, monkeypatch, capsys):
    """It goes on after what a killed call has left, and may be killed, too."""
    distributed = pytest.importorskip("distributed", reason="Dask is optional: `uv pip install distributed`")
    document = {"images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in range(7)]}
    for number in range(7):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.roll(image, 9 * number, axis=1)[..., ::-1])
    alone, target = predicted(tmp_path, document, [trained], SETTINGS), tmp_path / "predictions.json"
    expected = target.read_bytes()
    target.unlink()
    dying = lambda parts: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    options = {"processes": False, "n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    what = document, lambda side: tmp_path, [trained], SETTINGS, target
    with distributed.LocalCluster(**options) as started, cluster.joined(started.scheduler_address):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Parts, "join", dying)
            on_cluster.predict(*what)
        sorted(tmp_path.glob(".predictions.unfinished/*.jsonl"))[-1].unlink()
        assert on_cluster.predict(*what) == len(alone)
    assert "3 of 4 batches are taken over from" in capsys.readouterr().out
    assert target.read_bytes() == expected
    assert len(alone) > 7


def test_a_dask_worker_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(on_cluster.backend, "choose", lambda name: None)
    with pytest.raises(UserError, match=r"a Dask worker has Keras on .* and this stage on another; start the w"):
        on_cluster._results(on_cluster.Request("another", [], {}, [], SETTINGS), 0)


def test_the_code_of_predictions_is_what_their_stage_depends_on():
    deps = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]["predict"]["deps"]
    assert {dep for dep in deps if dep.startswith("src/")} == {f"src/fashionseg/{name}" for name in inference.CODE}


def test_an_array_and_a_file_give_the_same(predictor, trained, image, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    record = {"id": 3, "file_name": "a.png", "height": 60, "width": 80}
    other = {**record, "id": 4}
    found = predictor(image)
    assert found
    assert [instance["score"] for instance in found] == sorted((i["score"] for i in found), reverse=True)
    document = {"images": [record, other, record]}
    results = predicted(tmp_path, document, [trained], replace(SETTINGS, batch_size=1))
    assert results == [{"image_id": n, **instance} for n in (3, 4, 3) for instance in found]
    in_pairs = predicted(tmp_path, document, [trained], SETTINGS)  # the last one is filled up
    assert [result["image_id"] for result in in_pairs] == [result["image_id"] for result in results]
    np.testing.assert_allclose([r["score"] for r in in_pairs], [r["score"] for r in results], atol=1e-5)


def test_a_flipped_view_of_a_flipped_image_equals_the_plain_view(predictor, image):
    (plain,) = predictor.views
    mirrored = inference.View(plain.detector, 64, flipped=True)
    (expected,) = plain.detect(padded([pictures.resized(image, 64)], 64))
    (found,) = mirrored.detect(padded([pictures.resized(image, 64)[:, ::-1]], 64))
    np.testing.assert_allclose(found["scores"], expected["scores"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"] @ FLIP + [1, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found["masks"], expected["masks"][..., ::-1])


FLIP = np.array([[0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])  # x1 and x2 change places and sign


def test_fusing_a_network_with_itself_changes_nothing(predictor, trained, image):
    twice = inference.Predictor([trained, trained], SETTINGS)
    assert twice(image) == predictor(image)


def test_a_network_that_is_there_twice_is_refused(trained, image, tmp_path):
    """As after `dvc exp run -S model.backbone=...`, which leaves its value in params.yaml: the merged network would be
    the one of this run."""
    copied = tmp_path / "models" / "others" / "other"
    shutil.copytree(trained, copied)
    with pytest.raises(UserError, match=r"others/other holds the same network as .*; leave it out, or change"):
        inference.predict({"images": []}, lambda side: tmp_path, [trained, copied], SETTINGS, tmp_path / "p", workers=0)
    assert not (tmp_path / "p").exists()


def test_images_of_a_shape_share_a_batch(predictor, trained, image, tmp_path, monkeypatch):
    """Each has the results of its own shape, in one place."""
    monkeypatch.setattr(shapes, "COMPILATION", 0.1)
    sizes = [(40, 80) if number % 2 else (60, 60) for number in range(6)]
    document = {"images": []}
    for number, (height, width) in enumerate(sizes):
        document["images"].append({"id": 9 - number, "file_name": f"{number}.png", "height": height, "width": width})
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.roll(image, 7 * number, axis=1)[:height, :width, ::-1])
    found = predicted(tmp_path, document, [trained], SETTINGS)
    expected = []
    for number in (0, 2, 1, 3, 4, 5):  # batches are of two images of a shape, in the order of their first ones
        height, width = sizes[number]
        picture = pictures.resized(np.roll(image, 7 * number, axis=1)[:height, :width], 64)
        (detections,) = predictor.detect({64: padded([picture], *((32, 64) if number % 2 else (64, 64)))})
        of_image = inference.coco_results(detections, (height, width), predictor.labels, SETTINGS)
        expected += [{"image_id": 9 - number, **result} for result in of_image]
    assert len({result["image_id"] for result in expected}) > 3
    assert [result["image_id"] for result in found] == [result["image_id"] for result in expected]
    np.testing.assert_allclose([r["score"] for r in found], [r["score"] for r in expected], atol=1e-5)
    np.testing.assert_allclose([r["bbox"] for r in found], [r["bbox"] for r in expected], atol=0.02)


def test_tta_views_are_flips_and_scales_of_each_network(trained, image):
    predictor = inference.Predictor([trained], replace(SETTINGS, flip=True, scales=[1.0, 1.5]))
    assert [(view.side, view.flipped) for view in predictor.views] == [(64, False), (64, True), (96, False), (96, True)]
    found = predictor(image)
    assert {instance["agreement"] for instance in found} <= {0.25, 0.5, 0.75, 1.0}
    assert all(instance["segmentation"]["size"] == [60, 80] for instance in found)


def test_larger_views_read_the_original_images(trained, image, tmp_path):
    """Stored images are small; a view with more pixels reads the originals."""
    record = {"id": 3, "file_name": "a.png", "height": 60, "width": 80}
    for name, picture in (("raw", image), ("small", cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA))):
        cv2.imwrite(str(folder(tmp_path / name) / "a.png"), picture[..., ::-1])
    settings = replace(SETTINGS, scales=[1.5], batch_size=1)
    predictor = inference.Predictor([trained], settings)
    assert predictor.sides == {96}
    found = predicted(
        tmp_path, {"images": [record]}, [trained], settings, lambda side: tmp_path / ("small" if side <= 64 else "raw")
    )
    assert found == [{"image_id": 3, **one} for one in predictor(image)]


def test_scales_of_the_same_side_are_errors(trained):
    with pytest.raises(UserError, match=r"predict\.scales: 1\.1 gives 64 px, as another scale does"):
        inference.Predictor([trained], replace(SETTINGS, scales=[1.0, 1.1]))
    with pytest.raises(UserError, match=r"predict\.scales: 0\.01 gives images of 0 px; 64 to 8192 are possible"):
        inference.Predictor([trained], replace(SETTINGS, scales=[0.01]))


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 4), (0, 80, 3)])
def test_a_wrong_image_array_is_an_error(predictor, shape):
    with pytest.raises(ValueError, match=r"an image is \(H, W, 3\) uint8 RGB\. Received: .*uint8"):
        predictor(np.zeros(shape, np.uint8))


def test_networks_with_and_without_attributes_are_not_fused(tmp_path):
    recipe, labels = {**RECIPE, "attributes": "linear", "attribute_count": 1}, [{"id": 5, "name": "lined"}]
    for name, network in (("with", recipe), ("without", {**recipe, "attributes": "none"})):
        mask_rcnn(**network).save_weights(folder(tmp_path / name) / "mask_rcnn.weights.h5")
        description = {"network": network, "categories": CATEGORIES, "attributes": labels}
        files.write_json(tmp_path / name / "mask_rcnn.json", description)
    for names in (("with", "without"), ("without", "with")):
        with pytest.raises(UserError, match="only one has attributes"):
            inference.Predictor([tmp_path / name for name in names], SETTINGS)


def folder(path):
    path.mkdir()
    return path


def test_networks_of_other_labels_are_not_fused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "other")
    files.write_json(tmp_path / "other" / "mask_rcnn.json", {"network": RECIPE, "categories": CATEGORIES[::-1]})
    names = [{**category, "name": f"other {category['id']}"} for category in CATEGORIES]
    shutil.copytree(trained, tmp_path / "renamed")
    files.write_json(tmp_path / "renamed" / "mask_rcnn.json", {"network": RECIPE, "categories": names})
    with pytest.raises(UserError, match=r"renamed was trained on other labels than .*models"):
        inference.Predictor([trained, tmp_path / "renamed"], SETTINGS)
    with pytest.raises(UserError, match=r"other was trained on other labels than .*models"):
        inference.Predictor([trained, tmp_path / "other"], SETTINGS)


@pytest.fixture
def saved_model(trained, tmp_path) -> Path:
    from fashionseg.predict.export import export

    export(trained, tmp_path / "saved", SETTINGS)
    return tmp_path / "saved"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_the_exported_network_gives_the_same_without_this_package(predictor, saved_model, image, monkeypatch):
    batch = padded([pictures.resized(image, 64)] * 2, 64)
    batch["images"] = batch["images"].astype(np.float32)
    expected = predictor.views[0].detector.predict_on_batch(batch)
    import tensorflow as tf

    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("fashionseg", "keras")]:
            patch.setitem(sys.modules, name, None)  # to import it fails
        saved = tf.saved_model.load(saved_model)
        found = saved.serve({name: tf.constant(values) for name, values in batch.items()})
        one = saved.serve({name: tf.constant(values[:1]) for name, values in batch.items()})
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
        np.testing.assert_allclose(one[name], values[:1], atol=1e-5)
    assert b"PyFunc" not in (saved_model / "saved_model.pb").read_bytes()  # which this process alone could run


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports ONNX by TensorFlow")
def test_onnx_gives_the_same(predictor, trained, image, tmp_path):
    """In float32, whatever the network was trained in: the weights are the same."""
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import onnxruntime

    from fashionseg.predict.export import export

    recipe = {**RECIPE, "precision": "mixed_bfloat16"}
    files.write_json(tmp_path / "mask_rcnn.json", {"network": recipe, "categories": CATEGORIES})
    shutil.copy(trained / "mask_rcnn.weights.h5", tmp_path)
    export(tmp_path, tmp_path / "network.onnx", SETTINGS)
    batch = padded([pictures.resized(image, 64), pictures.resized(image[:, :40], 64)], 64)
    batch["images"] = batch["images"].astype(np.float32)
    expected = predictor.views[0].detector.predict_on_batch(batch)
    used = expected["classes"] > 0
    assert used.any(axis=1).all()
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(expected)
    for count in (2, 1):
        found = session.run(None, {name: values[:count] for name, values in batch.items()})
        for name, values in zip(names, found, strict=True):
            np.testing.assert_allclose(values[used[:count]], expected[name][:count][used[:count]], atol=1e-3)
        np.testing.assert_array_equal(found[names.index("classes")], expected["classes"][:count])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for ONNX, which Keras exports by TensorFlow")
def test_a_graph_without_branches_gives_the_same(predictor, image):
    (view,) = predictor.views
    batch = padded([pictures.resized(image, 64)], 64)
    expected, before = view.detector.predict_on_batch(batch), device.accelerated()
    with device.without_branches():
        assert device.accelerated()
        detector = Detector(view.detector.network, SETTINGS.score, SETTINGS.nms_iou, SETTINGS.mask_scores)
        detector.compile(jit_compile=False, run_eagerly=True)
        found = detector.predict_on_batch(batch)
    assert device.accelerated() == before
    used = expected["classes"] > 0
    assert used.any()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][used], values[used], rtol=1e-4, atol=1e-4)


def test_onnx_without_its_packages_and_another_suffix_are_one_sentence(trained, tmp_path, monkeypatch):
    from fashionseg.predict.export import export

    with pytest.raises(UserError, match=r"network\.tflite should end in \.onnx or, for a SavedModel, have no suffix"):
        export(trained, tmp_path / "network.tflite", SETTINGS)
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(UserError, match=r"Keras runs on jax; export with KERAS_BACKEND=tensorflow"):
            export(trained, tmp_path / "saved", SETTINGS)
        return
    before = sorted(trained.iterdir())
    with pytest.raises(UserError, match=r"exists and is of no earlier run; name another folder\.$"):
        export(trained, trained, SETTINGS)
    assert sorted(trained.iterdir()) == before
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match=r"ONNX needs packages that are not installed \(.*tf2onnx onnxruntime` brings"):
        export(trained, tmp_path / "network.onnx", SETTINGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["export models folder", "inspect models photo.jpg folder"])
def test_commands_run_on_the_backend_of_params(command, tmp_path):
    """Nothing may import Keras before params are read."""
    (tmp_path / "params.yaml").write_text(
        (Path(__file__).parents[2] / "params.yaml").read_text().replace("backend: tensorflow", "backend: jax")
    )
    (tmp_path / "keras.py").write_text("import os; print(os.environ.get('KERAS_BACKEND')); raise SystemExit")
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    paths = [str(tmp_path), str(Path(inference.__file__).parents[2])]
    run = subprocess.run(
        [sys.executable, "-m", "fashionseg", *command.split()],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "jax\n", run.stderr


def test_every_step_of_the_method_is_drawn(trained, image, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    main(["inspect", str(trained), str(tmp_path / "photo.png"), str(tmp_path / "steps")])
    assert f"10 steps: {tmp_path / 'steps'}" in capsys.readouterr().out
    drawn = [cv2.imread(str(path)) for path in sorted((tmp_path / "steps").iterdir())]
    assert len(drawn) == 10
    assert all(picture.std() > 10 for picture in drawn)
    with pytest.raises(UserError, match=r"none\.png is no file; name a picture"):
        main(["inspect", str(trained), str(tmp_path / "none.png"), str(tmp_path / "steps")])


@pytest.mark.parametrize("size", [(250, 200), (40, 50)])  # shrinks, grows
def test_inspection_shows_what_the_network_saw(trained, tmp_path, monkeypatch, size):
    """16 bits, and upright as the photographs of `fashionseg predict`."""
    grey, exif = (np.arange(size[0])[:, None] * np.full((1, size[1]), 200)).astype(np.uint16), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "photo.png", exif=exif)
    given = []
    monkeypatch.setattr(inspect, "steps", lambda network, image, names: given.append(image) or {})
    (tmp_path / "steps").mkdir()
    inspect.inspect(trained, str(tmp_path / "photo.png"), tmp_path / "steps")
    Image.fromarray(np.rot90(grey, -1)).save(tmp_path / "upright.png")
    seen = samples.read(tmp_path / "upright.png", *size[::-1], 64)
    np.testing.assert_array_equal(pictures.resized(given[0], 64), seen)


def test_inspection_replaces_no_folder_of_the_user(trained, tmp_path):
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"exists and is of no earlier run; name another folder\.$"):
        inspect.inspect(trained, str(tmp_path / "a.jpg"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_what_is_drawn_is_what_the_network_finds(predictor, image, monkeypatch):
    """Instances as `Detector` gives them; the best anchors' boxes as the RPN's own numbers say."""
    detector = predictor.views[0].detector
    network, batch = detector.network, padded([pictures.resized(image, 64)] * SETTINGS.batch_size, 64)
    monkeypatch.setattr(inspect, "BEST", 6)
    assert network.rpn.proposals >= 6  # of each level
    steps = inspect.Steps(network, SETTINGS.score)
    compile_steps(steps)
    found, instances = steps.predict_on_batch(batch), detector.predict_on_batch(batch)
    assert (instances["classes"] > 0).any()
    for name, values in instances.items():
        np.testing.assert_allclose(found["instances"][name], values, rtol=1e-4, atol=1e-4)

    _, logits, deltas, anchors = network.first_stage(batch["images"])
    flat, moves, places = (
        np.concatenate(list(map(np.asarray, v)), a) for v, a in ((logits, 1), (deltas, 1), (anchors, 0))
    )
    height, width = batch["sizes"][0]
    in_padding = ((places[:, :2] + places[:, 2:]) / 2 >= [width, height]).any(axis=1)
    assert 0 < in_padding.mean() < 0.5
    best = np.argsort(np.where(in_padding, np.inf, -flat[0]), kind="stable")[: inspect.BEST]
    np.testing.assert_allclose(found["best_scores"][0], 1 / (1 + np.exp(-flat[0, best])), rtol=1e-4)
    expected = box_ops.clip(box_ops.decode(moves[:, best], places[best], box_ops.RPN_WEIGHTS), batch["sizes"])
    np.testing.assert_allclose(found["best"], expected, atol=1e-2)


def test_a_network_of_another_version_is_one_sentence(tmp_path):
    for network in ({}, {**RECIPE, "wings": 2}):
        files.write_json(tmp_path / "mask_rcnn.json", {"network": network, "categories": CATEGORIES})
        with pytest.raises(UserError, match=r"mask_rcnn\.json is of another version of the network .*; train again"):
            inference.load(tmp_path)


def test_missing_and_foreign_weights_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"has no trained network: mask_rcnn\.json is missing; train one, or copy one"):
        inference.load(tmp_path)
    files.write_json(tmp_path / "mask_rcnn.json", {"network": RECIPE, "categories": CATEGORIES})
    with pytest.raises(UserError, match=r"mask_rcnn\.weights\.h5 is missing; run `dvc repro train`"):
        inference.load(tmp_path)
    mask_rcnn(**{**RECIPE, "classes": 3}).save_weights(tmp_path / "mask_rcnn.weights.h5")
    with pytest.raises(UserError, match=r"does not fit mask_rcnn\.json beside it"):
        inference.load(tmp_path)
    mask_rcnn(**RECIPE).save_weights(tmp_path / "mask_rcnn.weights.h5")
    network, labels = inference.load(tmp_path)
    assert (network.config.side, labels) == (64, Labels.of({"categories": CATEGORIES}))


@pytest.mark.parametrize("start", ["head", "middle"])
def test_damaged_weights_are_one_sentence(trained, tmp_path, start, monkeypatch):
    shutil.copytree(trained, tmp_path / "models")
    network = mask_rcnn(**RECIPE)
    monkeypatch.setattr(inference, "MaskRCNN", lambda config: network)  # once is enough
    weights = tmp_path / "models" / "mask_rcnn.weights.h5"
    whole = weights.read_bytes()
    random = np.random.default_rng(0)
    first, last = (0, 5000) if start == "head" else (3000, len(whole) // 2)
    for _ in range(6):
        damaged = bytearray(whole)
        for place in random.integers(first, last, 30 if start == "head" else 3000):
            damaged[place] = random.integers(256)
        weights.write_bytes(damaged)
        with contextlib.suppress(UserError):  # and nothing else; not all damage shows
            inference.load(tmp_path / "models")
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"does not fit mask_rcnn\.json beside it \(.*\); train again"):
        inference.load(tmp_path / "models")


def test_weights_with_one_wrong_byte_are_one_sentence(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "models")
    weights, description = (tmp_path / "models" / name for name in ("mask_rcnn.weights.h5", "mask_rcnn.json"))
    files.write_json(description, files.read_json(description) | {"weights_digest": digests.of_files([weights])})
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"mask_rcnn\.weights\.h5 is damaged or not what training wrote with"):
        inference.load(tmp_path / "models")


def test_a_description_that_does_not_fit_its_network_is_one_sentence(tmp_path):
    for description, complaint in (
        ({"network": RECIPE}, r"another version of the network \('categories'\)"),
        ([1], "another version of the network"),
        ({"network": RECIPE, "categories": CATEGORIES[:1]}, "names 1 categories, but its network has 2"),
        (
            {"network": {**RECIPE, "attributes": "linear", "attribute_count": 3}, "categories": CATEGORIES},
            "names 0 attributes, but its network has 3",
        ),
    ):
        files.write_json(tmp_path / "mask_rcnn.json", description)
        with pytest.raises(UserError, match=complaint):
            inference.load(tmp_path)
