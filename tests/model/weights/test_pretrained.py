"""Against a small Mask R-CNN of torchvision's in both its versions (tests/golden/make_network.py)."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from fashionseg.core.errors import UserError
from fashionseg.model import backbones, box_head, initializers, sampling
from fashionseg.model.mask_rcnn import LOSSES
from fashionseg.model.state_dict import read_state_dict
from fashionseg.model.weights import coco_classes, pretrained
from fashionseg.model.weights.matching import MAY_DIFFER
from networks import mask_rcnn

GOLDEN = Path(__file__).parents[2] / "golden"
SIDE = 128
SMALL = {
    "backbone": "resnet50",
    "weights": "random",
    "frozen_stages": 0,
    "side": SIDE,
    "classes": 5,
    "fpn_channels": 16,
    "anchor_side": 16,
    "proposals": 60,
    "detections": 20,
    "attributes": "none",
    "attribute_count": 0,
    "precision": "float32",
    "rois": 24,
    "seed": 0,
}
RANDOM = (keras.initializers.VarianceScaling, keras.initializers.RandomNormal)


def zeros(_, shape, dtype=None, **__):
    """In place of random numbers: whatever the file does not bring stays 0, and JAX takes half a second a shape."""
    return ops.zeros(shape, dtype)


@pytest.fixture(scope="module")
def small():
    """Builds the network of the golden files: one narrow block a stage, dense layers of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "RESNETS", {"resnet50": [1] * 4})
        patch.setattr(backbones, "RESNET_FILTERS", [64, 16, 16, 16])
        patch.setattr(box_head, "DENSE", 32)
        patch.setattr(initializers, "_draw", lambda initializer, shape: np.zeros(shape, "float32"))
        for kind in RANDOM:
            patch.setattr(kind, "__call__", zeros)
        yield lambda **changes: mask_rcnn(**{**SMALL, **changes})


@pytest.fixture(scope="module", params=["v1", "v2"])
def imported(request, small):
    """A version's network with the weights of its file, torchvision's numbers, and what the import reports."""
    network = small(heads=request.param)
    report = pretrained.load(network, GOLDEN / f"network_{request.param}.pth")
    with np.load(GOLDEN / f"network_{request.param}.npz") as golden:
        return network, dict(golden), report


def close(values, golden):
    """Within 1e-4 of the largest."""
    np.testing.assert_allclose(values, golden.reshape(values.shape), rtol=0, atol=1e-4 * np.abs(golden).max())


def test_every_step_gives_torchvisions_numbers(imported, compiled):
    network, golden, _ = imported

    def every_step(images, sizes):
        pyramid, logits, deltas, anchors = network.first_stage(images)
        proposals, scores = network.rpn.propose(logits, deltas, anchors, sizes)
        class_logits, class_deltas, _ = network.roi_heads.box_head(network.roi_heads.align(pyramid)((proposals, 7))[0])
        found = network.roi_heads.detect(pyramid, proposals, scores, sizes, score_threshold=0.05, nms_iou=0.5)
        rows = {
            "rpn_logits": ops.concatenate(logits, axis=1),
            "rpn_deltas": ops.concatenate(deltas, axis=1),
            "proposals": proposals,
            "proposal_scores": scores,
            "class_logits": class_logits,
            "class_deltas": class_deltas,
        }
        return {**{f"P{level + 2}": pyramid[level] for level in range(5)}, **rows, **found}

    image = golden["image"].astype("float32")
    found = {name: values[0] for name, values in compiled(every_step)(image[None], np.array([[SIDE, SIDE]])).items()}
    for name in ("P2", "P3", "P4", "P5", "P6", "rpn_logits", "rpn_deltas"):
        close(found[name], golden[name])
    count = len(golden["proposals"])
    assert count > 20
    assert (found["proposal_scores"] > 0).sum() == count
    for name in ("proposals", "class_logits", "class_deltas"):
        close(found[name][:count], golden[name])
    count = len(golden["scores"])
    assert count > 5
    assert found["classes"].tolist() == golden["classes"].tolist() + [0] * (len(found["classes"]) - count)
    for name in ("boxes", "scores", "masks"):
        close(found[name][:count], golden[name])


@pytest.mark.parametrize("imported", ["v1"], indirect=True)
def test_losses_are_torchvisions_on_the_same_samples(imported, compiled, monkeypatch):
    network, golden, _ = imported
    padded = {"uniform_rpn": golden["uniform_rpn"], "uniform_rois": np.append(golden["uniform_rois"], np.float32(0.5))}
    by_length = {len(values): values[None] for values in padded.values()}
    monkeypatch.setattr(sampling, "uniform", lambda shape, key: ops.convert_to_tensor(by_length[shape[1]]))
    names = ("images", "sizes", "boxes", "classes", "masks")
    masks = golden["truth_masks"].astype("uint8")
    losses = compiled(lambda *arrays: network(dict(zip(names, arrays, strict=True))))(
        golden["image"][None].astype("float32"),
        np.array([[SIDE, SIDE]], "int32"),
        np.concatenate([golden["truth"], np.zeros((1, 4), "float32")])[None],
        np.append(golden["truth_classes"], 0)[None].astype("int32"),
        np.concatenate([masks, np.zeros_like(masks[:1])])[None],
    )
    for name in LOSSES[:-1]:
        assert losses[name] == pytest.approx(float(golden[f"loss_{name}"]), rel=1e-4), name
        assert losses[name] > 0


