"""A network at work on one picture, step by step."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from fashionseg import draw
from fashionseg.data import samples
from fashionseg.data.batches import padded
from fashionseg.model import boxes as box_ops
from fashionseg.model.mask_rcnn import MaskRCNN

BEST = 50  # boxes drawn of each step, or nothing could be seen
LEVELS = ("P2", "P3", "P4", "P5", "P6")
STRONGEST = 3  # channels drawn of each level, those that vary most


def steps(
    network: MaskRCNN, image: np.ndarray, names: Sequence[str], least_score: float = 0.5
) -> dict[str, np.ndarray]:
    """Pictures by name, in the order of the method, of an image (H, W, 3) uint8 RGB.

    Anchors of the middle cell and how many a level has; the BEST proposals before and after suppression; where the box
    head moves the latter; the instances of at least `least_score`; the strongest channels of each pyramid level.
    """
    picture = samples.resized(image, network.side)
    batch = padded([picture], network.side)
    sizes = ops.convert_to_tensor(batch["sizes"])
    pyramid, logits, deltas, anchors = network.look(ops.convert_to_tensor(batch["images"]))
    pictures = {"anchors": _anchors(picture, anchors, pyramid)}

    flat = ops.concatenate(logits, axis=1)
    scores, indices = ops.top_k(flat, min(BEST, flat.shape[1]))
    chosen = ops.take(ops.concatenate(deltas, axis=1), indices[0], axis=1)
    decoded = box_ops.decode(
        chosen, ops.take(ops.concatenate(anchors, axis=0), indices[0], axis=0), box_ops.RPN_WEIGHTS
    )
    before = _numpy(box_ops.clip(decoded, sizes))[0]
    pictures["proposals before suppression"] = draw.boxes(picture, before, _numpy(ops.sigmoid(scores))[0])

    proposals, scores = network.rpn.propose(logits, deltas, anchors, sizes)
    best = slice(min(BEST, proposals.shape[1]))
    pictures["proposals"] = draw.boxes(picture, _numpy(proposals)[0, best], _numpy(scores)[0, best])

    class_logits, class_deltas, _ = network.roi_heads(pyramid, proposals)
    probabilities = _numpy(ops.softmax(class_logits, axis=-1))[0]
    classes = probabilities.argmax(axis=1)
    moved = box_ops.clip(box_ops.decode(class_deltas, proposals[:, :, None], box_ops.HEAD_WEIGHTS), sizes)
    moved = _numpy(moved)[0][np.arange(len(classes)), classes]
    foreground = np.flatnonzero((classes > 0) & (_numpy(scores)[0] > 0))[best]
    shades = np.concatenate([np.zeros(len(foreground)), probabilities.max(axis=1)[foreground]])
    both = np.concatenate([_numpy(proposals)[0, foreground], moved[foreground]])
    pictures["refined boxes, blue before"] = draw.boxes(picture, both, shades)

    found = {
        name: _numpy(values)[0] for name, values in network.detect(batch["images"], sizes, least_score, 0.5).items()
    }
    used = found["classes"] > 0
    instances = draw.Instances(
        found["boxes"][used],
        found["classes"][used].astype(int) - 1,
        list(found["masks"][used] > 0.5),
        found["scores"][used],
    )
    pictures["instances"] = draw.overlay(picture, instances, names)

    height, width = picture.shape[:2]
    for name, level in zip(LEVELS, pyramid, strict=True):
        level = _numpy(level)[0]
        cells = level[: -(-height * len(level) // network.side), : -(-width * len(level) // network.side)]
        strongest = np.argsort(-cells.std(axis=(0, 1)))[:STRONGEST]
        maps = [draw.heat(picture, cells[..., channel]) for channel in strongest]
        pictures[f"{name}, channels {', '.join(map(str, strongest))}"] = np.concatenate(maps, axis=1)
    return pictures


def _anchors(picture, anchors, pyramid):
    """Those of the middle cell of each level."""
    middles, shades, counts = [], [], []
    for place, (level, feature) in enumerate(zip(anchors, pyramid, strict=True)):
        height, width = feature.shape[1:3]
        ratios = len(level) // (height * width)
        first = (height // 2 * width + width // 2) * ratios
        middles.append(_numpy(level)[first : first + ratios])
        shades += [place / (len(LEVELS) - 1)] * ratios
        counts.append(f"{LEVELS[place]} {len(level)}")
    return draw.titled(draw.boxes(picture, np.concatenate(middles), np.array(shades)), "; ".join(counts))


def _numpy(values):
    return ops.convert_to_numpy(values).astype("float32")  # features may be of 16 bits
