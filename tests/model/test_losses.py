"""Against torchvision's losses on fixed samples; what is masked away must not count."""

import keras
import numpy as np
import pytest
from keras import ops

from fashionseg.model import losses


@pytest.fixture(scope="module")
def rpn(golden):
    case = golden("rpn_losses")
    return {**case, "foreground": case["labels"] == 1, "used": case["labels"] >= 0}


@pytest.fixture(scope="module")
def head(golden):
    case = golden("box_losses")
    labels = case["labels"].astype(np.int32)
    own = np.take_along_axis(case["deltas"], labels[..., None, None], axis=2)[:, :, 0]  # of each RoI's own class
    return {**case, "labels": labels, "own": own, "used": np.ones(labels.shape, bool)}


@pytest.fixture(scope="module")
def masks(golden):
    """Two images with three slots each; torchvision has 4 + 2 regions and all classes' logits."""
    case = golden("mask_loss")
    own = case["logits"][np.arange(6), case["classes"]]
    found = {"loss": case["loss"], "foreground": np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)}
    for name, values in (("logits", own), ("targets", case["targets"])):
        found[name] = np.full((2, 4, 14, 14), 0.5, np.float32)
        found[name][found["foreground"]] = values
    return found


def test_objectness_is_torchvisions(rpn):
    found = losses.objectness(rpn["logits"], rpn["foreground"], rpn["used"])
    np.testing.assert_allclose(found, rpn["objectness"], rtol=1e-5)


def test_rpn_box_reg_is_torchvisions(rpn):
    found = losses.box_reg(rpn["deltas"], rpn["target"], rpn["foreground"], rpn["used"])
    np.testing.assert_allclose(found, rpn["box_reg"], rtol=1e-5)


def test_classifier_is_torchvisions(head):
    found = losses.classifier(head["logits"], head["labels"], head["used"])
    np.testing.assert_allclose(found, head["classifier"], rtol=1e-5)


def test_box_reg_is_torchvisions(head):
    found = losses.box_reg(head["own"], head["target"], head["labels"] > 0, head["used"])
    np.testing.assert_allclose(found, head["box_reg"], rtol=1e-5)


def test_mask_is_torchvisions(masks):
    found = losses.mask(masks["logits"], masks["targets"], masks["foreground"])
    np.testing.assert_allclose(found, masks["loss"], rtol=1e-5)


def with_more(values, fill):
    """Twice as many slots, the new ones filled with `fill`."""
    return np.concatenate([values, np.full_like(values, fill)], axis=1)


@pytest.mark.parametrize("fill", [1e4, np.nan, np.inf])
def test_unused_slots_do_not_change_the_loss(rpn, head, masks, fill):
    """Neither in the sum nor in the number that it is divided by, whatever stands there."""
    flags = {name: with_more(rpn[name], False) for name in ("foreground", "used")}
    logits, deltas, target = (with_more(rpn[name], fill) for name in ("logits", "deltas", "target"))
    np.testing.assert_allclose(losses.objectness(logits, **flags), rpn["objectness"], rtol=1e-5)
    np.testing.assert_allclose(losses.box_reg(deltas, target, **flags), rpn["box_reg"], rtol=1e-5)
    used, labels = with_more(head["used"], False), with_more(head["labels"], 0)
    found = losses.classifier(with_more(head["logits"], fill), labels, used)
    np.testing.assert_allclose(found, head["classifier"], rtol=1e-5)
    foreground = with_more(masks["foreground"], False)
    found = losses.mask(with_more(masks["logits"], fill), with_more(masks["targets"], fill), foreground)
    np.testing.assert_allclose(found, masks["loss"], rtol=1e-5)