def test_the_report_names_every_layer(imported):
    network, _, report = imported
    tensors = read_state_dict(report.path)
    assert sorted(report.unused + [name for names in report.loaded.values() for name in names]) == sorted(tensors)
    assert all(name.endswith("num_batches_tracked") for name in report.unused)
    assert not report.skipped
    assert not report.fresh
    assert report.numbers == sum(np.prod(v.shape) for v in network.variables if "seed" not in v.path and v.ndim)
    lines = str(report).splitlines()
    assert lines[0].endswith(f": {report.numbers:,} values loaded into {len(report.loaded)} layers")
    shown = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    assert shown["backbone.stack2"] == 4 * 5  # three convolutions and a shortcut, each with its norm
    assert shown["fpn.lateral"] in (4 * 2, 4 * 5)  # with a bias in v1, with a norm in v2
    assert sum(shown.values()) == len(tensors)


@pytest.fixture
def tensors(monkeypatch):
    """What load reads, to be changed: the first version's file."""
    found = read_state_dict(GOLDEN / "network_v1.pth")
    monkeypatch.setattr(pretrained, "read_state_dict", lambda _: found)
    return found


def test_other_classes_and_ratios_are_newly_initialised(small, tensors):
    network = small(classes=3, anchor_ratios=[1.0, 2.0], attributes="linear", attribute_count=4)
    report = pretrained.load(network, GOLDEN / "network_v1.pth")
    assert list(report.skipped) == [layer for layer in MAY_DIFFER if "attribute" not in layer]
    assert report.fresh == ["attribute_head.logits"]
    assert "class_logits    newly initialised: roi_heads.box_predictor.cls_score.weight has shape" in str(report)
    assert not any(np.any(values) for values in network.roi_heads.box_head.class_logits.get_weights())
    cascade = small(classes=3, class_agnostic_boxes=True, box_stages=3)
    fresh = pretrained.load(cascade, GOLDEN / "network_v1.pth").fresh
    parts = ["dense.0", "dense.1", "class_logits", "deltas"]
    assert fresh == [f"box_head_{stage}.{part}" for stage in (2, 3) for part in parts]
    network = small(class_agnostic_masks=True)
    assert list(pretrained.load(network, GOLDEN / "network_v1.pth").skipped) == ["mask_head.logits"]


@pytest.mark.parametrize("gaps", [True, False])  # torchvision's numbers, Matterport's
def test_of_cocos_classes_those_with_our_names_are_loaded(small, tensors, gaps):
    count = len([name for name in coco_classes.COCO if gaps or name != "-"]) + 1
    assert count == (91 if gaps else 81)
    tie, umbrella = (32, 28) if gaps else (28, 26)
    random = np.random.default_rng(0)
    layers = {"box_predictor.cls_score": 1, "box_predictor.bbox_pred": 4, "mask_predictor.mask_fcn_logits": 1}
    for name, width in layers.items():
        for part in ("weight", "bias"):
            full = f"roi_heads.{name}.{part}"
            tensors[full] = random.standard_normal((count * width, *tensors[full].shape[1:])).astype("float32")
    network = small(classes=3)
    names = ["tie", "background", "cane, umbrella"]
    report = pretrained.load(network, GOLDEN / "network_v1.pth", classes=names)
    assert list(report.carried) == list(report.skipped)
    assert all(found == ["__background__", "tie", "cane, umbrella"] for found in report.carried.values())
    assert "class_logits    newly initialised but for __background__, tie, cane, umbrella: roi_heads" in str(report)
    heads = network.roi_heads
    ours = [heads.box_head.class_logits.get_weights(), heads.box_head.deltas.get_weights()]
    ours.append([ops.convert_to_numpy(values).T for values in (heads.mask_head.kernel, heads.mask_head.bias)])
    for (name, width), (kernel, bias) in zip(layers.items(), ours, strict=True):
        file_kernel, file_bias = (tensors[f"roi_heads.{name}.{part}"] for part in ("weight", "bias"))
        for row, of_file in {0: 0, 1: tie, 3: umbrella}.items():
            for number in range(width):
                np.testing.assert_array_equal(
                    kernel[:, row * width + number], file_kernel[of_file * width + number].ravel()
                )
                assert bias[row * width + number] == file_bias[of_file * width + number]
        assert not kernel[:, 2 * width : 3 * width].any()
        assert not bias[2 * width : 3 * width].any()
    agnostic = small(classes=3, class_agnostic_boxes=True, class_agnostic_masks=True)
    assert list(pretrained.load(agnostic, report.path, classes=names).carried) == ["box_head.class_logits"]


