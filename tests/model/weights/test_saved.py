"""A trained network as the start of another one: the layers that fit, and rows by name."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from keras import ops

from fashionseg.core.errors import UserError
from fashionseg.model import attribute_heads, backbones, box_head
from fashionseg.model.config import Network
from fashionseg.model.weights import pretrained, saved
from fashionseg.model.weights.matching import layers_of
from networks import USUAL

CLASSES, ATTRIBUTES = ["shirt, blouse", "shoe", "tie"], ["red", "long", "striped"]
OPTIONS = {"attributes": "linear", "attribute_count": 3}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "RESNETS", {"resnet50": [1] * 4})
        patch.setattr(backbones, "RESNET_FILTERS", [64, 16, 16, 16])
        patch.setattr(box_head, "DENSE", 32)
        patch.setattr(attribute_heads, "DENSE", 32)
        yield


def labels(classes, attributes):
    return {
        "categories": [{"id": 10 + place, "name": name} for place, name in enumerate(classes)],
        "attributes": [{"id": place, "name": name} for place, name in enumerate(attributes)],
    }


@pytest.fixture
def folder(tmp_path):
    """Where a network of other first weights than the ones below was saved."""

    def save(**changes):
        network = tiny.network(seed=1, **{**OPTIONS, **changes})
        network.roi_heads.box_head.class_logits.bias.assign(np.arange(network.roi_heads.classes + 1) + 0.5)
        (tmp_path / "beside").mkdir(exist_ok=True)
        saved.save(network, labels(CLASSES, ATTRIBUTES), tmp_path / "mine", tmp_path / "beside")
        return tmp_path / "mine", network

    return save


def values(network):
    return {
        f"{layer}.{place}": ops.convert_to_numpy(variable)
        for layer, variables in layers_of(network).items()
        for place, variable in enumerate(variables)
    }


def assert_same(one, other):
    for found, expected in zip(values(one).values(), values(other).values(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_is_saved_is_loaded(folder):
    path, network = folder()
    loaded, description = saved.load(path, side=96)
    assert loaded.config == replace(network.config, side=96)
    assert {kind: description[kind] for kind in saved.KINDS} == labels(CLASSES, ATTRIBUTES)
    assert_same(loaded, network)


def test_the_same_labels_take_every_layer(folder):
    path, network = folder(box_stages=2, class_agnostic_boxes=True, attributes="conv")
    start = tiny.network(**{**OPTIONS, "attributes": "conv"}, box_stages=2, class_agnostic_boxes=True)
    report = pretrained.load(start, path, classes=CLASSES, attributes=ATTRIBUTES)
    assert_same(start, network)
    assert [report.skipped, report.fresh, report.unused] == [{}, [], []]
    assert str(report).splitlines()[0].startswith(f"{path} (this project): {report.numbers:,} values")
    assert report.numbers == sum(value.size for value in values(network).values())


def test_other_labels_take_the_rows_of_their_names(folder):
    """Even where there are as many: a row means its name."""
    path, network = folder()
    classes, attributes = ["shoe", "hat", "shirt, blouse"], ["striped", "red"]
    start = tiny.network(**{**OPTIONS, "attribute_count": 2})
    fresh, theirs = values(start), values(network)
    report = pretrained.load(start, path, classes=classes, attributes=attributes)
    ours = values(start)
    columns = {"box_head.class_logits": 1, "box_head.deltas": 4, "attribute_head.logits": 1}
    rows = {"box_head.class_logits": {0: 0, 1: 2, 3: 1}, "attribute_head.logits": {0: 2, 1: 0}}
    rows["box_head.deltas"] = rows["mask_head.logits"] = rows["box_head.class_logits"]
    assert (
        list(report.skipped)
        == list(report.carried)
        == ["box_head.class_logits", "box_head.deltas", "attribute_head.logits", "mask_head.logits"]
    )
    for layer, pairs in rows.items():
        for place in (0, 1):  # kernel, bias
            name = f"{layer}.{place}"
            mine, old, new = (
                np.moveaxis(array, -1, 0).reshape(-1, columns[layer], *array.shape[:-1]) if layer in columns else array
                for array in (ours[name], theirs[name], fresh[name])
            )
            for row, found in enumerate(mine):
                np.testing.assert_array_equal(found, old[pairs[row]] if row in pairs else new[row])
    same = [name for name in ours if name.rpartition(".")[0] not in rows]
    for name in same:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert report.carried["box_head.deltas"] == ["__background__", "shoe", "shirt, blouse"]
    text = str(report)
    assert "box_head.class_logits    newly initialised but for __background__, shoe, shirt, blouse: " in text
    assert "class_logits.0 has rows of other names" in text
    assert "attribute_head.logits    newly initialised but for striped, red: attribute_head.logits.0 has shape" in text


def test_each_head_of_a_cascade_takes_the_rows_of_its_names(folder):
    cascade = {"box_stages": 2, "class_agnostic_boxes": True}
    path, network = folder(**cascade)
    start = tiny.network(**OPTIONS, **cascade)
    report = pretrained.load(start, path, classes=["shoe", "hat", "tie"], attributes=ATTRIBUTES)
    heads = ["box_head.class_logits", "box_head_2.class_logits"]
    assert [layer for layer in report.carried if layer.startswith("box")] == heads
    for layer in heads:
        ours, theirs = values(start)[f"{layer}.0"], values(network)[f"{layer}.0"]
        np.testing.assert_array_equal(ours[:, [0, 1, 3]], theirs[:, [0, 2, 3]])


def test_layers_of_a_backbone_that_keras_numbers_are_found(folder, monkeypatch):
    build, numbers = backbones.build, count()

    def numbered(*args):
        backbone = build(*args)
        for layer in backbone.layers[-1].layers:
            layer.name = f"{layer.name}_{next(numbers)}"
        return backbone

    monkeypatch.setattr(backbones, "build", numbered)
    path, network = folder()
    start = tiny.network(**OPTIONS)
    assert not set(values(start)) >= set(values(network))
    pretrained.load(start, path, classes=CLASSES, attributes=ATTRIBUTES)
    assert_same(start, network)


@pytest.mark.parametrize("kind", ["none", "conv"])
def test_another_attribute_head_is_left_out(folder, kind):
    path, _ = folder(box_stages=2, class_agnostic_boxes=True)
    start = tiny.network(attributes=kind, attribute_count=3, class_agnostic_boxes=True)
    report = pretrained.load(start, path, classes=CLASSES, attributes=ATTRIBUTES)
    assert {name.partition(".")[0] for name in report.unused} == {"attribute_head", "box_head_2"}
    assert {name.partition(".")[0] for name in report.fresh} == ({"attribute_head"} if kind == "conv" else set())
    assert not report.skipped


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fpn_channels": 16}, r"mine does not fit fpn\.lateral\.0: .*; choose the model params"),
        ({"heads": "v2"}, r"mine lacks rpn\.conv\.1\.0; choose the model params"),
    ],
)
def test_another_network_is_refused(folder, changes, complaint):
    path, _ = folder()
    with pytest.raises(UserError, match=complaint):
        pretrained.load(tiny.network(**OPTIONS, **changes), path, classes=CLASSES, attributes=ATTRIBUTES)


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no trained network: mask_rcnn\.json is missing"):
        pretrained.load(tiny.network(), tmp_path)


def test_a_backbone_from_a_preset_is_written_down_whole():
    network = SimpleNamespace(backbone=SimpleNamespace(description={"network": {}}))
    network.config = Network(**{**USUAL, **tiny.SMALL, "weights": "coco.pth"})
    assert saved._rebuilding(network) == replace(network.config, weights="random")
    network.config = replace(network.config, backbone="resnet_50_imagenet")
    assert saved._rebuilding(network) == replace(network.config, weights="random", backbone={"network": {}})
