"""The whole network: it learns, its detections obey the rules, both backends give the same numbers."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from pycocotools import mask as coco_mask

from fashionseg.model import attribute_heads, backbones, roi_heads
from fashionseg.model.attribute_heads import ConvAttributes, LinearAttributes
from fashionseg.model.fpn import FeaturePyramid
from fashionseg.model.mask_rcnn import JIT, LOSSES, Detector, MaskRCNN
from fashionseg.model.roi_heads import BoxHead, MaskHead, RoIHeads
from fashionseg.model.rpn import RegionProposals
from networks import USUAL, mask_rcnn

SMALL = {
    "backbone": "resnet50",
    "weights": "random",
    "frozen_stages": 0,
    "side": 64,
    "classes": 3,
    "fpn_channels": 16,
    "anchor_side": 16,
    "proposals": 64,
    "detections": 20,
    "attributes": "none",
    "attribute_count": 0,
    "precision": "float32",
    "rois": 32,
    "seed": 7,
}


def make_batch(seed: int = 0, images: int = 2, instances: int = 4) -> dict[str, np.ndarray]:
    """Ellipses of one colour a class on noise; the last slot of each image is padding."""
    rng = np.random.default_rng(seed)
    batch = {
        "images": rng.uniform(100, 150, (images, 64, 64, 3)).astype(np.float32),
        "sizes": np.array([[64, 64], [56, 64]], np.int32)[:images],
        "boxes": np.zeros((images, instances, 4), np.float32),
        "classes": np.zeros((images, instances), np.int32),
        "masks": np.zeros((images, instances, 56, 56), np.uint8),
        "attributes": np.zeros((images, instances, 3), np.uint8),
    }
    y, x = np.mgrid[:64, :64] + 0.5
    v, u = (np.mgrid[:56, :56] + 0.5) / 28 - 1
    for image in range(images):
        for slot in range(instances - 1):
            width, height = rng.integers(14, 26, 2)
            left, top = 2 + 20 * slot, rng.integers(2, 54 - height)
            inside = ((x - left) / width * 2 - 1) ** 2 + ((y - top) / height * 2 - 1) ** 2 <= 1
            batch["images"][image][inside] = 30 + 80 * np.eye(3)[slot] * 2
            batch["boxes"][image, slot] = left, top, left + width, top + height
            batch["classes"][image, slot] = slot + 1
            batch["attributes"][image, slot] = slot == 1, slot > 0, 0
            batch["masks"][image, slot] = u**2 + v**2 <= 1
    return batch


class Repeated(keras.utils.PyDataset):
    def __init__(self, batch: dict[str, np.ndarray], steps: int):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int):
        return (self.batch,)


BLOCKS, FILTERS, DENSE = {"resnet50": [1] * 4}, [64, 16, 32, 64], 256


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few and narrow layers, and KerasHub draws none, which is done anew anyway: JAX takes half a second a shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "RESNETS", BLOCKS)
        patch.setattr(backbones, "RESNET_FILTERS", FILTERS)
        patch.setattr(roi_heads, "DENSE", DENSE)
        patch.setattr(attribute_heads, "DENSE", DENSE)
        patch.setattr(
            keras.initializers.VarianceScaling, "__call__", lambda i, shape, dtype=None: ops.zeros(shape, dtype)
        )
        yield


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    return mask_rcnn(**SMALL)


def detect(network, batch, least_score):
    """Compiled, as in use: op by op JAX would compile each on its own."""
    detector = Detector(network, least_score, 0.5)
    detector.compile(jit_compile=JIT)
    return detector.predict_on_batch({name: batch[name] for name in ("images", "sizes")})


def numpy_of(tree):
    return {name: ops.convert_to_numpy(value) for name, value in tree.items()}


def test_it_learns_boxes_classes_and_masks():
    """Fitted to one batch of six ellipses, it finds each, with its class, its mask and its attributes."""
    keras.utils.set_random_seed(1)
    attributes = {"attributes": "linear", "attribute_count": 3}
    network = mask_rcnn(**{**SMALL, **attributes, "fpn_channels": 32})
    network.compile(keras.optimizers.Adam(2e-3), jit_compile=JIT)
    batch = make_batch()
    history = network.fit(Repeated(batch, 75), epochs=2, verbose=0).history
    assert set(history) == {"loss", *LOSSES, "attributes"}
    assert history["loss"][1] < 0.5 * history["loss"][0]
    assert history["loss"][1] == pytest.approx(sum(history[name][1] for name in (*LOSSES, "attributes")), rel=1e-3)

    found = detect(network, batch, 0.5)
    for image in range(2):
        for slot in range(3):
            box, number = batch["boxes"][image, slot], batch["classes"][image, slot]
            same = np.flatnonzero(found["classes"][image] == number)
            ious = coco_mask.iou(xywh(found["boxes"][image][same]), xywh(box[None]), [0])[:, 0]
            assert ious.max() > 0.7
            best = same[ious.argmax()]
            np.testing.assert_array_equal(found["attributes"][image][best] > 0.5, batch["attributes"][image, slot])
            mask = found["masks"][image][best] > 0.5
            v, u = (np.mgrid[:28, :28] + 0.5) / 14 - 1
            truth = u**2 + v**2 <= 1
            assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def xywh(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(float)


def greedy_detections(network, batch, least_score, nms_iou, compiled):
    """The definition in plain Python: all pairs of proposal and class, best first, suppressed within their class."""

    def seen(images, sizes):
        pyramid, *found = network.look(images)
        proposals, scores = network.rpn.propose(*found, sizes)
        return proposals, scores, *network.roi_heads(pyramid, proposals)

    proposals, scores, logits, deltas, _ = compiled(seen)(batch["images"], batch["sizes"])
    found = []
    for image, (height, width) in enumerate(batch["sizes"]):
        probabilities = np.exp(logits[image]) / np.exp(logits[image]).sum(-1, keepdims=True)
        pairs = []
        for roi in np.flatnonzero(scores[image] > 0):
            x1, y1, x2, y2 = proposals[image, roi]
            for number in range(1, network.roi_heads.classes + 1):
                dx, dy, dw, dh = deltas[image, roi, number] / [10, 10, 5, 5]
                x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
                w, h = (x2 - x1) * np.exp(dw), (y2 - y1) * np.exp(dh)
                box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [width, height] * 2)
                if probabilities[roi, number] > least_score and (box[2:] - box[:2] >= 0.01).all():
                    margin = probabilities[roi, number] - np.delete(probabilities[roi], number).max()
                    pairs.append((probabilities[roi, number], number, box, margin))
        kept = []
        for pair in sorted(pairs, key=lambda pair: -pair[0]):
            rivals = np.array([box for _, number, box, _ in kept if number == pair[1]]).reshape(-1, 4)
            if not len(rivals) or coco_mask.iou(xywh(rivals), xywh(pair[2][None]), [0] * 1).max() <= nms_iou:
                kept.append(pair)
        found.append(kept[: network.roi_heads.detections])
    return found


def test_detections_are_those_of_the_definition(network, compiled):
    batch = make_batch(3)
    found = detect(network, batch, 0.2)
    for image, expected in enumerate(greedy_detections(network, batch, 0.2, 0.5, compiled)):
        count = len(expected)
        assert count > 3
        scores, numbers, boxes, margins = zip(*expected, strict=True)
        np.testing.assert_allclose(found["scores"][image][:count], scores, rtol=1e-4)
        assert found["classes"][image][:count].tolist() == list(numbers)
        np.testing.assert_allclose(found["boxes"][image][:count], boxes, atol=1e-3)
        np.testing.assert_allclose(found["margins"][image][:count], margins, atol=1e-4)
        assert not found["scores"][image][count:].any()
        assert not found["classes"][image][count:].any()


@pytest.mark.parametrize(("proposals", "detections"), [(8, 100), (400, 1200)])
def test_more_detections_than_there_can_be_are_padding(proposals, detections, compiled):
    """One class of 8 proposals makes 8 pairs; 3 classes of 400 make more than enter suppression otherwise."""
    options = {"classes": 1 if proposals == 8 else 3, "proposals": proposals, "detections": detections}
    heads = RoIHeads(options["classes"], 4, [4], 8, detections, "linear", 2)
    random = np.random.default_rng(0)
    pyramid = random.normal(size=(2, 16, 16, 4)).astype("float32")
    heads.build([pyramid.shape])
    corners = random.uniform(0, 40, (2, proposals, 2))
    boxes = np.concatenate([corners, corners + random.uniform(8, 24, corners.shape)], axis=-1).astype("float32")
    scores, sizes = np.ones((2, proposals), "float32"), np.full((2, 2), 64, "int32")
    found = compiled(lambda *arrays: heads.detect([arrays[0]], *arrays[1:], 0.1, 0.5))(pyramid, boxes, scores, sizes)
    assert {values.shape[:2] for values in found.values()} == {(2, detections)}
    assert (found["classes"][:, 0] > 0).all()
    for name in ("boxes", "scores", "classes", "margins"):
        assert not found[name][:, proposals * options["classes"] :].any()


def test_nothing_above_the_score_is_nothing_found(network):
    batch = make_batch()
    found = detect(network, batch, 0.99)
    assert not found["classes"].any()
    assert not found["boxes"].any()
    assert all(np.isfinite(values).all() for values in found.values())


# Of the network of SMALL at its first step on make_batch(5), on either backend.
FIRST_WEIGHTS = "5d2ff7d6f5ff1d33"  # SHA-256
FIRST_LOSSES = {
    "loss": 3.06636,
    "objectness": 0.693148,
    "rpn_box_reg": 0.00630681,
    "classifier": 1.383108,
    "box_reg": 0.290624,
    "mask": 0.693172,
}


def test_every_backend_begins_with_the_same_weights_and_samples(network):
    """Weights bit for bit; losses, which hang on what was sampled, but for rounding."""
    network.seed_generator.state.assign([SMALL["seed"], 0])
    network.compile(jit_compile=JIT)
    losses = network.test_on_batch(make_batch(5), return_dict=True)
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights()))
    assert digest.hexdigest()[:16] == FIRST_WEIGHTS
    assert losses == pytest.approx(FIRST_LOSSES, rel=1e-5)

    batch = make_batch()
    for name in ("boxes", "classes", "masks"):
        batch[name] = np.zeros_like(batch[name])
    losses = network.test_on_batch(batch, return_dict=True)
    assert losses["objectness"] > 0
    assert losses["classifier"] > 0
    assert losses["rpn_box_reg"] == losses["box_reg"] == losses["mask"] == 0


def test_attributes_on_the_mask_features_learn_from_foreground_alone():
    network = mask_rcnn(**{**SMALL, "attributes": "conv", "attribute_count": 3})
    network.compile(jit_compile=JIT)
    batch = make_batch()
    first = network.test_on_batch(batch, return_dict=True)["attributes"]
    assert first > 0
    batch["attributes"][:, -1] = 1  # of no instance
    assert network.test_on_batch(batch, return_dict=True)["attributes"] == pytest.approx(first, rel=0.2)
    found = detect(network, batch, 0.05)["attributes"]
    assert found.shape == (2, 20, 3)
    assert 0 < found.mean() < 0.05  # near the prior


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_features_of_16_bits_leave_boxes_scores_and_losses_at_32(network, precision, compiled, tmp_path):
    half = mask_rcnn(**{**SMALL, "precision": precision, "frozen_stages": 4})
    network.save_weights(tmp_path / "model.weights.h5")
    half.load_weights(tmp_path / "model.weights.h5")
    assert {variable.dtype for variable in half.trainable_variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    batch = make_batch(3)
    seen = []

    def look(images):
        seen[:] = half.look(images)
        return seen

    compiled(look)(batch["images"])
    pyramid, *others = [{keras.backend.standardize_dtype(level.dtype) for level in levels} for levels in seen]
    assert pyramid == {precision.removeprefix("mixed_")}
    assert others == [{"float32"}] * 3
    half.compile(jit_compile=JIT)
    network.compile(jit_compile=JIT)
    losses = {model: model.test_on_batch(batch, return_dict=True) for model in (half, network)}
    for name in ("objectness", "classifier", "mask"):  # the sampling of RoIs differs a little
        assert losses[half][name] == pytest.approx(losses[network][name], rel=0.15)
    found = detect(half, batch, 0.2)
    assert {values.dtype.name for name, values in found.items() if name != "classes"} == {"float32"}
    assert (found["scores"] > 0).any()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_it_learns_in_16_bits(precision):
    keras.utils.set_random_seed(1)
    less = {"frozen_stages": 4, "fpn_channels": 8, "proposals": 16, "rois": 8}
    less |= {"backbone": "efficientnet_lite0", "weights": "imagenet"}
    network = mask_rcnn(**{**SMALL, **less, "precision": precision})
    network.compile(keras.optimizers.Adam(2e-3), jit_compile=JIT)
    assert (type(network.optimizer).__name__ == "LossScaleOptimizer") == (precision == "mixed_float16")
    before = [ops.convert_to_numpy(variable) for variable in network.trainable_variables]
    history = network.fit(Repeated(make_batch(), 8), epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    assert int(ops.convert_to_numpy(network.optimizer.iterations)) > 8  # float16 skips some, to find the scale
    for old, variable in zip(before, network.trainable_variables, strict=True):
        new = ops.convert_to_numpy(variable)
        assert np.isfinite(new).all(), variable.path
        assert (new != old).any(), variable.path


def test_settings_of_other_projects_change_nothing(network):
    """As ~/.keras/keras.json may hold them."""
    batch = make_batch()
    expected = ops.convert_to_numpy(network.look(batch["images"])[0][0])
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_epsilon(1e-3)
    other = mask_rcnn(**SMALL)
    other.set_weights(network.get_weights())
    assert keras.config.image_data_format() == "channels_last"
    np.testing.assert_array_equal(ops.convert_to_numpy(other.look(batch["images"])[0][0]), expected)


def test_first_weights_follow_from_the_seed_alone(network):
    """Nothing is left that a backend, or what was built before, draws."""
    keras.utils.set_random_seed(5)
    again, other = mask_rcnn(**SMALL), mask_rcnn(**{**SMALL, "seed": 8})
    for first, same, another in zip(*(model.trainable_variables for model in (network, again, other)), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(first), ops.convert_to_numpy(same), err_msg=first.path)
        if len(first.shape) > 1:
            assert (ops.convert_to_numpy(first) != ops.convert_to_numpy(another)).mean() > 0.99, first.path


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_images_of_whole_numbers_may_be_bytes(precision, compiled):
    """A batch of them takes a quarter of the way to a GPU."""
    network = mask_rcnn(**{**SMALL, "precision": precision})
    whole = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    found, expected = (compiled(network.look)(images)[0] for images in (whole, whole.astype(np.float32)))
    for level, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(level, other)


def test_padding_changes_no_loss(network, compiled):
    """More empty slots, the same losses, as long as no sampling happens: few enough candidates that all are used."""
    batch = make_batch()
    wide = {**batch}
    for name in ("boxes", "classes", "masks"):
        wide[name] = np.concatenate([batch[name], np.zeros_like(batch[name])], axis=1)
    _pyramid, logits, deltas, anchors = compiled(network.look)(batch["images"])
    uniform = np.linspace(0, 0.999, 2 * sum(len(level) for level in anchors)).reshape(2, -1).astype(np.float32)
    first, second = (
        numpy_of(network.rpn.losses_of(logits, deltas, anchors, b["boxes"], b["classes"] > 0, uniform))
        for b in (batch, wide)
    )
    assert first == second


def test_weights_round_trip(network, tmp_path):
    network.save_weights(tmp_path / "model.weights.h5")
    other = mask_rcnn(**{**SMALL, "seed": 8})
    pairs = list(zip(other.weights, network.weights, strict=True))
    kernels = [pair for pair in pairs if len(pair[0].shape) > 1]
    assert not any(np.array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(two)) for one, two in kernels)
    other.load_weights(tmp_path / "model.weights.h5")
    for one, two in pairs:
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(two))


OTHER_BACKEND = """
import sys, numpy as np
from fashionseg.model import backbones, roi_heads
from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import JIT, Detector, MaskRCNN
folder, config, backbones.RESNETS, backbones.RESNET_FILTERS, roi_heads.DENSE = sys.argv[1], *eval(sys.argv[2])
network = MaskRCNN(Network(**config))
network.load_weights(folder + "/model.weights.h5")
detector = Detector(network, 0.1, 0.5)
detector.compile(jit_compile=JIT)
np.savez(folder + "/found.npz", **detector.predict_on_batch(dict(np.load(folder + "/batch.npz"))))
"""


def test_both_backends_give_the_same_numbers(network, tmp_path):
    batch = make_batch(5)
    network.save_weights(tmp_path / "model.weights.h5")
    np.savez(tmp_path / "batch.npz", **batch)
    other = {"tensorflow": "jax", "jax": "tensorflow"}[keras.backend.backend()]
    subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, str(tmp_path), repr((USUAL | SMALL, BLOCKS, FILTERS, DENSE))],
        check=True,
        env={**os.environ, "KERAS_BACKEND": other},
        cwd=Path(__file__).parents[2],
    )
    expected = np.load(tmp_path / "found.npz")
    found = detect(network, batch, 0.1)
    assert (found["classes"] > 0).any()
    np.testing.assert_array_equal(found["classes"], expected["classes"])
    for name in ("scores", "boxes", "masks"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (FeaturePyramid, {"channels": 24, "normed": True}),
        (RegionProposals, {"channels": 24, "strides": [4, 8], "anchor_side": 12, "proposals": 33}),
        (
            RegionProposals,
            {"channels": 24, "strides": [4], "anchor_side": 12, "proposals": 33, "convs": 2, "ratios": [3.0]},
        ),
        (BoxHead, {"classes": 5, "conv_widths": [8, 16], "normed": True}),
        (MaskHead, {"classes": 5, "channels": 24, "class_agnostic": True, "normed": True}),
        (LinearAttributes, {"count": 9}),
        (ConvAttributes, {"count": 9, "channels": 24}),
        (
            RoIHeads,
            {
                "classes": 5,
                "channels": 24,
                "strides": [4, 8],
                "rois": 40,
                "detections": 9,
                "attributes": "conv",
                "attribute_count": 6,
            },
        ),
    ],
)
def test_layers_are_serialisable(kind, config):
    layer = kind(**config)
    assert layer.get_config().items() >= config.items()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert all(getattr(again, name) == value for name, value in config.items())


def test_batches_of_one_size_are_traced_once(monkeypatch):
    """However many instances, whatever their true sizes: the Python code runs to build the graph alone."""
    network = mask_rcnn(**{**SMALL, "frozen_stages": 4})
    looks = []
    look = network.look
    monkeypatch.setattr(network, "look", lambda images, *args: looks.append(images.shape) or look(images, *args))
    network.compile(keras.optimizers.SGD(1e-3), jit_compile=JIT)
    detector = Detector(network, 0.1, 0.5)
    detector.compile(jit_compile=JIT)
    batches = [make_batch(seed) for seed in range(3)]
    batches[1]["classes"][:] = 0
    batches[2]["sizes"][:] = 40
    for use in (network.train_on_batch, detector.predict_on_batch):
        looks.clear()
        for batch in batches:
            use(batch)
        assert looks == [(2, 64, 64, 3)]
