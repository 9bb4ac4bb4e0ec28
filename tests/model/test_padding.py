"""Anchors in the padding beside a picture are neither learned from nor proposed."""

import numpy as np
import pytest
from keras import ops
from tiny import network, shrink

from fashionseg.model import anchors as anchor_ops
from fashionseg.model import targets
from fashionseg.model.rpn import RegionProposals

SIDE = 128


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


def test_anchors_in_the_padding(small):
    """Centres on the edge are outside: that of the first cell beyond 24 pixels at stride 8 lies there."""
    anchors = ops.convert_to_numpy(anchor_ops.grid_anchors(8, 8, 8, 16))
    sizes = np.array([[64, 64], [64, 24], [9, 64], [1, 1]], np.int32)
    found = ops.convert_to_numpy(anchor_ops.inside(anchors, sizes)).reshape(4, 8, 8, 3)
    for inside, (height, width) in zip(found, sizes, strict=True):
        expected = (np.arange(8)[:, None] * 8 < height) & (np.arange(8) * 8 < width)
        np.testing.assert_array_equal(inside, np.repeat(expected[..., None], 3, axis=2))


def test_a_box_at_the_edge_matches_an_anchor_inside(compiled, monkeypatch):
    """Though the one that fits it best is centred in the padding, and that one is neither foreground nor background."""
    rpn = network(side=SIDE).rpn
    anchors = rpn.anchors([np.zeros((1, -(-64 // s), -(-64 // s), 8), np.float32) for s in rpn.strides])
    flat = ops.convert_to_numpy(ops.concatenate(anchors))
    sizes, box = np.array([[64, 30]], np.int32), np.array([[[24, 24, 30, 40]]], np.float32)
    outside = ~ops.convert_to_numpy(anchor_ops.inside(flat, sizes))[0]
    ends = np.cumsum([len(level) for level in anchors])[:-1]

    def both(sizes, box, logits, deltas, uniform):
        levels = ops.split(logits, ends, axis=1), ops.split(deltas, ends, axis=1), anchors
        batch = {"boxes": box, "classes": ops.ones((1, 1), "int32"), "sizes": sizes}
        losses = rpn.losses_of((logits, deltas), anchors, batch, uniform)
        return losses, rpn.propose(*levels, sizes)

    def given(_, outputs, indices):
        return [targets.take(values, indices) for values in outputs]

    monkeypatch.setattr(RegionProposals, "_at", given)

    logits = np.where(outside, 100.0, 0.0)[None].astype(np.float32)  # to propose or learn from these would show
    uniform = np.where(outside, 0.999, np.linspace(0, 0.99, len(flat)))[None].astype(np.float32)
    losses, (boxes, scores) = compiled(both)(sizes, box, logits, np.zeros((1, len(flat), 4), np.float32), uniform)
    assert losses["objectness"] == pytest.approx(np.log(2), rel=1e-5)
    assert losses["rpn_box_reg"] > 0
    assert scores.max() == 0.5
    assert boxes[..., 2].max() <= 30
