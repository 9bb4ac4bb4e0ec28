"""Imports weights of torchvision's and Matterport's Mask R-CNN; a report lists what was loaded."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import ops

from fashionseg.core.errors import UserError, first_line
from fashionseg.model.convs import scale_and_shift
from fashionseg.model.roi_heads import ROI_BOX_SIDE
from fashionseg.model.state_dict import read_state_dict

# Layers whose shape depends on the number of classes or anchor ratios; where the file's differ, they are not loaded.
MAY_DIFFER = ("rpn.objectness", "rpn.deltas", "box_head.class_logits", "box_head.deltas", "mask_head.logits")
# The layers that have rows of numbers for each class, box_head.* as columns.
BY_CLASS = ("box_head.class_logits", "box_head.deltas", "mask_head.logits")
BACKGROUND = "__background__"  # as torchvision calls it; a class of the data may be called "background"
# By COCO's ids from 1 on, as torchvision's files have them; Matterport's are without the gaps.
COCO = re.split(
    ", ",
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, "
    "-, -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, "
    "dining table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
)
# Tensors that the network does not need: a classifier's last layer, counters of training steps.
COUNTER = "num_batches_tracked"
UNUSED = rf"fc\.(weight|bias)|.*\.{COUNTER}"
GROUP = r"backbone\.[^_]+|[^.]+(\.[^.]+)?|.*"  # of layers in the summary: backbone.stack2, fpn.lateral, box_head.deltas
SHOWN = 3  # unused tensors named in an error
ADVICE = "choose the model params that this file was made with"

TORCH_EPSILON = 1e-5  # of torch.nn.BatchNorm2d
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

MATTERPORT_EPSILON = 1e-3
MATTERPORT_RPN_STD = (0.1, 0.1, 0.2, 0.2)  # its RPN's deltas are divided by these, ours and torchvision's are not
Y_FIRST = [1, 0, 3, 2]  # from (y, x, height, width) to (x, y, width, height) and back


@dataclass
class Report:
    """Which layers of the network were loaded from which tensors of the file, and what is left on either side."""

    path: Path
    source: str
    loaded: dict[str, list[str]] = field(default_factory=dict)  # layer: names of its tensors in the file
    numbers: int = 0  # values loaded
    skipped: dict[str, str] = field(default_factory=dict)  # layer: how its shape differs from the file's
    carried: dict[str, list[str]] = field(default_factory=dict)  # skipped layer: classes that were loaded all the same
    fresh: list[str] = field(default_factory=list)  # layers that the file lacks
    unused: list[str] = field(default_factory=list)  # names in the file that the network does not need

    def __str__(self) -> str:
        """One line per group of layers and per group without counterpart."""
        matched = Counter()
        for layer, names in self.loaded.items():
            matched[_group(layer)] += len(names)
        lines = [f"{self.path} ({self.source}): {self.numbers:,} values loaded into {len(self.loaded)} layers"]
        lines += [f"  {group:<24}{count:>4} tensors matched" for group, count in matched.items()]
        for layer, reason in self.skipped.items():
            but = f" but for {', '.join(self.carried[layer])}" if layer in self.carried else ""
            lines.append(f"  {layer:<24} newly initialised{but}: {reason}")
        fresh = dict.fromkeys(map(_group, self.fresh))
        lines += [f"  {group:<24} newly initialised: not in the file" for group in fresh]
        unused = Counter(COUNTER if name.endswith(COUNTER) else _group(name) for name in self.unused)
        lines += [f"  {name:<24}{count:>4} tensors unused, as allowed" for name, count in unused.items()]
        return "\n".join(lines)


def _group(layer: str) -> str:
    return re.match(GROUP, layer)[0]


def load(network: keras.Model, path: str | Path, unused: Sequence[str] = (), classes: Sequence[str] = ()) -> Report:
    """Loads a file's weights into a `MaskRCNN` and reports which layers got them.

    The file is a state dict saved by torch.save: of torchvision's maskrcnn_resnet50_fpn (for model.heads v1),
    maskrcnn_resnet50_fpn_v2 (v2) or a ResNet alone; or the .h5 of Matterport's Mask R-CNN (model.heads matterport,
    model.backbone resnet101_matterport for mask_rcnn_coco.h5). Batch norm of the heads is folded into the convolution
    before it, which gives the same numbers at inference. Layers of MAY_DIFFER keep their initial weights where shapes
    differ; but of a file of COCO's classes the background and what has a name of `classes` is loaded, the network's in
    its order, `bag, wallet` being two names. Raises UserError for any other tensor or layer without counterpart, except
    tensors whose name starts with one of `unused`.

    Matterport differs beyond its weights: it rounds the level of an RoI where the paper and this code round down,
    samples one point per RoI bin, and does not round anchors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"model.weights is {path}, which is neither imagenet nor random nor a file.")
    if h5py.is_hdf5(path):
        if _is_keras3(path):
            raise UserError(
                f"{path} holds weights of Keras 3, as this project's own, which no training starts from; to go on with "
                "a training name its folder of checkpoints/ as train.resume."
            )
        return _matterport(_File(path, "Matterport", _h5_tensors(path), network, unused, classes))
    return _torchvision(_File(path, "torchvision", _current_names(read_state_dict(path)), network, unused, classes))


