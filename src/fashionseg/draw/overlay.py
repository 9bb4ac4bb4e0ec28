"""Draws on images: masks, boxes, class names and scores; heat maps; two images side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from fashionseg.core import documents, rle

MIN_DRAWN_SIDE = 768  # pixels of the long side; smaller images are enlarged first, so that names can be read
FILL, HEAT = 0.45, 0.6  # opacity of masks, of heat maps
PALETTE = 48  # colours; the competition has 46 classes
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, PAPER = (24, 24, 24), (255, 255, 255)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class DrawnInstances:
    """Instances of one image, to be drawn.

    boxes (n, 4) x1 y1 x2 y2 in pixels of the image, x2 = x1 + width; classes (n,) indices into the class names; masks:
    n arrays (h, w) of 0 and 1 at any resolution, each stretched over its box; scores (n,) or None; notes: n texts after
    name and score, or ().
    """

    boxes: np.ndarray
    classes: np.ndarray
    masks: Sequence[np.ndarray]
    scores: np.ndarray | None = None
    notes: Sequence[str] = ()

    @staticmethod
    def of_coco(
        annotations: Sequence[dict[str, Any]],
        class_index: dict[int, int],
        height: int,
        width: int,
        notes: Sequence[str] = (),
    ) -> "DrawnInstances":
        """From COCO annotations or results of one image, to be drawn on it at height x width pixels.

        class_index: category_id -> index into the class names.
        """
        runs = rle.from_coco([annotation["segmentation"] for annotation in annotations])
        runs = runs.resize(height, width)
        boxes = runs.boxes()
        masks = [runs.crop(i, y, x, h, w).decode(0) for i, (x, y, w, h) in enumerate(boxes.tolist())]
        return DrawnInstances(
            boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            classes=np.array([class_index[annotation["category_id"]] for annotation in annotations], int),
            masks=masks,
            scores=np.array([a["score"] for a in annotations]) if annotations and "score" in annotations[0] else None,
            notes=notes,
        )

    @staticmethod
    def of_batch(batch: dict[str, np.ndarray], row: int) -> "DrawnInstances":
        """From one image of a training batch."""
        real = batch["classes"][row] > 0
        return DrawnInstances(batch["boxes"][row][real], batch["classes"][row][real] - 1, batch["masks"][row][real])

    @staticmethod
    def of_detections(found: dict[str, np.ndarray], chosen: np.ndarray) -> "DrawnInstances":
        """From those of `MaskRCNN.detect` for one image, without its first axis, that are `chosen` (D,) bool."""
        boxes, classes, masks, scores = (found[name][chosen] for name in ("boxes", "classes", "masks", "scores"))
        return DrawnInstances(boxes, classes.astype(int) - 1, masks > 0.5, scores)


def colour_of(index: int) -> Colour:
    """RGB of a class, the same in every image."""
    return _palette()[index % len(_palette())]


@cache
def _palette() -> list[Colour]:
    """Each colour is the one farthest from all before it, by distance in CIE L*a*b*."""
    grid = [(hue, s, v) for v in (255, 210, 160) for s in (255, 200, 140) for hue in range(0, 180, 4)]
    candidates = cv2.cvtColor(np.array([grid], np.uint8), cv2.COLOR_HSV2RGB)
    lab = cv2.cvtColor(candidates.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    chosen = [0]
    nearest = np.full(len(lab), np.inf)
    for _ in range(PALETTE - 1):
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return [tuple(candidates[0, at].tolist()) for at in chosen]


def draw(image: np.ndarray, instances: DrawnInstances, names: Sequence[str]) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with its instances, large ones below small ones.

    Small images are enlarged by a whole factor.
    """
    factor = _factor(image)
    canvas = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    stroke = max(1, round(max(canvas.shape[:2]) / 800))
    parts = _stretched(instances, factor, canvas.shape)
    order = sorted(range(len(parts)), key=lambda i: -np.count_nonzero(parts[i][2]))
    for i in order:
        left, top, mask = parts[i]
        colour = colour_of(int(instances.classes[i]))
        region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
        tints = (np.arange(256)[:, None] * (1 - FILL) + np.array(colour) * FILL).astype(np.uint8)
        np.copyto(region, cv2.LUT(region, tints[None]), where=mask[..., None] > 0)
    for i in order:
        _outline(canvas, parts[i], colour_of(int(instances.classes[i])), 2 * stroke)
    taken: list[tuple[int, int, int, int]] = []
    shown = documents.short(names)
    for i in order:
        colour = colour_of(int(instances.classes[i]))
        x1, y1, x2, y2 = _pixels(instances.boxes[i], factor, canvas.shape)
        cv2.rectangle(canvas, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), colour, stroke, cv2.LINE_AA)
    for i in reversed(order):  # small instances choose the place of their label first
        text = shown[int(instances.classes[i])]
        if instances.scores is not None:
            text += f" {instances.scores[i]:.2f}"
        if instances.notes and instances.notes[i]:
            text += f": {instances.notes[i]}"
        _label(
            canvas, text, _pixels(instances.boxes[i], factor, canvas.shape), colour_of(int(instances.classes[i])), taken
        )
    return canvas


