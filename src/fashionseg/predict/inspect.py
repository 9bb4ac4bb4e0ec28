"""Draws what a network computes for one image, step by step: `make inspect IMAGE=photo.jpg`."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import KerasTensor, ops
from PIL import Image

from fashionseg.core import files, pictures
from fashionseg.core.errors import UserError
from fashionseg.data.batches import padded
from fashionseg.draw import overlay
from fashionseg.model import targets
from fashionseg.model.compilation import compile_steps
from fashionseg.model.mask_rcnn import MaskRCNN, with_mask_scores
from fashionseg.model.nms import INSTANCES_IOU
from fashionseg.predict import inference

BEST = 50  # boxes drawn of each step; more would cover the image
FIRST = "01_anchors.jpg"  # of the pictures that are written
LEVELS = ("P2", "P3", "P4", "P5", "P6")
STRONGEST = 3  # channels drawn of each pyramid level: those that vary most
SCORE = 0.5  # threshold of the instances


class Steps(keras.Model):
    """All that is drawn, computed as one graph: step by step, JAX would compile for most of a minute."""

    def __init__(self, network: MaskRCNN, score_threshold: float):
        super().__init__(autocast=False)
        self.network = network
        self.score_threshold = score_threshold
        self.built = True

    def call(self, batch: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
        network, sizes = self.network, batch["sizes"]
        pyramid, logits, deltas, anchors = network.first_stage(batch["images"])
        boxes, scores = (ops.concatenate(of, axis=1) for of in network.rpn.before_nms(logits, deltas, anchors, sizes))
        best_scores, best = ops.top_k(scores, min(BEST, scores.shape[1]))
        proposals, proposal_scores = network.rpn.propose(logits, deltas, anchors, sizes)
        probabilities, moved, _ = network.roi_heads.classify(pyramid, proposals, sizes)
        instances = network.roi_heads.detect(
            pyramid, proposals, proposal_scores, sizes, score_threshold=self.score_threshold, nms_iou=INSTANCES_IOU
        )
        return {
            "pyramid": pyramid,
            "anchors": anchors,
            "best": targets.take(boxes, best),
            "best_scores": best_scores,
            "proposals": proposals,
            "proposal_scores": proposal_scores,
            "probabilities": probabilities,
            "moved": moved,
            "instances": with_mask_scores(instances, self.score_threshold),
        }


def inspect(models: Path, image: str, folder: str | Path) -> int:
    """Writes the pictures of `steps` for an image file as numbered JPEGs into `folder`; returns how many.

    Raises UserError where the file is missing or no picture.
    """
    files.check_replaceable(folder, FIRST, [Path(image)])
    network, labels = inference.load(models)
    if not Path(image).is_file():
        raise UserError(f"{image or 'IMAGE'} is no file; name a picture, as in make inspect IMAGE=photo.jpg.")
    photo = pictures.read(image, network.config.side, upright=True, remedy=pictures.AGAIN)
    drawn = steps(network, photo, labels.category_names)
    with files.replacing(folder) as beside:
        beside.mkdir(parents=True)
        for number, (name, picture) in enumerate(drawn.items(), 1):
            file = beside / f"{number:02}_{name.partition(',')[0].replace(' ', '_')}.jpg"
            Image.fromarray(overlay.titled(picture, name)).save(file, quality=95)
    return len(drawn)


def steps(network: MaskRCNN, image: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Pictures by name, in the order of the method, of an image (H, W, 3) uint8 RGB.

    Anchors of the middle cell and how many a level has; the BEST proposals before and after suppression; where the box
    heads move the latter; the instances of at least SCORE; the strongest channels of each pyramid level.
    """
    picture = pictures.resized(image, network.config.side)
    model = Steps(network, SCORE)
    compile_steps(model)
    seen = model.predict_on_batch(padded([picture], network.config.side))
    pyramid, anchors = seen.pop("pyramid"), seen.pop("anchors")
    found = {name: values[0] for name, values in seen.pop("instances").items()}
    seen = {name: values[0] for name, values in seen.items()}
    drawn = {
        "anchors": _anchors(picture, anchors, pyramid),
        "proposals before suppression": overlay.boxes(picture, seen["best"], seen["best_scores"]),
    }
    proposals, scores = seen["proposals"], seen["proposal_scores"]
    drawn["proposals"] = overlay.boxes(picture, proposals[:BEST], scores[:BEST])

    classes = seen["probabilities"].argmax(axis=1)
    foreground = np.flatnonzero((classes > 0) & (scores > 0))[:BEST]
    shades = np.concatenate([np.zeros(len(foreground)), seen["probabilities"].max(axis=1)[foreground]])
    both = np.concatenate([proposals[foreground], seen["moved"][foreground, classes[foreground] - 1]])
    drawn["refined boxes, blue before"] = overlay.boxes(picture, both, shades)

    instances = overlay.DrawnInstances.of_detections(found, found["classes"] > 0)
    drawn["instances"] = overlay.draw(picture, instances, names)

    height, width = picture.shape[:2]
    for name, level in zip(LEVELS, pyramid, strict=True):
        level = level[0].astype("float32")  # features may be of 16 bits
        cells = level[: -(-height * len(level) // network.config.side), : -(-width * len(level) // network.config.side)]
        strongest = np.argsort(-cells.std(axis=(0, 1)))[:STRONGEST]
        maps = [overlay.heat(picture, cells[..., channel]) for channel in strongest]
        drawn[f"{name}, channels {', '.join(map(str, strongest))}"] = np.concatenate(maps, axis=1)
    return drawn


def _anchors(picture, anchors, pyramid):
    """Those of the middle cell of each level."""
    middles, shades, counts = [], [], []
    for place, (level, feature) in enumerate(zip(anchors, pyramid, strict=True)):
        height, width = feature.shape[1:3]
        ratios = len(level) // (height * width)
        first = (height // 2 * width + width // 2) * ratios
        middles.append(level[first : first + ratios])
        shades += [place / (len(LEVELS) - 1)] * ratios
        counts.append(f"{LEVELS[place]} {len(level)}")
    return overlay.titled(overlay.boxes(picture, np.concatenate(middles), np.array(shades)), "; ".join(counts))
