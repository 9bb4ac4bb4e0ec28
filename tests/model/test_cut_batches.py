"""Batches of tall or wide pictures in a narrower shape than the square: the same losses, steps and detections.

What holds exactly: where no convolution looks beyond its own cells, all numbers are the same, and so are anchors and
samples always. What a trained network sees differs by the edge alone, zeros where grey padding was.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from tiny import make_batch, network, parts, shrink, spread

from fashionseg.model import anchors as anchor_ops
from fashionseg.model import backbones
from fashionseg.model.mask_rcnn import MaskRCNN

SIDE, NARROW, WIDTH = 128, (128, 64), 30  # half a cell of P5 lies between the pictures and the shape's edge


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


def short_sighted(model: MaskRCNN) -> None:
    """Kernels as large as their stride: no cell sees a neighbour's pixels."""
    spread(model)
    for layer in parts(model).values():
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4 and variable.shape[0] > 1 and "mask" not in variable.path:
                kernel, side = ops.convert_to_numpy(variable).copy(), variable.shape[0]
                if side == 3:
                    kernel[[0, 2]] = kernel[:, [0, 2]] = 0
                    kernel *= 3
                else:  # of the tiny backbone: one more than its stride, which is at the end
                    kernel[-1] = kernel[:, -1] = 0
                variable.assign(kernel)


def tall_batch() -> dict[str, np.ndarray]:
    """Pictures of 128 x 30 and 100 x 30: those of make_batch, turned and cut, on grey."""
    batch = make_batch(4)
    images = np.full((2, SIDE, SIDE, 3), 127, np.float32)
    images[:, :64, :WIDTH] = batch["images"].swapaxes(1, 2)[:, :, :WIDTH]
    images[0, 64:, :WIDTH] = batch["images"][0, ::-1, :WIDTH]
    images[1, 64:100, :WIDTH] = batch["images"][1, :36, :WIDTH]
    boxes = batch["boxes"][..., [1, 0, 3, 2]]
    boxes[..., [0, 2]] = np.minimum(boxes[..., [0, 2]], WIDTH)
    batch["classes"][boxes[..., 2] - boxes[..., 0] < 4] = 0
    boxes[batch["classes"] == 0] = 0
    return {**batch, "images": images, "boxes": boxes, "sizes": np.array([[SIDE, WIDTH], [100, WIDTH]], np.int32)}


eager = pytest.mark.skipif(keras.backend.backend() == "jax", reason="takes minutes without compilation, and with it")


class Step(NamedTuple):
    losses: dict[str, float]
    moments: list[np.ndarray]  # of Adam, which after one step are the gradients but for a factor


@pytest.fixture
def models(small) -> list[MaskRCNN]:
    """A network in squares alone, and the same that knows a narrower shape, too."""
    found = [network(side=SIDE) for _ in range(2)]
    found[1].use_shapes([NARROW])
    for model in found:
        short_sighted(model)
        model.compile("adam", run_eagerly=True)  # to compile three such graphs would take a minute
    return found


def step(model: MaskRCNN, batch: dict[str, np.ndarray]) -> Step:
    losses = model.train_on_batch(batch, return_dict=True)
    moments = [ops.convert_to_numpy(v) for v in model.optimizer.variables if "momentum" in v.path]
    return Step(losses, moments)


