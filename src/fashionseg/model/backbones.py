"""Image classifiers without their heads: RGB 0..255 to feature maps at strides 4, 8, 16 and 32."""

import difflib
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from fashionseg.core.errors import UserError
from fashionseg.model import efficientnet_lite, initializers
from fashionseg.model.activations import relu
from fashionseg.model.convs import scale_and_shift

# Bottleneck ResNets that KerasHub builds without a preset: blocks per stage.
RESNETS = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}
RESNET_FILTERS = [64, 128, 256, 512]  # per stage
# Matterport's variants: a stage's stride is in the 1x1 convolutions of its first block, max pooling pads only at the
# bottom and right, and the input is not divided by a standard deviation.
MATTERPORT = "_matterport"
MATTERPORT_MEAN = np.array([123.7, 116.8, 103.9])
MATTERPORTS = tuple(name + MATTERPORT for name in RESNETS)
OWN = (*efficientnet_lite.LITES, *RESNETS, *MATTERPORTS)  # need no preset files
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406]) * 255
IMAGENET_STD = np.array([0.229, 0.224, 0.225]) * 255

WEIGHTS = ("imagenet", "random")
STRIDES = (4, 8, 16, 32)  # of C2 to C5
ANY_SHAPE = (None, None, 3)
# Code that downloads a preset, by the prefix of its handle.
REMOTE = {
    "kaggle://": "import kagglehub; print(kagglehub.model_download('{}'))",
    "hf://": "import huggingface_hub; print(huggingface_hub.snapshot_download('{}'))",
    "modelscope://": "import modelscope; print(modelscope.snapshot_download('{}'))",
}


def build(
    name: str | dict[str, Any], weights: str, frozen_stages: int, side: int, frozen_norm: bool = True
) -> keras.Model:
    """A model from images (B, side, side, 3) float32 RGB 0..255, side a multiple of 32, to the list [C2, C3, C4, C5] of
    feature maps (B, side / stride, side / stride, C), strides 4, 8, 16, 32. If its input has no fixed height and width,
    it takes images of other ones, too, multiples of 32.

    name: one of OWN, a KerasHub preset or its folder, or the `description` of a model that this returned, plain values
    that rebuild it without the preset's files. weights: imagenet or random. frozen_stages: 0 to 4; the stem and all
    layers up to the n-th feature map are not trained. frozen_norm: batch normalisation uses its stored statistics and
    is not trained, as usual for small batches; with random weights it is the identity. If false, batch normalisation of
    the trained stages uses batch statistics in training. There is no dropout. Raises UserError for an unknown name or
    value and where weights are missing.
    """
    if weights not in WEIGHTS:
        raise UserError(f"model.weights is {weights!r}; it must be imagenet or random.")
    if frozen_stages not in range(len(STRIDES) + 1):
        raise UserError(f"model.frozen_stages is {frozen_stages!r}; it must be 0 to {len(STRIDES)}.")
    if isinstance(name, str) and name in efficientnet_lite.LITES:
        if not frozen_norm:
            raise UserError(
                f"model.frozen_norm is false, but the batch norm of {name} is part of its convolutions; "
                "set it to true or choose another model.backbone."
            )
        features, scale, offset = efficientnet_lite.build(name, weights)
        description = name
    else:
        features, scale, offset, description = _keras_hub(name, weights, side)
        if weights == "random":
            initializers.redraw(features)
    for layer in features._flatten_layers():  # Keras has no public API for nested layers
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = not frozen_norm
        if hasattr(layer, "rate"):
            layer.rate = 0.0  # of dropout: training and inference differ only in batch normalisation
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = relu
    if frozen_norm:
        _fold_norms(features)
    if frozen_stages:
        for layer in keras.Model(features.input, features.outputs[frozen_stages - 1]).layers:
            layer.trainable = False
    image = layers.Input(features.input.shape[1:])
    normalized = layers.Rescaling(scale, offset, dtype="float32")(image)  # 16 bits would round mean and deviation, too
    model = keras.Model(image, features(normalized), name="backbone")
    model.description = description
    return model


def _fold_norms(network: keras.Model) -> None:
    """Makes each frozen batch normalisation behind a convolution a part of that, as in `FrozenNormConv`. Layers and
    weights stay as they are."""
    users = Counter(id(tensor) for layer in network.operations for tensor in keras.tree.flatten(layer.input))
    users.update(map(id, network.outputs))
    convs = {id(layer.output): layer for layer in network.layers if _is_linear(layer) and users[id(layer.output)] == 1}
    for norm in network.layers:
        if isinstance(norm, layers.BatchNormalization) and id(norm.input) in convs and norm.scale and norm.center:
            conv = convs[id(norm.input)]
            conv.autocast = False  # the product of kernel and scale is rounded, not each
            conv.convolution_op = partial(_normed_convolution, conv, norm)
            norm.call = lambda inputs, **_: inputs


def _is_linear(layer):
    return type(layer) is layers.Conv2D and not layer.use_bias and layer.activation is keras.activations.linear


def _normed_convolution(conv, norm, inputs, kernel):
    scale, shift = scale_and_shift(norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, norm.epsilon)
    kernel, shift = (ops.cast(values, conv.compute_dtype) for values in (kernel * scale, shift))
    return type(conv).convolution_op(conv, ops.cast(inputs, conv.compute_dtype), kernel) + shift


