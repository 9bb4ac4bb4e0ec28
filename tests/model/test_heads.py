"""What no golden file covers: group norm, class-agnostic boxes and masks, ratios of anchors, scores of masks."""

from contextlib import nullcontext
from functools import partial

import h5py
import numpy as np
import pytest
from keras import ops
from tiny import SMALL, make_batch, shrink

from fashionseg.model import compilation, convs, device, initializers
from fashionseg.model.box_head import BoxHead
from fashionseg.model.cells import Cells
from fashionseg.model.fpn import FeaturePyramid
from fashionseg.model.mask_head import MaskHead
from fashionseg.model.mask_rcnn import HEADS, LOSSES, with_mask_scores
from fashionseg.model.roi_heads import RoIHeads
from fashionseg.model.rpn import RegionProposals
from networks import mask_rcnn


@pytest.fixture(autouse=True)
def drawn_by_numpy(monkeypatch):
    shrink(monkeypatch)


def test_stack_with_group_norm_by_hand(compiled):
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 5, 6, 8)).astype("float32")
    stack, layers = convs.stack([48], normed=True)  # 16 groups, the largest divisor of 48 and 32
    convs.build(stack, layers, features.shape)
    gain, offset = random.normal(size=(2, 48)).astype("float32")
    layers[0].set_weights([gain, offset])
    plain = ops.convert_to_numpy(stack[0](features)).reshape(2, 30, 16, 3)
    assert plain.min() < 0  # no activation before the norm
    spread = np.sqrt(plain.var(axis=(1, 3), keepdims=True) + 1e-5)
    expected = ((plain - plain.mean(axis=(1, 3), keepdims=True)) / spread).reshape(2, 5, 6, 48) * gain + offset
    found = compiled(lambda values: convs.apply(stack, layers, values))(features)
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-4)


def test_group_norm_normalises_every_pyramid_level(compiled):
    random = np.random.default_rng(0)
    maps = [random.normal(3, 2, (1, 32 >> level, 32 >> level, 8)).astype("float32") for level in range(4)]
    layer = FeaturePyramid(32, normed=True)
    layer.build([values.shape for values in maps])
    for feature in compiled(lambda *values: layer(list(values)))(*maps)[:4]:
        np.testing.assert_allclose(feature.mean(axis=(1, 2)), 0, atol=1e-4)  # 32 channels: one a group
        np.testing.assert_allclose(feature.std(axis=(1, 2)), 1, atol=1e-2)


@pytest.mark.parametrize("agnostic", [True, False])
def test_class_agnostic_masks_ignore_the_class(agnostic, compiled):
    features = np.random.default_rng(0).normal(size=(1, 2, 14, 14, 8)).astype("float32")
    features[:, 1] = features[:, 0]
    head = MaskHead(classes=3, channels=8, class_agnostic=agnostic)
    head.build(features.shape)
    head.kernel.assign(np.random.default_rng(1).normal(size=head.kernel.shape))
    logits = compiled(head)(features, np.array([[1, 3]], "int32"))
    assert (np.ptp(logits, axis=1).max() < 1e-6) == agnostic
    assert head.kernel.shape[0] == (1 if agnostic else 4)


def test_anchor_ratios(compiled):
    layer = RegionProposals(8, [4, 8], 32, 10, convs=2, ratios=[0.25, 1.0, 2.0, 4.0])
    pyramid = [np.ones((1, 16 >> level, 24 >> level, 8), "float32") for level in range(2)]
    layer.build([values.shape for values in pyramid])
    logits, deltas = compiled(lambda *values: layer(list(values)))(*pyramid)
    for level, anchors in enumerate(layer.anchors(pyramid)):
        sides = ops.convert_to_numpy(anchors[:, 2:] - anchors[:, :2]).reshape(-1, 4, 2)
        np.testing.assert_allclose(sides[..., 1] / sides[..., 0], [[0.25, 1, 2, 4]] * len(sides), rtol=0.05)
        assert logits[level].shape == (1, 4 * len(sides))
        assert deltas[level].shape == (1, 4 * len(sides), 4)


