"""A cascade of box heads against its definition (Cai and Vasconcelos 2018), in NumPy, with heads that say the same of
every region, whatever it shows."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import make_batch, network, shrink

from fashionseg.model import roi_heads
from fashionseg.model.roi_heads import RoIHeads

IOUS, WEIGHTS = (0.5, 0.6, 0.7), np.array([[10, 10, 5, 5], [20, 20, 10, 10], [30, 30, 15, 15]])
SHARES = 1.0, 0.5, 0.25


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def batch():
    return make_batch()


@pytest.fixture
def heads():
    """Heads and, of each of three stages, class logits (4,) and deltas (4,)."""
    heads = RoIHeads(3, 8, [4, 8], 40, 60, "none", 0, class_agnostic_boxes=True, box_stages=3)
    heads.build([(None, 16, 16, 8), (None, 8, 8, 8)])
    random = np.random.default_rng(1)
    answers = []
    for head in heads.box_heads:
        answers.append((random.normal(0, 1, 4), random.normal(0, 1.2, 4)))
        for layer, bias in zip((head.class_logits, head.deltas), answers[-1], strict=True):
            layer.set_weights([np.zeros(layer.kernel.shape), bias])
    return heads, answers


PYRAMID = [np.random.default_rng(level).normal(size=(2, 16 >> level, 16 >> level, 8)) for level in range(2)]


def moved(boxes, deltas, size):
    """Boxes (n, 4) moved by deltas (4,), within an image of size height, width."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides / 2 + deltas[:2] * sides
    half = sides * np.exp(deltas[2:]) / 2
    return np.concatenate([centres - half, centres + half], axis=1).clip(0, np.tile(size[::-1], 2))


def ious_of(boxes, others):
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    overlap = sides.clip(0).prod(axis=2)
    first, second = ((found[:, 2:] - found[:, :2]).prod(axis=1) for found in (boxes, others))
    return overlap / (first[:, None] + second - overlap)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def smooth_l1(distance):
    return np.where(distance < 1 / 9, 4.5 * distance**2, distance - 1 / 18)


def test_losses_are_those_of_the_definition(heads, batch, compiled):
    heads, answers = heads
    random = np.random.default_rng(0)
    expected, counts, between = {"classifier": 0.0, "box_reg": 0.0}, [], False
    batch["sizes"] = np.array([[40, 58], [44, 60]], np.int32)  # instances reach to the edge and beyond
    scores = np.ones((2, 12), np.float32)
    scores[:, 0] = 0  # one that is near an instance is no proposal
    candidates = [
        np.concatenate([proposals[1:], boxes[classes > 0]])
        for proposals, boxes, classes in zip(batch["proposals"], batch["boxes"], batch["classes"], strict=True)
    ]
    for iou, weights, share, (logits, deltas) in zip(IOUS, WEIGHTS, SHARES, answers, strict=False):
        for image, boxes in enumerate(candidates):
            real = batch["classes"][image] > 0
            truth, classes = batch["boxes"][image][real], batch["classes"][image][real]
            ious = ious_of(boxes, truth)
            foreground, best = ious.max(axis=1) >= iou, ious.argmax(axis=1)
            counts.append(foreground.sum())
            between |= bool((~foreground & (ious.max(axis=1) >= IOUS[0])).any())
            labels, targets = np.where(foreground, classes[best], 0), truth[best]
            sides, true_sides = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
            shift = ((targets[:, :2] + true_sides / 2) - (boxes[:, :2] + sides / 2)) / sides
            distance = np.abs(np.concatenate([shift, np.log(true_sides / sides)], axis=1) * weights - deltas)
            used = sum(map(len, candidates))
            expected["classifier"] -= share * log_softmax(logits)[labels].sum() / used
            expected["box_reg"] += share * smooth_l1(distance)[foreground].sum() / used
            candidates[image] = moved(boxes, deltas / weights, batch["sizes"][image])
    assert max(counts) <= 10  # no foreground is left out of the sample
    assert between  # some are foreground of the first stage alone

    def losses(p2, p3, proposals, scores, uniform):
        tensors = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
        return heads.losses_of([p2, p3], proposals, scores, tensors, uniform)

    total = batch["proposals"].shape[1] + batch["boxes"].shape[1]
    arrays = [*PYRAMID, batch["proposals"], scores, random.random((2, total))]
    found = compiled(losses)(*(np.asarray(array, "float32") for array in arrays))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)