def _keras_hub(
    name: str | dict[str, Any], weights: str, side: int
) -> tuple[keras.Model, list[float], list[float], str | dict[str, Any]]:
    """The network, scale and offset of its input per channel, and the description that rebuilds it at any side."""
    if isinstance(name, dict):
        backbone, scale, offset = _described(name, side)
        description = name
    elif name in OWN:
        backbone, scale, offset = _resnet(name, weights)
        description = name
    else:
        backbone, scale, offset = _preset(name, weights, side)
        scale, offset = _by_channel(scale, 1.0), _by_channel(offset, 0.0)
        parts = keras.saving.serialize_keras_object(backbone)
        network = {key: parts[key] for key in ("module", "class_name", "registered_name", "config")}
        description = {"network": network, "scale": scale, "offset": offset}
    # By stride, not by name: KerasHub counts the stages of a CSPNet from P2 whatever their stride, those of a MiT from
    # P1. Of several maps with one stride the last, deepest one is kept.
    outputs = list(getattr(backbone, "pyramid_outputs", {}).values())
    shapes = keras.Model(backbone.input, outputs).compute_output_shape((1, side, side, 3)) if outputs else []
    maps = {side / height: output for output, (_, height, *_) in zip(outputs, shapes, strict=True)}
    if not set(STRIDES) <= set(maps):
        strides = ", ".join(f"{stride:g}" for stride in sorted(maps)) or "none"
        raise UserError(
            f"model.backbone {name} has no feature maps at strides 4, 8, 16 and 32 (it has {strides}); "
            "choose another one."
        )
    features = keras.Model(backbone.input, [maps[stride] for stride in STRIDES], name=backbone.name)
    if description in MATTERPORTS:
        features = keras.models.clone_model(features, clone_function=_as_matterport)
    return features, scale, offset, description


def _hub() -> ModuleType:
    """KerasHub, imported only where it is needed, which takes seconds. It imports TensorFlow where that is installed;
    with JAX it does without, which saves 4 s and 0.4 GB."""
    hidden = keras.backend.backend() != "tensorflow" and sys.modules.setdefault("tensorflow", None) is None
    try:
        import keras_hub
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    return keras_hub


def _of_any_shape(make: Callable[[tuple[int | None, int | None, int]], keras.Model], side: int) -> keras.Model:
    """What `make` gives for images of any shape; some networks, as MiT, only work at the size they were built for."""
    try:
        return make(ANY_SHAPE)
    except Exception:  # each network raises its own
        return make((side, side, 3))


def _described(description: dict[str, Any], side: int):
    _hub()  # registers its networks with Keras
    network = description["network"]

    def make(shape):
        dtype = keras.config.dtype_policy().name  # not that of the training
        config = {**network["config"], "image_shape": shape, "dtype": dtype}
        return keras.saving.deserialize_keras_object({**network, "config": config})

    return _of_any_shape(make, side), description["scale"], description["offset"]


def _by_channel(value: float | list[float] | None, default: float) -> list[float]:
    return np.broadcast_to(default if value is None else value, 3).tolist()


def _resnet(name: str, weights: str):
    if weights == "imagenet":
        other = (
            "set model.weights to the path of mask_rcnn_coco.h5"
            if name.endswith(MATTERPORT)
            else f"name the KerasHub preset {name.replace('resnet', 'resnet_')}_imagenet"
        )
        raise UserError(f"model.backbone {name} has no imagenet weights; {other} or set model.weights to random.")
    backbone = _hub().models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=RESNET_FILTERS,
        stackwise_num_blocks=RESNETS[name.removesuffix(MATTERPORT)],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=ANY_SHAPE,
    )
    if name.endswith(MATTERPORT):
        return backbone, [1.0] * 3, (-MATTERPORT_MEAN).tolist()
    return backbone, (1 / IMAGENET_STD).tolist(), (-IMAGENET_MEAN / IMAGENET_STD).tolist()


def _as_matterport(layer: layers.Layer) -> layers.Layer:
    """A layer of KerasHub's ResNet with Matterport's stride and padding."""
    config = layer.get_config()
    if layer.name == "pool1_pool":
        config["padding"] = "same"
    elif layer.name == "pool1_pad" or re.fullmatch(r"stack\d_block0_2_pad", layer.name):
        config["padding"] = 0
    elif re.fullmatch(r"stack[1-3]_block0_1_conv", layer.name):
        config["strides"] = 2
    elif re.fullmatch(r"stack[1-3]_block0_2_conv", layer.name):
        config.update(strides=1, padding="same")
    return type(layer).from_config(config)


def _preset(name: str, weights: str, side: int):
    keras_hub = _hub()
    presets = keras_hub.models.FeaturePyramidBackbone.presets
    if name in presets or name.startswith(tuple(REMOTE)):
        handle = presets.get(name, {}).get("kaggle_handle", name)
        prefix, handle = re.match("(.*?://)(.*)", handle).groups()
        advice = (
            f'on a machine with internet run `python -c "{REMOTE[prefix].format(handle)}"`, '
            "copy the folder that it prints to this machine and set model.backbone to its path"
        )
    elif name and Path(name).is_dir():
        advice = (
            "a folder needs config.json, image_converter.json and, unless model.weights is random, model.weights.h5"
        )
    else:
        names = [*OWN, *presets]
        nearest = difflib.get_close_matches(name, names, 1, cutoff=0)[0]
        raise UserError(f"model.backbone is {name!r}, neither a folder nor a known name; the nearest is {nearest}.")
    try:
        backbone = _of_any_shape(
            lambda shape: keras_hub.models.Backbone.from_preset(name, weights == "imagenet", image_shape=shape), side
        )
        converter = keras_hub.layers.ImageConverter.from_preset(name)
    except Exception as error:  # KerasHub raises the errors of many libraries
        reason = textwrap.shorten(str(error) or type(error).__name__, 160)
        raise UserError(f"the KerasHub preset {name} cannot be loaded: {reason}; {advice}.") from error
    return backbone, converter.scale, converter.offset