def test_a_graph_without_branches_gives_the_same_detections(compiled):
    """Masks and attributes of the slots in use, whether in parts of which most are skipped or all together."""
    heads = RoIHeads(3, 8, [4, 8], 160, 40, "conv", 5)
    pyramid = [np.random.default_rng(level).normal(0, 99, (2, 16 >> level, 16 >> level, 8)) for level in range(2)]
    heads.build([level.shape for level in pyramid])
    random = np.random.default_rng(0)
    corners = random.uniform(0, 32, (2, 40, 2))
    rois = np.concatenate([corners, corners + random.uniform(4, 32, (2, 40, 2))], axis=-1)
    arrays = [np.asarray(array, "float32") for array in (*pyramid, rois, np.zeros((2, 40, 16)))]
    classes, used = random.integers(1, 4, (2, 40)).astype("int32"), np.arange(40) < np.array([[18], [3]])
    found = []
    for graph in (nullcontext(), device.without_branches()):

        def of(p2, p3, rois, features):
            return heads._instances_in_parts([p2, p3], rois, classes, features, ops.convert_to_tensor(used))

        with graph:
            found.append([values[used] for values in compiled(of)(*arrays)])
    for parts, whole in zip(*found, strict=True):
        assert np.abs(parts).max() > 0.1
        np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)


def some_regions():
    """Heads with three parts of mask slots, a pyramid, and proposals of which the second image has nine."""
    heads = RoIHeads(3, 8, [4, 8], 160, 40, "conv", 3)
    pyramid = [np.random.default_rng(level).normal(size=(2, 16 >> level, 16 >> level, 8)) for level in range(2)]
    with initializers.seeded(0):
        heads.build([level.shape for level in pyramid])
    random = np.random.default_rng(0)
    corners = random.uniform(0, 32, (2, 40, 2))
    proposals = np.concatenate([corners, corners + random.uniform(4, 32, (2, 40, 2))], axis=-1)
    batch = make_batch()
    uniform = random.random((2, 40 + batch["boxes"].shape[1]))
    arrays = *pyramid, proposals, np.arange(40) < np.array([[40], [9]]), uniform
    *pyramid, proposals, scores, uniform = (np.asarray(array, "float32") for array in arrays)

    def losses(*pyramid):
        tensors = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
        return heads.losses_of(pyramid, *map(ops.convert_to_tensor, (proposals, scores)), tensors, uniform)

    return losses, pyramid


def test_a_gpu_graph_gives_the_same_losses_and_gradients(compiled, gradients, monkeypatch):
    losses, pyramid = some_regions()
    found = {}
    for accelerated in (False, True):
        monkeypatch.setattr(device, "accelerated", lambda accelerated=accelerated: accelerated)
        monkeypatch.setattr(compilation, "fuses", lambda accelerated=accelerated: accelerated)
        again = partial(losses)  # JAX keeps what it compiled of a function
        found[accelerated] = compiled(again)(*pyramid), gradients(lambda *p: sum(losses(*p).values()), pyramid)
    for name, value in found[False][0].items():
        assert value > 0
        np.testing.assert_allclose(found[True][0][name], value, rtol=1e-4)
    for whole, parts in zip(found[True][1], found[False][1], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(whole), ops.convert_to_numpy(parts), rtol=1e-4, atol=1e-6)


def test_a_gpu_pools_nothing_for_slots_without_a_box(monkeypatch):
    """The second image has twelve boxes for the box head's 44 slots, its ground truth among them; the mask head has
    those in the foreground: ground truth and two proposals in each image."""
    losses, pyramid = some_regions()
    monkeypatch.setattr(device, "accelerated", lambda: True)
    asked = []
    sums = Cells.weighted_sums
    monkeypatch.setattr(Cells, "weighted_sums", lambda *given: asked.append(given[1]) or sums(*given))
    losses(*map(ops.convert_to_tensor, pyramid))
    pooled = [ops.convert_to_numpy(weights).any(axis=-1) for _, weights in asked[0]]  # (2, bins) of each head
    assert pooled[0].reshape(2, -1, 7**2).all(axis=-1).sum(axis=1).tolist() == [43, 12]
    assert pooled[1].reshape(2, -1, 14**2).any(axis=-1).sum(axis=1).tolist() == [5, 5]


def test_all_options_together_train(compiled):
    options = {
        "heads": "v2_group",
        "class_agnostic_boxes": True,
        "class_agnostic_masks": True,
        "anchor_ratios": [1.0, 2.0],
    }
    network = mask_rcnn(**{**SMALL, **options})
    batch = make_batch()
    losses = compiled(lambda *arrays: network(dict(zip(batch, arrays, strict=True))))(*batch.values())
    assert set(losses) >= set(LOSSES) - {"attributes"}
    assert all(np.isfinite(value) and value > 0 for value in losses.values())
    assert len({tuple(row) for row in HEADS.values()}) == len(HEADS)
    names = {variable.path for variable in network.trainable_variables}
    assert sum("group_normalization" in name for name in names) == 2 * (8 + 4 + 4)


