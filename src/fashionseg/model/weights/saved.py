"""A trained network in a folder: its weights, and what rebuilds it, names its classes and tells if they changed."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fashionseg.core import digests, files, paths
from fashionseg.core.errors import UserError, first_line
from fashionseg.model import backbones
from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import MaskRCNN

KINDS = "categories", "attributes"  # of labels


def save(network: MaskRCNN, labels: dict[str, list[dict[str, Any]]], folder: str | Path, beside: Path) -> None:
    """Writes the weights without the optimizer, and the description, which needs none of the files that the network
    started from. labels: `categories` and `attributes` of a COCO document; beside: a folder to write in first."""
    network.optimizer = None
    weights = beside / paths.WEIGHTS  # Keras insists on the ending
    network.save_weights(weights)
    description = {"network": asdict(_rebuilding(network)), **labels, "weights_digest": digests.of_files([weights])}
    with files.replacing(Path(folder) / paths.WEIGHTS) as target:
        shutil.move(weights, target)
    files.write_json(Path(folder) / paths.DESCRIPTION, description, indent=1)


def _rebuilding(network: MaskRCNN) -> Network:
    """The config that rebuilds the network for its weights."""
    config = network.config
    own = config.backbone in backbones.OWN
    return replace(config, weights="random", backbone=config.backbone if own else network.backbone.description)


def load(folder: Path, side: int | None = None) -> tuple[MaskRCNN, dict[str, Any]]:
    """The trained network of a folder, for images of `side` pixels or those of the training, and its description, with
    `categories` and `attributes` as `save` got them.

    Reads only mask_rcnn.json and mask_rcnn.weights.h5. Raises UserError where they are missing or do not fit.
    """
    file = folder / paths.DESCRIPTION
    if not file.exists():
        raise UserError(f"{folder} has no trained network: mask_rcnn.json is missing; train one, or copy one there.")
    description = files.read_json(file)
    try:
        config = Network(**description["network"])
        network = MaskRCNN(replace(config, side=side or config.side))
        labels = description["categories"], description.get("attributes", [])
        counts = [len([(label["id"], label["name"]) for label in of_kind]) for of_kind in labels]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is of another version of the network ({error}); train again.") from None
    heads = network.roi_heads
    outputs = heads.classes, heads.attribute_count if heads.attribute_head else counts[1]
    for kind, named, output in zip(KINDS, counts, outputs, strict=True):
        if named != output:
            raise UserError(
                f"{file} names {named} {kind}, but its network has {output}; copy the whole folder that training wrote."
            )
    weights = folder / paths.WEIGHTS
    if not weights.exists():
        raise UserError(f"{weights} is missing; run `dvc repro train` to make it.")
    if description.get("weights_digest") not in (None, digests.of_files([weights])):
        raise UserError(
            f"{weights} is damaged or not what training wrote with mask_rcnn.json; copy both again, or train again."
        )
    try:
        network.load_weights(weights)
    except Exception as error:  # a damaged file raises many kinds
        raise UserError(
            f"{weights} does not fit mask_rcnn.json beside it ({first_line(error)}); train again."
        ) from None
    return network, description