def batch_overlays(batch: dict[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """The images of a training batch with their instances, without padding."""
    pictures = []
    for row, (height, width) in enumerate(batch["sizes"]):
        pictures.append(draw(batch["images"][row][:height, :width], DrawnInstances.of_batch(batch, row), names))
    return pictures


def side_by_side(left: np.ndarray, right: np.ndarray, titles: tuple[str, str]) -> np.ndarray:
    """Two images of one height beside each other, each with its title above."""
    left, right = map(titled, (left, right), titles)
    between = np.full((len(left), max(4, len(left) // 100), 3), PAPER, np.uint8)
    return np.concatenate([left, between, right], axis=1)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with a title above."""
    band = max(24, picture.shape[0] // 22)
    head = np.full((band, picture.shape[1], 3), PAPER, np.uint8)
    scale, (_, text_height) = _fitting(title, band * 0.5, picture.shape[1] - 8)
    cv2.putText(head, title, (4, (band + text_height) // 2), FONT, scale, INK, max(1, band // 24), cv2.LINE_AA)
    return np.concatenate([head, picture])


def boxes(image: np.ndarray, where: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with boxes (n, 4) x1 y1 x2 y2, coloured from blue to red by shades (n,) in 0..1; the
    last box is on top. Small images are enlarged by a whole factor."""
    factor = _factor(image)
    canvas = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    stroke = max(1, round(max(canvas.shape[:2]) / 500))
    for box, colour in zip(where, _shaded(shades), strict=True):
        x1, y1, x2, y2 = _pixels(box, factor, canvas.shape)
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour.tolist(), stroke, cv2.LINE_AA)
    return canvas


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB under a heat map of values (h, w): blue the lowest, red the highest."""
    span = values.max() - values.min()
    shades = _shaded((values - values.min()) / (span if span > 0 else 1))
    shades = cv2.resize(shades, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return (image * (1 - HEAT) + shades * HEAT).astype(np.uint8)


def _shaded(shades: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 RGB of shades (...) in 0..1."""
    flat = (np.asarray(shades, np.float32).reshape(-1, 1) * 255).round().astype(np.uint8)
    return cv2.applyColorMap(flat, cv2.COLORMAP_TURBO)[:, 0, ::-1].reshape(*np.shape(shades), 3) if flat.size else flat


def _factor(image: np.ndarray) -> int:
    return max(1, round(MIN_DRAWN_SIDE / max(image.shape[:2])))


def _pixels(box: np.ndarray, factor: int, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Edges x1 y1 x2 y2 of a box on the canvas, in whole pixels within it, at least one pixel wide and high."""
    x1, y1, x2, y2 = (round(float(edge) * factor) for edge in box)
    height, width = shape[:2]
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return x1, y1, min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)


def _stretched(instances: DrawnInstances, factor: int, shape: Sequence[int]) -> list[tuple[int, int, np.ndarray]]:
    """Left, top and mask (h, w) of each instance at the size of the canvas."""
    parts = []
    for box, mask in zip(instances.boxes, instances.masks, strict=True):
        x1, y1, x2, y2 = _pixels(box, factor, shape)
        mask = np.asarray(mask, np.uint8) * 255 if np.size(mask) else np.zeros((1, 1), np.uint8)
        size = x2 - x1, y2 - y1
        method = cv2.INTER_AREA if size[0] < mask.shape[1] and size[1] < mask.shape[0] else cv2.INTER_LINEAR
        parts.append((x1, y1, (cv2.resize(mask, size, interpolation=method) > 127).astype(np.uint8)))
    return parts


def _outline(canvas: np.ndarray, part: tuple[int, int, np.ndarray], colour: Colour, stroke: int) -> None:
    left, top, mask = part
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(canvas, contours, -1, colour, stroke, cv2.LINE_AA)


def _label(canvas: np.ndarray, text: str, box: tuple[int, int, int, int], colour: Colour, taken: list) -> None:
    """Draws `text` on a background at the place by `box` with the least overlap, and adds its rectangle to `taken`."""
    height, width = canvas.shape[:2]
    letters = max(9.0, max(height, width) / 58)
    scale, (text_width, text_height) = _fitting(text, letters, width - 2)
    margin = max(2, round(letters / 3))
    label_width, label_height = min(width, text_width + 2 * margin), min(height, text_height + 2 * margin)
    x1, y1, x2, y2 = box
    corners = [
        (x1, y1 - label_height),
        (x1, y1),
        (x2 - label_width, y1 - label_height),
        (x1, y2),
        (x1, y2 - label_height),
        (x2 - label_width, y2),
    ]
    corners += [(x1, y1 + step * label_height) for step in range(1, 6)]
    places = [(min(max(x, 0), width - label_width), min(max(y, 0), height - label_height)) for x, y in corners]

    def overlap(place: tuple[int, int]) -> int:
        x, y = place
        widths = [max(0, min(x + label_width, right) - max(x, left)) for left, _, right, _ in taken]
        heights = [max(0, min(y + label_height, bottom) - max(y, top)) for _, top, _, bottom in taken]
        return sum(a * b for a, b in zip(widths, heights, strict=True))

    x, y = min(places, key=overlap)  # of equals the first
    taken.append((x, y, x + label_width, y + label_height))
    cv2.rectangle(canvas, (x, y), (x + label_width - 1, y + label_height - 1), colour, cv2.FILLED)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    thickness = max(1, round(letters / 12))
    ink = INK if luminance > 140 else PAPER
    cv2.putText(canvas, text, (x + margin, y + label_height - margin), FONT, scale, ink, thickness, cv2.LINE_AA)


def _fitting(text: str, letters: float, width: int) -> tuple[float, tuple[int, int]]:
    """Font scale for capitals `letters` pixels high, smaller where the text is wider than `width`; size of the text."""
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, 1, 1)
    scale = min(letters / max(1, text_height), width / max(1, text_width))  # no text has no size
    return scale, (round(text_width * scale), round(text_height * scale))