def test_old_weight_files_still_load(tmp_path):
    """The names in weights.h5 from before there were options: no stack of heads v1 may add to them or rename them."""
    network = mask_rcnn(**SMALL)
    network.save_weights(tmp_path / "now.weights.h5")
    names = []
    with h5py.File(tmp_path / "now.weights.h5") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    four = ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3"]
    layers = {
        "fpn": [f"{part}/{conv}" for part in ("lateral", "output_convs") for conv in four],
        "layers/region_proposals": ["conv", "deltas", "objectness"],
        "layers/ro_i_heads/box_head": ["class_logits", "deltas", "dense/dense", "dense/dense_1"],
        "layers/ro_i_heads/mask_head": [*(f"convs/{conv}" for conv in four), "upsample", ""],
    }
    expected = {
        f"{group}/{layer}/vars/{k}".replace("//", "/") for group in layers for layer in layers[group] for k in (0, 1)
    }
    assert {name for name in names if name.startswith(tuple(layers))} == expected


def test_class_agnostic_boxes_are_those_of_a_head_with_the_same_weights_for_each_class(compiled):
    features = np.random.default_rng(0).normal(size=(1, 5, 7, 7, 8)).astype("float32")
    agnostic, specific = (BoxHead(classes=3, class_agnostic=agnostic) for agnostic in (True, False))
    for head in (agnostic, specific):
        head.build(features.shape)
    assert agnostic.deltas.kernel.shape == (agnostic.dense[1].units, 4)
    random = np.random.default_rng(1)
    agnostic.set_weights([random.normal(size=weight.shape) / 10 for weight in agnostic.weights])
    specific.set_weights(
        [
            np.tile(weight, 4) if weight.shape[-1] == 4 and place >= len(agnostic.weights) - 2 else weight
            for place, weight in enumerate(agnostic.get_weights())
        ]
    )
    found, expected = compiled(agnostic)(features), compiled(specific)(features)
    assert np.ptp(found[1], axis=1).min() > 0  # RoIs differ
    for values, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, others, rtol=1e-5, atol=1e-5)


def test_mask_scores_by_hand(compiled):
    """The mean of a mask's pixels above 0.5, its highest one where there are none; in order, without the too low."""
    random = np.random.default_rng(0)
    scores = np.array([[0.9, 0.8, 0.7, 0.3], [0.6, 0.5, 0.0, 0.0]], "float32")
    levels = np.array([[0.51, 0.9, 0.4, 0.3], [0.99, 0.6, 0.0, 0.0]])
    masks = levels[..., None, None] * random.uniform(0.6, 1.0, (2, 4, 28, 28))
    found = {
        "boxes": random.uniform(size=(2, 4, 4)),
        "scores": scores,
        "classes": np.array([[1, 2, 3, 4], [5, 6, 0, 0]], "int32"),
        "masks": masks,
        "attributes": random.uniform(size=(2, 4, 3)),
    }
    found = {name: values if name == "classes" else values.astype("float32") for name, values in found.items()}

    def rescored(*values):
        return with_mask_scores(dict(zip(found, values, strict=True)), 0.2)

    result = compiled(rescored)(*found.values())
    for image in range(2):
        expected = []
        for place, score in enumerate(found["scores"][image]):
            mask = found["masks"][image, place]
            quality = mask[mask > 0.5].mean() if (mask > 0.5).any() else mask.max()
            expected.append((score * quality, place))
        expected = [(score, place) for score, place in sorted(expected, reverse=True) if score > 0.2]
        assert len(expected) == [3, 2][image]
        places = [place for _, place in expected]
        assert places != sorted(places) or image
        count = len(places)
        np.testing.assert_allclose(result["scores"][image][:count], [score for score, _ in expected], rtol=1e-5)
        for name in ("boxes", "classes", "masks", "attributes"):
            np.testing.assert_array_equal(result[name][image][:count], found[name][image][places])
        assert not result["classes"][image][count:].any()
        assert not result["scores"][image][count:].any()