def detections(model: MaskRCNN, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images, sizes = map(ops.convert_to_tensor, (batch["images"], batch["sizes"]))
    return {name: ops.convert_to_numpy(values) for name, values in model.detect(images, sizes, 0.2, 0.5).items()}


@eager
def test_a_step_and_detections_are_those_of_the_square(models):
    batch = tall_batch()
    assert (batch["classes"] > 0).sum() > 2
    found, expected = (detections(model, batch) for model in reversed(models))
    assert (expected["classes"] > 0).sum() > 4
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
    found, expected = (step(model, batch) for model in reversed(models))
    assert all(value > 0 for value in expected.losses.values())
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    for one, other in zip(expected.moments, found.moments, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3 * np.abs(one).max() + 1e-7)


@eager
@pytest.mark.parametrize(("second", "narrow"), [((100, 30), True), ((64, 66), False)])  # one picture is enough
def test_only_batches_that_fit_are_cut(models, second, narrow):
    """Nothing beyond a shape is looked at, unless a picture reaches there."""
    batch = tall_batch()
    batch["sizes"][1] = second
    batch["images"][:, :, NARROW[1] :] = np.nan
    assert np.isfinite(step(models[1], batch).losses["loss"]) == narrow


def test_a_compiled_network_takes_the_shape_of_each_batch(compiled, gradients):
    """Static shapes in every branch, and gradients through them."""
    model, shapes = network(side=SIDE), []
    model.use_shapes([NARROW])

    def means(images, sizes):
        def of_cut(cut):
            shapes.append(cut.shape[1:])
            return {"mean": ops.mean(cut), "columns": ops.convert_to_tensor(cut.shape[2])}

        return model._cut(of_cut, images, sizes)

    run = compiled(means)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    for width, columns in ((30, 64), (64, 64), (65, SIDE), (40, 64)):
        sizes = np.array([[SIDE, 20], [50, width]], np.int32)
        found = run(images, sizes)
        assert found["columns"] == columns
        assert found["mean"] == pytest.approx(images[:, :, :columns].mean(), rel=1e-5)
        (slope,) = gradients(lambda cut, sizes=sizes: means(cut, ops.convert_to_tensor(sizes))["mean"], [images])
        assert np.count_nonzero(np.asarray(slope)) == 2 * 3 * SIDE * columns
    assert set(shapes) == {(*NARROW, 3), (SIDE, SIDE, 3)}


@eager
def test_a_compiled_step_has_gradients():
    """TensorFlow cannot differentiate the branches of the mask head within the branches of the shapes."""
    model = network(side=SIDE)
    model.use_shapes([NARROW])
    model.compile("adam", jit_compile=False)
    first, second = (model.train_on_batch(tall_batch(), return_dict=True)["loss"] for _ in range(2))
    assert 0 < second < first


def test_the_smallest_shape_that_holds_the_pictures():
    model = network(side=SIDE)
    model.use_shapes([(128, 96), (64, 128), (128, 64), (128, 128)])
    images = np.zeros((2, SIDE, SIDE, 3), np.float32)
    for sizes, expected in {
        ((128, 64), (90, 10)): (128, 64),
        ((128, 65), (90, 10)): (128, 96),
        ((64, 128), (64, 64)): (64, 128),
        ((64, 64), (50, 64)): (64, 128),  # of equals the first
        ((65, 128), (64, 64)): (128, 128),
        ((128, 40), (40, 128)): (128, 128),
    }.items():
        found = model._cut(
            lambda cut: {"shape": ops.convert_to_tensor(cut.shape[1:3])}, images, np.array(sizes, np.int32)
        )
        assert tuple(ops.convert_to_numpy(found["shape"]).tolist()) == expected


def test_shapes_are_left_alone_where_they_would_not_work(monkeypatch):
    following = network(side=SIDE, frozen_norm=False)
    following.use_shapes([NARROW])
    assert following.shapes == []

    def of_one_size(*arguments):
        model = backbone(*arguments)
        image = keras.Input((SIDE, SIDE, 3))
        fixed = keras.Model(image, model(image))
        fixed.description = model.description
        return fixed

    backbone = backbones.build
    monkeypatch.setattr(backbones, "build", of_one_size)
    fixed = network(side=SIDE)
    fixed.use_shapes([NARROW])
    assert fixed.shapes == []


def test_anchors_in_the_padding(small):
    """Centres on the edge are outside: that of the first cell beyond 24 pixels at stride 8 lies there."""
    anchors = ops.convert_to_numpy(anchor_ops.grid_anchors(8, 8, 8, 16))
    sizes = np.array([[64, 64], [64, 24], [9, 64], [1, 1]], np.int32)
    found = ops.convert_to_numpy(anchor_ops.inside(anchors, sizes)).reshape(4, 8, 8, 3)
    for inside, (height, width) in zip(found, sizes, strict=True):
        expected = (np.arange(8)[:, None] * 8 < height) & (np.arange(8) * 8 < width)
        np.testing.assert_array_equal(inside, np.repeat(expected[..., None], 3, axis=2))


def test_a_box_at_the_edge_has_an_anchor_of_the_picture(compiled):
    """Though the one that fits it best is centred in the padding, and that one is neither foreground nor background."""
    rpn = network(side=SIDE).rpn
    anchors = rpn.anchors([np.zeros((1, *grid, 8), np.float32) for grid in rpn.grids(64, 64)])
    flat = ops.convert_to_numpy(ops.concatenate(anchors))
    sizes, box = np.array([[64, 30]], np.int32), np.array([[[24, 24, 30, 40]]], np.float32)
    outside = ~ops.convert_to_numpy(anchor_ops.inside(flat, sizes))[0]
    ends = np.cumsum([len(level) for level in anchors])[:-1]

    def both(sizes, box, logits, deltas, uniform):
        levels = ops.split(logits, ends, axis=1), ops.split(deltas, ends, axis=1), anchors
        losses = rpn.losses_of(*levels, box, ops.ones((1, 1), "bool"), sizes, uniform)
        return losses, rpn.propose(*levels, sizes)

    logits = np.where(outside, 100.0, 0.0)[None].astype(np.float32)  # to propose or learn from these would show
    uniform = np.where(outside, 0.999, np.linspace(0, 0.99, len(flat)))[None].astype(np.float32)
    losses, (boxes, scores) = compiled(both)(sizes, box, logits, np.zeros((1, len(flat), 4), np.float32), uniform)
    assert losses["objectness"] == pytest.approx(np.log(2), rel=1e-5)
    assert losses["rpn_box_reg"] > 0
    assert scores.max() == 0.5
    assert boxes[..., 2].max() <= 30
