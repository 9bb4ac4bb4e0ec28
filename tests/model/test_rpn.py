"""The RPN at single anchors against the RPN at all of them."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from fashionseg.model.rpn import RegionProposals

SHAPES = (5, 8), (3, 4), (1, 2)  # of a pyramid that is not square: most cells are at an edge
CHANNELS, IMAGES = 3, 2
STRIDES = [4, 8, 16]
ANCHORS = 2 * sum(height * width for height, width in SHAPES)


def region_proposals(convs: int) -> RegionProposals:
    rpn = RegionProposals(4, STRIDES, 16, 10, convs=convs, ratios=[0.5, 2.0])
    rpn.build([(None, *shape, CHANNELS) for shape in SHAPES])
    random = np.random.default_rng(1)
    for variable in rpn.variables:
        variable.assign(random.normal(size=variable.shape))
    return rpn


def pyramid() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(IMAGES, *shape, CHANNELS)).astype("float32") for shape in SHAPES]


def everywhere(rpn, levels, indices):
    logits, deltas = (ops.concatenate(of, axis=1) for of in rpn(levels))
    return (
        ops.take_along_axis(logits, indices, axis=1),
        ops.take_along_axis(deltas, indices[..., None], axis=1),
    )


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_outputs_are_those_at_all_anchors(compiled, convs):
    rpn = region_proposals(convs)
    indices = np.array([np.arange(ANCHORS), np.random.default_rng(2).permutation(ANCHORS)], "int32")
    found, expected = (
        compiled(lambda *given, of=of: of([*given[:-1]], given[-1]))(*pyramid(), indices)
        for of in (rpn, partial(everywhere, rpn))
    )
    for values, other, shape in zip(found, expected, [(IMAGES, ANCHORS), (IMAGES, ANCHORS, 4)], strict=True):
        assert values.shape == shape
        np.testing.assert_allclose(values, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("convs", [1, 2])
def test_gradients_are_those_of_all_anchors(gradients, convs):
    """To the features and to the kernels; an anchor counts as often as it is sampled."""
    rpn = region_proposals(convs)
    random = np.random.default_rng(3)
    indices = random.integers(ANCHORS, size=(IMAGES, 7), dtype="int32")
    indices[:, 0] = indices[:, 1]
    indices[:, 2] = ANCHORS - 1  # so that each level has one
    indices[:, 3] = 2 * 5 * 8
    weights = random.normal(size=(IMAGES, 7, 5)).astype("float32")
    kernels = [ops.convert_to_numpy(variable) for variable in rpn.variables]

    def slopes(of):
        def value(*arrays):
            levels, values = [*arrays[: len(SHAPES)]], arrays[len(SHAPES) :]
            with keras.StatelessScope([*zip(rpn.variables, values, strict=True)]):
                logits, deltas = of(levels, ops.convert_to_tensor(indices))
            return ops.sum(logits * weights[..., 0]) + ops.sum(deltas * weights[..., 1:])

        return [ops.convert_to_numpy(slope) for slope in gradients(value, [*pyramid(), *kernels])]

    for slope, expected in zip(slopes(rpn), slopes(partial(everywhere, rpn)), strict=True):
        assert expected.any()
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class Outer(keras.layers.Layer):
    """As the network of 16 bits, within which variables are 16-bit unless a layer says otherwise."""

    def __init__(self, inner):
        super().__init__(dtype="mixed_bfloat16", autocast=False)
        self.inner = inner

    def call(self, levels, *others):
        return self.inner(levels, *others)


def test_losses_within_16_bits_have_float32_kernels(compiled):
    rpn = region_proposals(1)
    random = np.random.default_rng(4)
    batch = {
        "boxes": np.tile(np.float32([3, 2, 17, 19]), (IMAGES, 1, 1)),
        "classes": np.ones((IMAGES, 1), "int32"),
        "sizes": np.tile(np.int32([20, 32]), (IMAGES, 1)),
    }
    uniform = random.random((IMAGES, ANCHORS), dtype="float32")

    def losses(*levels):
        tensors = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
        return rpn.losses_of([*levels], rpn.anchors(levels), tensors, ops.convert_to_tensor(uniform))

    expected = compiled(losses)(*pyramid())
    found = compiled(lambda *levels: Outer(lambda levels: losses(*levels))([*levels]))(*pyramid())
    for name in ("objectness", "rpn_box_reg"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    assert expected["rpn_box_reg"] > 0