class _File:
    """The tensors of a file, each used once, and the layers of the network still to be loaded."""

    def __init__(
        self,
        path: Path,
        source: str,
        tensors: dict[str, np.ndarray],
        network: keras.Model,
        unused: Sequence[str],
        classes: Sequence[str],
    ):
        self.tensors = tensors
        self.layers = _layers(network)
        self.may_be_unused = tuple(unused)
        self.classes = [BACKGROUND, *classes]
        self.report = Report(path, source)
        self.taken: list[str] = []

    def take(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            self.fail(f"lacks {name}")
        self.taken.append(name)
        return self.tensors.pop(name).astype("float64")

    def norm(self, parts: list[str], epsilon: float) -> list[np.ndarray]:
        """Gain, offset, mean and variance (C,) of the batch norm of these tensor names, converted to our epsilon."""
        gain, offset, mean, variance = map(self.take, parts)
        return [gain * np.sqrt((variance + TORCH_EPSILON) / (variance + epsilon)), offset, mean, variance]

    def folded_norm(self, parts: list[str], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (C,) that equal the batch norm at inference."""
        return scale_and_shift(*self.norm(parts, epsilon), TORCH_EPSILON)

    def remaining(self, prefix: str) -> list[str]:
        """The layers of this prefix that are not loaded yet."""
        return [layer for layer in self.layers if layer.startswith(prefix)]

    def load(self, layer: str, *values: np.ndarray) -> None:
        """Assigns values to a layer; the tensors taken since the last call are reported as their source."""
        names, self.taken = self.taken, []
        if layer not in self.layers:
            self.fail(f"holds {names[0]}")
        variables = self.layers.pop(layer)
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                difference = f"{names[0]} has shape {value.shape}, expected {tuple(variable.shape)}"
                if layer not in MAY_DIFFER:
                    self.fail(f"does not fit {layer}: {difference}")
                self.report.skipped[layer] = difference
                self._carry_classes(layer, variables, values)
                return
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value.astype("float32"))
            self.report.numbers += value.size
        self.report.loaded[layer] = names

    def _carry_classes(self, layer: str, variables: list[keras.Variable], values: tuple[np.ndarray, ...]) -> None:
        """Assigns what the file has of the network's classes. In their number alone the layers differ: those before
        them fit."""
        width = 4 if layer == "box_head.deltas" else 1
        rows = _coco_classes(values[1].size // width)
        if layer not in BY_CLASS or not rows or variables[1].shape != (width * len(self.classes),):
            return
        found = {
            name: (index, rows[part])
            for index, name in enumerate(self.classes)
            for part in name.split(", ")
            if part in rows
        }
        ours, theirs = np.array([*found.values()]).T
        transposed = layer.startswith("box_head.")
        for variable, value in zip(variables, values, strict=True):
            before = ops.convert_to_numpy(variable)
            old, new = (np.array(array.T if transposed else array, order="C") for array in (value, before))
            of_class = new.reshape(len(self.classes), -1)
            of_class[ours] = old.reshape(-1, of_class.shape[1])[theirs]
            variable.assign(new.T if transposed else new)
            self.report.numbers += of_class[ours].size
        self.report.carried[layer] = list(found)

    def finish(self) -> Report:
        for name in self.tensors:
            if re.fullmatch(UNUSED, name) or name.startswith(self.may_be_unused):
                self.report.unused.append(name)
        foreign = [name for name in self.tensors if name not in self.report.unused]
        if foreign:
            more = ", ..." * (len(foreign) > SHOWN)
            self.fail(
                f"holds {len(foreign)} tensors that the network lacks ({', '.join(foreign[:SHOWN])}{more})",
                f"{ADVICE}, or list prefixes of these names in model.weights_unused",
            )
        self.report.fresh = list(self.layers)
        return self.report

    def fail(self, what: str, advice: str = ADVICE) -> None:
        raise UserError(f"{self.report.path} {what}; {advice}.")


def _coco_classes(count: int) -> dict[str, int]:
    """Where each class lies in a layer for `count` classes, background included; none if it is not one for COCO's."""
    known = [name for name in COCO if name != "-"]
    names = {len(COCO) + 1: COCO, len(known) + 1: known}.get(count)
    return {name: row for row, name in enumerate([BACKGROUND, *names]) if name != "-"} if names else {}


def _layers(network: keras.Model) -> dict[str, list[keras.Variable]]:
    """The variables of every layer with weights, by the layer's name."""
    fpn, rpn, box_head, mask_head = network.fpn, network.rpn, network.roi_heads.box_head, network.roi_heads.mask_head
    named = {
        **{f"backbone.{layer.name}": layer for layer in network.backbone.layers[-1].layers},
        **{f"fpn.lateral.{level}": layer for level, layer in enumerate(fpn.lateral)},
        **{f"fpn.output.{level}": layer for level, layer in enumerate(fpn.output_convs)},
        **{f"fpn.norm.{index}": layer for index, layer in enumerate(fpn.lateral_norms + fpn.output_norms)},
        **{f"rpn.conv.{index}": layer for index, layer in enumerate([rpn.conv, *rpn.more_convs])},
        "rpn.objectness": rpn.objectness,
        "rpn.deltas": rpn.deltas,
        **{f"box_head.conv.{index}": layer for index, layer in enumerate(box_head.convs)},
        **{f"box_head.norm.{index}": layer for index, layer in enumerate(box_head.norms)},
        **{f"box_head.dense.{index}": layer for index, layer in enumerate(box_head.dense)},
        "box_head.class_logits": box_head.class_logits,
        "box_head.deltas": box_head.deltas,
        **{f"mask_head.conv.{index}": layer for index, layer in enumerate(mask_head.convs)},
        **{f"mask_head.norm.{index}": layer for index, layer in enumerate(mask_head.norms)},
        "mask_head.upsample": mask_head.upsample,
    }
    layers = {name: layer.variables for name, layer in named.items() if layer.variables}
    for stage, head in enumerate(network.roi_heads.later_box_heads, 2):  # which no file has
        layers[f"box_head_{stage}"] = head.variables
    layers["mask_head.logits"] = [mask_head.kernel, mask_head.bias]
    if network.roi_heads.attribute_head:
        layers["attribute_head"] = network.roi_heads.attribute_head.variables
    return layers


def _current_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by the names that current torchvision gives them in the whole detector; those of a classifier too."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in OLD_NAMES:
            name = re.sub(f"^{pattern}$", new, name)
        if "conv1.weight" in tensors and not name.startswith("fc."):
            name = f"backbone.body.{name}"
        renamed[name] = tensor
    return renamed


def _torchvision(file: _File) -> Report:
    is_detector = any(name.startswith(("rpn.", "roi_heads.")) for name in file.tensors)
    has_counters = any(name.endswith(COUNTER) for name in file.tensors)
    epsilon = FROZEN_EPSILON if is_detector and not has_counters else TORCH_EPSILON

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


def _is_keras3(path: Path) -> bool:
    with suppress(OSError), h5py.File(path) as file:  # `_h5_tensors` tells what is wrong with it
        return "vars" in file
    return False


def _h5_tensors(path: Path) -> dict[str, np.ndarray]:
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


def _matterport(file: _File) -> Report:
    def affine(name):
        return file.take(f"{name}/kernel"), file.take(f"{name}/bias")

    def parts(name):
        return [f"{name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def folded(name, norm_name):
        (kernel, bias), (scale, shift) = affine(name), file.folded_norm(parts(norm_name), MATTERPORT_EPSILON)
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
            gain, offset, mean, variance = file.norm(parts(norm), MATTERPORT_EPSILON)
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
    return (_groups(values, 4)[..., ::-1, Y_FIRST] * MATTERPORT_RPN_STD).reshape(values.shape)


def _matterport_name(layer: str) -> str | None:
    """Matterport's name of a KerasHub ResNet convolution, or of the one before a norm: conv1, res3a_branch2b."""
    if layer in ("backbone.conv1_conv", "backbone.conv1_bn"):
        return "conv1"
    match = re.fullmatch(r"backbone\.stack(\d)_block(\d+)_(\d)_(?:conv|bn)", layer)
    if not match:
        return None
    stack, block, part = map(int, match.groups())
    return f"res{stack + 2}{chr(ord('a') + block)}_branch" + ("1" if part == 0 else "2" + "abc"[part - 1])