@pytest.mark.parametrize("imported", ["v1"], indirect=True)
def test_old_names_and_backbones_only(imported, tensors):
    network, _, report = imported
    old = {
        "rpn.head.conv.0.0.weight": "rpn.head.conv.weight",
        "backbone.fpn.inner_blocks.2.0.bias": "backbone.fpn.inner_blocks.2.bias",
        "backbone.fpn.layer_blocks.0.0.weight": "backbone.fpn.layer_blocks.0.weight",
        "roi_heads.mask_head.3.0.weight": "roi_heads.mask_head.mask_fcn4.weight",
    }
    for new, name in old.items():
        tensors[name] = tensors.pop(new)
    assert pretrained.load(network, report.path).loaded == report.loaded

    body = {name.removeprefix("backbone.body."): v for name, v in tensors.items() if "body." in name}
    tensors.clear()
    tensors.update(body, **{"fc.weight": np.ones((9, 64)), "fc.bias": np.ones(9)})
    alone = pretrained.load(network, report.path)
    assert set(alone.loaded) == {layer for layer in report.loaded if layer.startswith("backbone.")}
    assert alone.unused == ["fc.weight", "fc.bias"]
    assert "  fpn.lateral              newly initialised: not in the file" in str(alone)


@pytest.mark.parametrize("imported", ["v1"], indirect=True)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.update({"roi_heads.keypoint_head.0.weight": np.ones(3)}), "1 tensors that the network.*keypoint"),
        (
            lambda t: t.pop("backbone.body.layer3.0.bn2.running_var"),
            r"lacks backbone\.body\.layer3\.0\.bn2\.running_var",
        ),
        (lambda t: t.update({"backbone.body.layer2.1.conv1.weight": np.ones((16, 64, 1, 1))}), r"layer2\.1"),
        (lambda t: t.update({"roi_heads.box_head.fc7.weight": np.ones((9, 32))}), r"box_head\.dense\.1.*\(32, 9\)"),
    ],
)
def test_tensors_without_counterpart_are_refused(imported, tensors, change, complaint):
    change(tensors)
    with pytest.raises(UserError, match=complaint):
        pretrained.load(imported[0], GOLDEN / "network_v1.pth")


@pytest.mark.parametrize("imported", ["v1"], indirect=True)
def test_weights_unused_allows_tensors_by_prefix(imported, tensors):
    network, _, report = imported
    tensors |= {f"roi_heads.keypoint_head.{index}.weight": np.ones(3) for index in range(4)}
    tensors["aux"] = np.ones(2)
    with pytest.raises(UserError, match=r"5 tensors that .* lacks .*head\.2\.weight, \.\.\.\).*weights_unused"):
        pretrained.load(network, report.path)
    with pytest.raises(UserError, match=r"1 tensors that the network lacks \(aux\)"):
        pretrained.load(network, report.path, ["roi_heads.keypoint_head."])
    allowed = pretrained.load(network, report.path, ["roi_heads.keypoint_head.", "aux"])
    assert "  roi_heads.keypoint_head    4 tensors unused, as allowed" in str(allowed)
    assert len(allowed.unused) == 5


@pytest.mark.parametrize("counted", [True, False])
def test_epsilon_of_classifiers_with_and_without_counters(small, tensors, counted):
    """Only detectors froze their norm with epsilon 0; where a variance is tiny, that would be far off."""
    body = {name.removeprefix("backbone.body."): v for name, v in tensors.items() if "body." in name}
    body["bn1.running_var"] = np.full(64, 1e-9, "float32")
    if counted:
        body["bn1.num_batches_tracked"] = np.array(3)
    tensors.clear()
    tensors.update(body)
    network = small()
    pretrained.load(network, GOLDEN / "network_v1.pth")
    gain, _, mean, variance = network.backbone.layers[-1].get_layer("conv1_bn").get_weights()
    np.testing.assert_allclose(gain, body["bn1.weight"], rtol=1e-6)
    np.testing.assert_allclose(variance, 1e-9, rtol=1e-6)
    np.testing.assert_allclose(mean, body["bn1.running_mean"])


def test_files_of_other_networks(small, tmp_path):
    with pytest.raises(UserError, match=r"lacks rpn\.head\.conv\.1|lacks roi_heads"):
        pretrained.load(small(heads="v2"), GOLDEN / "network_v1.pth")
    with pytest.raises(UserError, match="v2_group"):
        pretrained.load(small(heads="v2_group"), GOLDEN / "network_v2.pth")
    with pytest.raises(UserError, match=r"has no backbone\.stem"):
        pretrained.load(small(backbone="efficientnet_lite0"), GOLDEN / "network_v1.pth")
    with pytest.raises(UserError, match="neither imagenet nor random nor a file"):
        pretrained.load(None, tmp_path / "imagnet")
