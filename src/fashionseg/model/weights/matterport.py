"""Weights of Matterport's Mask R-CNN."""

import re
from pathlib import Path

import h5py
import numpy as np

from fashionseg.core.errors import UserError, first_line
from fashionseg.model.weights.matching import Report, WeightImport

EPSILON = 1e-3
RPN_STD = (0.1, 0.1, 0.2, 0.2)  # its RPN's deltas are divided by these, ours and torchvision's are not
Y_FIRST = [1, 0, 3, 2]  # from (y, x, height, width) to (x, y, width, height) and back


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """Tensors by layer/weight without the outer group: rpn_model/rpn_conv_shared/kernel:0 is rpn_conv_shared/kernel."""
    tensors = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            tensors["/".join(name.removesuffix(":0").split("/")[-2:])] = np.asarray(item[()], "float32")

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(
            f"{path} cannot be read as HDF5, it may be cut short or damaged: {first_line(error)}."
        ) from None
    return tensors


def load(file: WeightImport) -> Report:
    def affine(name):
        return file.take(f"{name}/kernel"), file.take(f"{name}/bias")

    def parts(name):
        return [f"{name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def folded(name, norm_name):
        (kernel, bias), (scale, shift) = affine(name), file.folded_norm(parts(norm_name), EPSILON)
        return kernel * scale, bias * scale + shift

    for layer in file.remaining("backbone."):
        name = _matterport_name(layer)
        if name is None:
            file.fail(f"holds Matterport's ResNet, which has no {layer}")
        if layer.endswith("_conv"):
            file.load(layer, file.take(f"{name}/kernel"))
        else:
            bias = file.take(f"{name}/bias")  # of the convolution; ours has none
            norm = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
            gain, offset, mean, variance = file.norm(parts(norm), EPSILON)
            file.load(layer, gain, offset, mean - bias, variance)
    if file.remaining("fpn.norm."):
        file.fail("has other norms than model.heads v2_group")
    for level in range(4):
        file.load(f"fpn.lateral.{level}", *affine(f"fpn_c{level + 2}p{level + 2}"))
        file.load(f"fpn.output.{level}", *affine(f"fpn_p{level + 2}"))

    file.load("rpn.conv.0", *affine("rpn_conv_shared"))
    file.load("rpn.objectness", *map(_objectness, affine("rpn_class_raw")))
    file.load("rpn.deltas", *map(_rpn_deltas, affine("rpn_bbox_pred")))
    kernel, bias = folded("mrcnn_class_conv1", "mrcnn_class_bn1")  # over the whole RoI, so a dense layer
    file.load("box_head.dense.0", kernel.reshape(-1, kernel.shape[-1]), bias)
    kernel, bias = folded("mrcnn_class_conv2", "mrcnn_class_bn2")
    file.load("box_head.dense.1", kernel[0, 0], bias)
    file.load("box_head.class_logits", *affine("mrcnn_class_logits"))
    file.load(
        "box_head.deltas",
        *(_groups(values, 4)[..., Y_FIRST].reshape(values.shape) for values in affine("mrcnn_bbox_fc")),
    )
    for index in range(4):
        file.load(f"mask_head.conv.{index}", *folded(f"mrcnn_mask_conv{index + 1}", f"mrcnn_mask_bn{index + 1}"))
    file.load("mask_head.upsample", *affine("mrcnn_mask_deconv"))
    kernel, bias = affine("mrcnn_mask")
    file.load("mask_head.logits", kernel[0, 0].T, bias)
    return file.finish()


def _groups(values: np.ndarray, length: int) -> np.ndarray:
    """(..., N * length) as (..., N, length)."""
    return values.reshape(*values.shape[:-1], -1, length)


def _objectness(values: np.ndarray) -> np.ndarray:
    """A softmax over (background, foreground) is a sigmoid of their difference. The file's first anchors are tall."""
    pairs = _groups(values, 2)[..., ::-1, :]
    return pairs[..., 1] - pairs[..., 0]


def _rpn_deltas(values: np.ndarray) -> np.ndarray:
    return (_groups(values, 4)[..., ::-1, Y_FIRST] * RPN_STD).reshape(values.shape)


def _matterport_name(layer: str) -> str | None:
    """Matterport's name of a KerasHub ResNet convolution, or of the one before a norm: conv1, res3a_branch2b."""
    if layer in ("backbone.conv1_conv", "backbone.conv1_bn"):
        return "conv1"
    match = re.fullmatch(r"backbone\.stack(\d)_block(\d+)_(\d)_(?:conv|bn)", layer)
    if not match:
        return None
    stack, block, part = map(int, match.groups())
    return f"res{stack + 2}{chr(ord('a') + block)}_branch" + ("1" if part == 0 else "2" + "abc"[part - 1])
