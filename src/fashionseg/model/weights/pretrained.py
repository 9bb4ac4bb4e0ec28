"""Starts a network from a file of torchvision's or Matterport's Mask R-CNN, or from a network of this project."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import keras
from keras import ops

from fashionseg.core import paths
from fashionseg.core.errors import UserError
from fashionseg.model.state_dict import read_state_dict
from fashionseg.model.weights import coco_classes, matterport, saved, torchvision
from fashionseg.model.weights.coco_classes import BACKGROUND
from fashionseg.model.weights.matching import OPTIONAL, Names, Report, WeightImport, layers_of

BACKBONE = re.compile(r"backbone\.")


def load(
    network: keras.Model,
    path: str | Path,
    unused: Sequence[str] = (),
    classes: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> Report:
    """Loads a file's weights into a `MaskRCNN` and reports which layers got them.

    `path` is a state dict saved by torch.save: of torchvision's maskrcnn_resnet50_fpn (for model.heads v1),
    maskrcnn_resnet50_fpn_v2 (v2) or a ResNet alone; the .h5 of Matterport's Mask R-CNN (model.heads matterport,
    model.backbone resnet101_matterport for mask_rcnn_coco.h5); or a folder that `saved.save` wrote, of a network with
    the same model params. Batch norm of the heads is folded into the convolution before it, which gives the same
    numbers at inference. Layers of MAY_DIFFER keep their initial weights where shapes differ; but what has a name of
    `classes` or `attributes` is loaded, the network's in their order, and so is the background: from COCO's classes
    `bag, wallet` is two names. Raises UserError for any other tensor or layer without counterpart, except
    tensors whose name starts with one of `unused`, attribute heads and the later heads of a cascade.

    Matterport differs beyond its weights: it rounds the level of an RoI where the paper and this code round down,
    samples one point per RoI bin, and does not round anchors.
    """
    path = Path(path)
    names = {"classes": [BACKGROUND, *classes], "attributes": [*attributes]}
    into = {"network": network, "unused": unused, "names": names}
    if path.is_dir():
        return _own(path, **into)
    if not path.is_file():
        raise UserError(f"model.weights is {path}, which is neither imagenet nor random nor a file or folder.")
    if not h5py.is_hdf5(path):
        tensors = torchvision.current_names(read_state_dict(path))
        return torchvision.load(WeightImport(path, "torchvision", tensors, names_in_file=_coco, **into))
    if _is_keras3(path):
        raise UserError(
            f"{path} holds weights of Keras 3; of a network of this project name the folder, with "
            f"{paths.DESCRIPTION} in it, to start from it, or its folder of checkpoints/ as train.resume, to go on."
        )
    tensors = matterport.tensors_of(path)
    return matterport.load(WeightImport(path, "Matterport", tensors, names_in_file=_coco, **into))


def _coco(count: int) -> Names:
    return {"classes": coco_classes.names(count), "attributes": []}


def _is_keras3(path: Path) -> bool:
    with suppress(OSError), h5py.File(path) as file:  # `tensors_of` tells what is wrong with it
        return "vars" in file
    return False


def _own(path: Path, network: keras.Model, **into: Any) -> Report:
    other, description = saved.load(path, network.config.side)
    classes, attributes = ([label["name"] for label in description.get(kind, [])] for kind in saved.KINDS)
    in_file = {"classes": [BACKGROUND, *classes], "attributes": attributes}
    ours, theirs = layers_of(network), layers_of(other)
    # Of the backbone by their order: Keras numbers some of KerasHub's layers anew for each network.
    renamed = dict(zip(*(filter(BACKBONE.match, layers) for layers in (theirs, ours)), strict=False))
    tensors = {
        f"{renamed.get(layer, layer)}.{index}": ops.convert_to_numpy(variable)
        for layer, variables in theirs.items()
        for index, variable in enumerate(variables)
    }
    file = WeightImport(path, "this project", tensors, network=network, names_in_file=lambda _: in_file, **into)
    if other.config.attributes != network.config.attributes:
        ours = {layer: variables for layer, variables in ours.items() if not layer.startswith("attribute_head.")}
    for layer, variables in ours.items():
        of_layer = [f"{layer}.{index}" for index in range(len(variables))]
        if of_layer[0] in tensors or not re.fullmatch(OPTIONAL, layer):
            file.load(layer, *map(file.take, of_layer))
    return file.finish()
