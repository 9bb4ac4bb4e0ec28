"""Import of Matterport's file: its layers computed as its code has them, from the same random numbers."""

import contextlib

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from test_pretrained import RANDOM, SMALL, zeros

from fashionseg.core.errors import UserError
from fashionseg.model import anchors, backbones, box_head, initializers
from fashionseg.model.mask_rcnn import STRIDES
from fashionseg.model.weights import matterport, pretrained
from networks import mask_rcnn

SIDE, CHANNELS, DENSE, CLASSES = 64, 16, 32, 5
BLOCKS, FILTERS = [1, 2, 1, 1], [64, 16, 16, 16]
MEAN = np.array([123.7, 116.8, 103.9], "float32")


def shapes() -> dict[str, tuple[int, ...]]:
    """Kernel shapes by the names of its layers; the numbers of blocks and channels are ours."""
    found = {"conv1": (7, 7, 3, 64)}
    width = 64
    for stage, (blocks, filters) in enumerate(zip(BLOCKS, FILTERS, strict=True), 2):
        for letter in "abc"[:blocks]:
            name = f"res{stage}{letter}_branch"
            found |= {f"{name}2a": (1, 1, width, filters), f"{name}2b": (3, 3, filters, filters)}
            found[f"{name}2c"] = (1, 1, filters, 4 * filters)
            if letter == "a":
                found[f"{name}1"] = (1, 1, width, 4 * filters)
            width = 4 * filters
        found[f"fpn_c{stage}p{stage}"] = (1, 1, width, CHANNELS)
        found[f"fpn_p{stage}"] = (3, 3, CHANNELS, CHANNELS)
    found |= {
        "rpn_conv_shared": (3, 3, CHANNELS, 512),
        "rpn_class_raw": (1, 1, 512, 6),
        "rpn_bbox_pred": (1, 1, 512, 12),
    }
    found |= {"mrcnn_class_conv1": (7, 7, CHANNELS, DENSE), "mrcnn_class_conv2": (1, 1, DENSE, DENSE)}
    found |= {"mrcnn_class_logits": (DENSE, CLASSES + 1), "mrcnn_bbox_fc": (DENSE, 4 * (CLASSES + 1))}
    found |= {f"mrcnn_mask_conv{k}": (3, 3, CHANNELS, CHANNELS) for k in (1, 2, 3, 4)}
    return found | {"mrcnn_mask_deconv": (2, 2, CHANNELS, CHANNELS), "mrcnn_mask": (1, 1, CHANNELS, CLASSES + 1)}


def norm_of(name: str) -> str | None:
    if name.startswith(("conv1", "res")):
        return "bn_conv1" if name == "conv1" else name.replace("res", "bn")
    return name.replace("conv", "bn") if name.startswith(("mrcnn_class_conv", "mrcnn_mask_conv")) else None


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for name, shape in shapes().items():
        found[f"{name}/kernel"] = random.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
        found[f"{name}/bias"] = random.normal(0, 0.3, shape[-1])
        if norm := norm_of(name):
            variance = 10 ** random.uniform(-3, 0.5, shape[-1])  # the smallest as small as epsilon
            found[f"{norm}/moving_variance"] = variance
            found[f"{norm}/gamma"] = random.uniform(0.5, 1.5, shape[-1]) * np.sqrt(variance + 1e-3)  # nothing explodes
            found[f"{norm}/beta"], found[f"{norm}/moving_mean"] = random.normal(0, 0.3, (2, shape[-1]))
    return {name: values.astype("float32") for name, values in found.items()}


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("matterport") / "mask_rcnn_small.h5"
    with h5py.File(path, "w") as written:
        for name, values in tensors.items():
            layer, weight = name.split("/")
            group = "rpn_model" if layer.startswith("rpn_") else layer
            written[f"{group}/{layer}/{weight}:0"] = values
        written.create_group("input_image")  # layers without weights have empty groups
    return path


