"""Weights of torchvision's Mask R-CNN, in both its versions, and of its ResNets."""

import re

import numpy as np

from fashionseg.model.box_head import ROI_BOX_SIDE
from fashionseg.model.convs import EPSILON
from fashionseg.model.weights.matching import COUNTER, Report, WeightImport

# Of FrozenBatchNorm2d in torchvision's COCO weights of version 1 (overwrite_eps in detection/_utils.py) and in models
# fine-tuned from them. A file does not name its layers, but only BatchNorm2d counts its steps (in the oldest
# classifiers it did not yet).
FROZEN_EPSILON = 0.0
# Names in older torchvision, and the current ones (_load_from_state_dict of its modules of version 2).
OLD_NAMES = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)", lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}"),
)


def current_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by the names that current torchvision gives them in the whole detector; those of a classifier too."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in OLD_NAMES:
            name = re.sub(f"^{pattern}$", new, name)
        if "conv1.weight" in tensors and not name.startswith("fc."):
            name = f"backbone.body.{name}"
        renamed[name] = tensor
    return renamed


def load(file: WeightImport) -> Report:
    is_detector = any(name.startswith(("rpn.", "roi_heads.")) for name in file.tensors)
    has_counters = any(name.endswith(COUNTER) for name in file.tensors)
    epsilon = FROZEN_EPSILON if is_detector and not has_counters else EPSILON

    def parts(name):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]

    def conv(layer, name, norm_name=None):
        kernel = file.take(f"{name}.weight").transpose(2, 3, 1, 0)  # from (out, in, height, width)
        if norm_name and f"{norm_name}.running_var" in file.tensors:
            scale, shift = file.folded_norm(parts(norm_name), epsilon)
            file.load(layer, kernel * scale, shift)
        else:
            file.load(layer, kernel, file.take(f"{name}.bias"))

    def dense(layer, name, side=None):
        kernel = file.take(f"{name}.weight")  # (out, in); after flattening, in is (channels, side, side)
        if side:
            kernel = kernel.reshape(len(kernel), -1, side, side).transpose(0, 2, 3, 1).reshape(kernel.shape)
        file.load(layer, kernel.T, file.take(f"{name}.bias"))

    for layer in file.remaining("backbone."):
        name = _torchvision_name(layer)
        if name is None:
            file.fail(f"holds torchvision's ResNet, which has no {layer}")
        if name.endswith(("bn1", "bn2", "bn3", "downsample.1")):
            file.load(layer, *file.norm(parts(name), epsilon))
        else:
            file.load(layer, file.take(f"{name}.weight").transpose(2, 3, 1, 0))
    if not is_detector:
        return file.finish()  # a classifier, or a backbone alone
    if file.remaining("fpn.norm."):
        file.fail("has other norms than model.heads v2_group")

    for level in range(4):
        for layer, blocks in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            name = f"backbone.fpn.{blocks}.{level}"
            conv(f"fpn.{layer}.{level}", f"{name}.0", f"{name}.1")
    for layer in file.remaining("rpn.conv."):
        conv(layer, f"rpn.head.conv.{layer[-1]}.0")
    conv("rpn.objectness", "rpn.head.cls_logits")
    conv("rpn.deltas", "rpn.head.bbox_pred")
    convs = file.remaining("box_head.conv.")
    for layer in convs:
        name = f"roi_heads.box_head.{layer[-1]}"
        conv(layer, f"{name}.0", f"{name}.1")
    if convs:
        dense("box_head.dense.0", f"roi_heads.box_head.{len(convs) + 1}", ROI_BOX_SIDE)  # after a Flatten
    else:
        dense("box_head.dense.0", "roi_heads.box_head.fc6", ROI_BOX_SIDE)
        dense("box_head.dense.1", "roi_heads.box_head.fc7")
    dense("box_head.class_logits", "roi_heads.box_predictor.cls_score")
    dense("box_head.deltas", "roi_heads.box_predictor.bbox_pred")
    for index in range(4):
        name = f"roi_heads.mask_head.{index}"
        conv(f"mask_head.conv.{index}", f"{name}.0", f"{name}.1")
    upsample = file.take("roi_heads.mask_predictor.conv5_mask.weight")  # (in, out, height, width)
    file.load(
        "mask_head.upsample", upsample.transpose(2, 3, 1, 0), file.take("roi_heads.mask_predictor.conv5_mask.bias")
    )
    logits = file.take("roi_heads.mask_predictor.mask_fcn_logits.weight")
    file.load("mask_head.logits", logits[:, :, 0, 0], file.take("roi_heads.mask_predictor.mask_fcn_logits.bias"))
    return file.finish()


def _torchvision_name(layer: str) -> str | None:
    """torchvision's name of a KerasHub ResNet layer such as `backbone.conv1_bn` or `backbone.stack1_block0_2_conv`."""
    if layer in ("backbone.conv1_conv", "backbone.conv1_bn"):
        return "backbone.body." + ("conv1" if layer.endswith("conv") else "bn1")
    match = re.fullmatch(r"backbone\.stack(\d)_block(\d+)_(\d)_(conv|bn)", layer)
    if not match:
        return None
    stack, block, part, kind = match.groups()
    if part == "0":
        return f"backbone.body.layer{int(stack) + 1}.{block}.downsample.{'01'[kind == 'bn']}"
    return f"backbone.body.layer{int(stack) + 1}.{block}.{kind}{part}"