def test_later_stages_do_not_move_the_boxes_of_earlier_ones(heads, batch, gradients, monkeypatch):
    """Their input is given, as in detectron2: with no loss of its own the first one learns no boxes."""
    heads, _ = heads
    first, *others = roi_heads.STAGES
    monkeypatch.setattr(roi_heads, "STAGES", (first._replace(loss_share=0.0), *others))
    arrays = [*PYRAMID, batch["proposals"], np.ones((2, 12)), np.random.default_rng(0).random((2, 16))]
    p2, p3, *rest = (np.asarray(array, "float32") for array in arrays)

    def loss(*biases):
        with keras.StatelessScope([(h.deltas.bias, b) for h, b in zip(heads.box_heads, biases, strict=True)]):
            proposals, scores, uniform = rest
            tensors = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
            return heads.losses_of([p2, p3], proposals, scores, tensors, uniform)["box_reg"]

    slopes = gradients(loss, [np.array(head.deltas.bias) for head in heads.box_heads])
    assert [bool(ops.convert_to_numpy(slope).any()) for slope in slopes] == [False, True, True]


def test_detections_are_those_of_the_definition(heads, batch, compiled):
    """Boxes of the last stage, scores the mean of all."""
    heads, answers = heads

    def detect(p2, p3, proposals, sizes):
        ones = ops.ones_like(proposals[..., 0])
        return heads.detect([p2, p3], proposals, ones, sizes, score_threshold=0.0, nms_iou=1.0)

    arrays = [np.asarray(array, "float32") for array in (*PYRAMID, batch["proposals"])]
    found = compiled(detect)(*arrays, batch["sizes"])
    scores = np.mean([np.exp(log_softmax(logits)) for logits, _ in answers], axis=0)
    for image, boxes in enumerate(batch["proposals"]):
        for weights, (_, deltas) in zip(WEIGHTS, answers, strict=False):
            boxes = moved(boxes, deltas / weights, batch["sizes"][image])
        for label in (1, 2, 3):
            of_class = found["classes"][image] == label
            np.testing.assert_allclose(found["scores"][image][of_class], scores[label], rtol=1e-5)
            np.testing.assert_allclose(
                sorted(found["boxes"][image][of_class].tolist()), sorted(boxes.tolist()), rtol=1e-4, atol=1e-3
            )


def test_every_stage_learns_and_its_weights_are_kept(batch, tmp_path):
    options = {"class_agnostic_boxes": True, "box_stages": 2, "attributes": "linear", "attribute_count": 3}
    cascade = network(**options)
    before = [[np.array(weight) for weight in head.get_weights()] for head in cascade.roi_heads.box_heads]
    cascade.compile(optimizer=keras.optimizers.SGD(0.1))
    cascade.train_on_batch({name: values for name, values in batch.items() if name != "proposals"})
    for head, old in zip(cascade.roi_heads.box_heads, before, strict=True):
        assert all((new != was).any() for new, was in zip(head.get_weights(), old, strict=True))
    cascade.save_weights(tmp_path / "of.weights.h5")
    again = network(**options)
    again.load_weights(tmp_path / "of.weights.h5")
    for new, old in zip(again.get_weights(), cascade.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_boxes_of_each_class_are_refused():
    with pytest.raises(ValueError, match=r"model\.box_stages is 2, .* need model\.class_agnostic_boxes=true"):
        network(box_stages=2)