@pytest.fixture(scope="module")
def network(file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "RESNETS", {"resnet50": BLOCKS})
        patch.setattr(backbones, "RESNET_FILTERS", FILTERS)
        patch.setattr(box_head, "DENSE", DENSE)
        patch.setattr(initializers, "_draw", lambda initializer, shape: np.zeros(shape, "float32"))
        for kind in RANDOM:
            patch.setattr(kind, "__call__", zeros)
        network = mask_rcnn(**{**SMALL, "backbone": "resnet50_matterport", "heads": "matterport", "side": SIDE})
    report = pretrained.load(network, file)
    assert not [*report.skipped, *report.fresh, *report.unused]
    return network


def test_every_layer_gives_the_same_numbers(network, tensors, compiled):
    random = np.random.default_rng(1)
    image = random.uniform(0, 255, (1, SIDE, SIDE, 3)).astype("float32")
    boxes = random.normal(size=(1, 3, 7, 7, CHANNELS)).astype("float32")
    masks = random.normal(size=(1, 3, 14, 14, CHANNELS)).astype("float32")
    classes = np.array([[1, 5, 3]], "int32")

    def ours(image, boxes, masks, classes):
        maps = network.backbone(image)
        pyramid = network.fpn(maps)
        logits, deltas = network.rpn(pyramid)
        class_logits, class_deltas, _ = network.roi_heads.box_head(boxes)
        mask = ops.sigmoid(network.roi_heads.mask_head(masks, classes))
        return maps, pyramid, [ops.sigmoid(values) for values in logits], deltas, class_logits, class_deltas, mask

    def theirs(image, boxes, masks, classes):
        def conv(x, name, stride=1, padding="same"):
            return ops.conv(x, tensors[f"{name}/kernel"], stride, padding) + tensors[f"{name}/bias"]

        def normed(x, name, *args):
            gain, offset, mean, variance = (
                tensors[f"{norm_of(name)}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            return (conv(x, name, *args) - mean) / np.sqrt(variance + 1e-3) * gain + offset

        x = ops.pad(image - MEAN, ((0, 0), (3, 3), (3, 3), (0, 0)))
        x = ops.max_pool(ops.relu(normed(x, "conv1", 2, "valid")), 3, 2, "same")
        maps = []
        for stage, blocks in enumerate(BLOCKS, 2):
            for letter in "abc"[:blocks]:
                name, stride = f"res{stage}{letter}_branch", 2 if letter == "a" and stage > 2 else 1
                y = ops.relu(normed(x, f"{name}2a", stride, "valid"))
                y = normed(ops.relu(normed(y, f"{name}2b")), f"{name}2c")
                x = ops.relu(y + (normed(x, f"{name}1", stride, "valid") if letter == "a" else x))
            maps.append(x)
        merged = [conv(maps[3], "fpn_c5p5")]
        for stage in (4, 3, 2):
            up = ops.repeat(ops.repeat(merged[0], 2, axis=1), 2, axis=2)
            merged = [up + conv(maps[stage - 2], f"fpn_c{stage}p{stage}"), *merged]
        pyramid = [conv(x, f"fpn_p{stage}") for stage, x in enumerate(merged, 2)]
        pyramid.append(ops.max_pool(pyramid[3], 1, 2))
        foreground, deltas = [], []
        for x in pyramid:
            shared = ops.relu(conv(x, "rpn_conv_shared"))
            foreground.append(ops.softmax(ops.reshape(conv(shared, "rpn_class_raw"), (1, -1, 2)))[..., 1])
            deltas.append(ops.reshape(conv(shared, "rpn_bbox_pred"), (1, -1, 4)))
        x = ops.relu(normed(boxes[0], "mrcnn_class_conv1", 1, "valid"))
        x = ops.relu(normed(x, "mrcnn_class_conv2", 1, "valid"))[:, 0, 0]
        class_logits, class_deltas = (
            ops.matmul(x, tensors[f"{name}/kernel"]) + tensors[f"{name}/bias"]
            for name in ("mrcnn_class_logits", "mrcnn_bbox_fc")
        )
        x = masks[0]
        for index in (1, 2, 3, 4):
            x = ops.relu(normed(x, f"mrcnn_mask_conv{index}"))
        x = ops.einsum("rijc,aboc->riajbo", x, tensors["mrcnn_mask_deconv/kernel"])  # stride 2, kernel 2: no overlap
        x = ops.relu(ops.reshape(x, (3, 28, 28, CHANNELS)) + tensors["mrcnn_mask_deconv/bias"])
        mask = ops.take_along_axis(ops.sigmoid(conv(x, "mrcnn_mask")), classes[0][:, None, None, None], axis=-1)
        return maps, pyramid, foreground, deltas, class_logits, class_deltas, mask

    found = compiled(ours)(image, boxes, masks, classes)
    maps, pyramid, foreground, deltas, class_logits, class_deltas, mask = compiled(theirs)(image, boxes, masks, classes)
    # Theirs are y first and an anchor's (tall, square, wide); ours x first and (wide, square, tall).
    foreground = [values.reshape(1, -1, 3)[..., ::-1] for values in foreground]
    std = [0.1, 0.1, 0.2, 0.2]  # RPN_BBOX_STD_DEV
    deltas = [(values * std).reshape(1, -1, 3, 4)[..., ::-1, [1, 0, 3, 2]] for values in deltas]
    class_deltas = class_deltas.reshape(3, -1, 4)[..., [1, 0, 3, 2]]  # BBOX_STD_DEV is in our weights
    expected = maps, pyramid, foreground, deltas, class_logits, class_deltas, mask
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert 1e-3 < np.abs(other).max() < 1e4
        np.testing.assert_allclose(one, other.reshape(one.shape), rtol=0, atol=1e-4 * np.abs(other).max())


def test_anchors_are_ours_in_another_order():
    """utils.generate_anchors: (y, x) centres at multiples of the stride, ratios of width to height, not rounded."""
    for stride, side in zip(STRIDES, (32, 64, 128, 256, 512), strict=True):
        ratios = np.array([0.5, 1, 2])
        height, width = side / np.sqrt(ratios), side * np.sqrt(ratios)
        y, x = np.mgrid[:2, :3][..., None] * stride
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=-1)[..., ::-1, :]
        ours = ops.convert_to_numpy(anchors.grid_anchors(2, 3, stride, side))
        np.testing.assert_allclose(ours, boxes.reshape(-1, 4), atol=0.51)


def test_layer_names_of_resnet101():
    for layer, name in [
        ("backbone.stack2_block22_3_conv", "res4w_branch2c"),
        ("backbone.stack0_block0_0_bn", "res2a_branch1"),
        ("backbone.stack3_block2_1_bn", "res5c_branch2a"),
    ]:
        assert matterport._matterport_name(layer) == name


def test_a_damaged_file_is_read_or_refused(file, tmp_path):
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.h5"
    for number in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole) // 4 if number % 2 else len(whole), 40):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):  # and nothing else
            matterport.tensors_of(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"damaged\.h5 cannot be read as HDF5, it may be cut short or damaged"):
        matterport.tensors_of(path)


def test_other_networks_are_refused(network, file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as written:
        written["dense/dense/kernel:0"] = np.ones((2, 2))
    with pytest.raises(UserError, match=r"other\.h5 lacks conv1/kernel"):
        pretrained.load(network, tmp_path / "other.h5")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(UserError, match=r"own\.weights\.h5 holds weights of Keras 3; .* as train\.resume"):
        pretrained.load(network, tmp_path / "own.weights.h5")
    with pytest.raises(UserError, match=r"resnet50_matterport has no imagenet weights.*mask_rcnn_coco\.h5"):
        backbones.build("resnet50_matterport", "imagenet", 0, 64)