def test_loss_is_zero_without_samples(rpn, head, masks):
    """An image without instances, or a batch of such."""
    none, no_head = np.zeros_like(rpn["used"]), np.zeros_like(head["used"])
    assert losses.objectness(rpn["logits"], none, none) == 0
    assert losses.box_reg(rpn["deltas"], rpn["target"], none, rpn["used"]) == 0
    assert losses.box_reg(rpn["deltas"], rpn["target"], none, none) == 0
    assert losses.classifier(head["logits"], head["labels"], no_head) == 0
    assert losses.mask(masks["logits"], masks["targets"], np.zeros_like(masks["foreground"])) == 0


def test_large_logits_do_not_overflow():
    """log(1 + exp(1000)) is 1000; the right answer costs nothing, the wrong one what it claims."""
    logits, used = np.float32([[1000, -1000]]), np.ones((1, 2), bool)
    assert losses.objectness(logits, np.array([[True, False]]), used) == 0
    np.testing.assert_allclose(losses.objectness(logits, np.array([[False, True]]), used), 1000)
    both = np.stack([logits, -logits], axis=-1)
    np.testing.assert_allclose(losses.classifier(both, np.int32([[1, 0]]), used), 2000)
    masks = logits.reshape(1, 2, 1, 1)
    np.testing.assert_allclose(losses.mask(masks, np.float32([0, 1]).reshape(1, 2, 1, 1), used), 1000)


def test_attributes_are_keras_focal_loss_of_the_foreground():
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, (2, 5, 7)).astype(np.float32)
    target = random.integers(0, 2, (2, 5, 7)).astype(np.uint8)
    foreground = random.random((2, 5)) < 0.6
    focal = keras.losses.binary_focal_crossentropy(
        target, logits, apply_class_balancing=True, alpha=0.25, gamma=2.0, from_logits=True
    )
    expected = 50 * ops.convert_to_numpy(focal)[foreground].mean()
    np.testing.assert_allclose(losses.attributes(logits, target, foreground), expected, rtol=1e-4)
    beyond = np.where(foreground[..., None], logits, 1e4)
    np.testing.assert_allclose(losses.attributes(beyond, target, foreground), expected, rtol=1e-4)
    assert losses.attributes(logits, target, np.zeros_like(foreground)) == 0


def agrees(gradients, compiled, function, values, step=1e-2):
    """Central differences of every number against the gradient."""
    (found,) = gradients(function, [values])
    fast, expected = compiled(function), np.zeros_like(values)
    for place in np.ndindex(values.shape):
        higher, lower = values.copy(), values.copy()
        higher[place] += step
        lower[place] -= step
        expected[place] = (fast(higher) - fast(lower)) / (2 * step)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("spread", [2, 0], ids=["anywhere", "at 0"])  # where training begins logits are 0
@pytest.mark.parametrize("name", ["objectness", "classifier", "mask", "attributes"])
def test_gradients_are_finite_differences(name, spread, gradients, compiled):
    random = np.random.default_rng(4)
    used = random.random((2, 5)) < 0.7
    foreground = used & (random.random((2, 5)) < 0.7)
    shape, rest = {
        "objectness": ((2, 5), (foreground, used)),
        "classifier": ((2, 5, 4), (random.integers(0, 4, (2, 5)).astype(np.int32), used)),
        "mask": ((2, 5, 3, 3), (random.random((2, 5, 3, 3), np.float32), foreground)),
        "attributes": ((2, 5, 6), (random.integers(0, 2, (2, 5, 6)), foreground)),
    }[name]
    logits = (spread * random.normal(size=shape)).astype(np.float32)
    agrees(gradients, compiled, lambda values: getattr(losses, name)(values, *rest), logits)


def test_gradient_of_box_reg(gradients, compiled):
    """On both sides of where it turns from square to absolute, and where nothing is to be moved."""
    random = np.random.default_rng(5)
    deltas, target = random.normal(0, 0.2, (2, 2, 5, 4)).astype(np.float32)
    deltas[:, 0] = target[:, 0]
    used = np.ones((2, 5), bool)
    foreground = used & (np.arange(5) < 4)
    agrees(gradients, compiled, lambda values: losses.box_reg(values, target, foreground, used), deltas, 2e-3)
