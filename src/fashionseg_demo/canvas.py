"""A canvas that keeps the true masks while an image is painted, and the shapes to paint.

Shapes are in units of about a head, x to the right and y down. What is painted hides what lies below it, in the image
and in the masks. Only a part (sleeve, pocket, collar) does not cut its garment's mask, so that masks of different
classes overlap as in the real data and masks of one class never do.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fashionseg_demo.cloths import Cloth

SUPERSAMPLING = 3

Shape = list[np.ndarray]  # the union of polygons (n, 2) of x, y


def outline(text: str) -> np.ndarray:
    """Points (n, 2) from `x y  x y ...`."""
    return np.array(text.split(), float).reshape(-1, 2)


def smooth(points: np.ndarray, closed: bool = True, rounds: int = 2) -> np.ndarray:
    """A closed outline, or an open line with fixed ends, whose corners are cut `rounds` times (Chaikin 1974)."""
    for _ in range(rounds):
        ahead = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * ahead, 0.25 * points + 0.75 * ahead], 1).reshape(-1, 2)
        points = cut if closed else np.vstack([points[:1], cut[1:-3], points[-1:]])
    return points


def stretch(points: np.ndarray, start: float, end: float) -> np.ndarray:
    """Twelve points on a line, evenly spaced between two fractions of its length."""
    length = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    where = np.linspace(start, end, 12) * length[-1]
    return np.stack([np.interp(where, length, points[:, axis]) for axis in (0, 1)], 1)


def tube(points: np.ndarray, *radii: float) -> Shape:
    """A band around a line, of radii spread evenly along it: one quadrangle a step, so that bends have no holes."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.hypot(*tangent.T)[:, None]
    at = np.linspace(0, 1, len(points))
    offset = tangent[:, ::-1] * [-1, 1] * np.interp(at, np.linspace(0, 1, len(radii)), radii)[:, None]
    left, right = points + offset, points - offset
    return [np.array(corners) for corners in zip(left[:-1], left[1:], right[1:], right[:-1], strict=True)]


def ellipse(x: float, y: float, across: float, down: float, *, start: float = 0, end: float = 360) -> np.ndarray:
    """An ellipse by its centre and half axes, or its arc between two angles in degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, end, 28))
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1)


def box(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A rectangle by its centre, half width and half height."""
    return np.array([(x - across, y - down), (x + across, y - down), (x + across, y + down), (x - across, y + down)])


def flipped(points: np.ndarray) -> np.ndarray:
    return points * [-1, 1]


def closed(right: np.ndarray, *between: np.ndarray) -> np.ndarray:
    """A right profile from top to bottom and its mirror image, joined at the hem by the points `between`."""
    return np.vstack([right, *between, flipped(right)[::-1]])


@dataclass(eq=False)
class Item:
    """A true instance: class name, attribute names and visible pixels (H, W) bool."""

    name: str
    attributes: tuple[str, ...]
    seen: np.ndarray


class Canvas:
    """An image (3, H, W) with its true instances."""

    def __init__(self, height: int, width: int):
        self.image = np.zeros((3, height, width), np.float32)
        self.folds = np.ones((height, width), np.float32)  # brightness, of cloth and skin alike
        self.items: list[Item] = []
        self.place = np.eye(2, 3, dtype=np.float32)  # units -> pixels

    def item(self, name: str, *attributes: str) -> Item:
        """Adds an instance, without pixels until `paint` gives it some."""
        self.items.append(Item(name, attributes, np.zeros(self.folds.shape, bool)))
        return self.items[-1]

    def paint(
        self, shape: Shape, cloth: Cloth, item: Item | None = None, whole: Item | None = None, clip: bool = False
    ):
        """Covers the shape with the cloth.

        Its pixels are added to `item` and to the garment `whole` that the item is a part of, and removed from all other
        instances. `clip`: only within the visible pixels of `whole`.
        """
        polygons = [polygon @ self.place[:, :2].T + self.place[:, 2] for polygon in shape]
        corners = np.vstack(polygons)
        left, top = np.maximum(corners.min(0).astype(int) - 1, 0)
        right, bottom = np.minimum(corners.max(0).astype(int) + 2, self.folds.shape[::-1])
        if left >= right or top >= bottom:
            return
        window, size = np.s_[top:bottom, left:right], (right - left, bottom - top)
        fine = np.zeros((size[1] * SUPERSAMPLING, size[0] * SUPERSAMPLING), np.uint8)
        for polygon in polygons:  # corners in 1/16 of a fine pixel
            corners = np.round(((polygon - (left, top)) * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(fine, [corners], 255, shift=4)
        within = cv2.erode(fine, np.ones((5, 5), np.uint8))  # outside of it is a dark rim
        alpha, within = (
            cv2.resize(part, size, interpolation=cv2.INTER_AREA) / np.float32(255) for part in (fine, within)
        )
        if clip:
            alpha *= whole.seen[window]
        solid = alpha >= 0.5
        hidden = ~solid
        for other in self.items:
            seen = other.seen[window]
            if other is item or other is whole:
                seen |= solid
            else:
                seen &= hidden
        unit = np.sqrt(np.linalg.det(self.place[:, :2]))
        inverse = np.linalg.inv(self.place[:, :2])
        x = np.arange(left, right, dtype=np.float32) - self.place[0, 2]
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - self.place[1, 2]
        u, v = (row[0] * x + row[1] * y for row in inverse)
        depth = 0.74 + 0.3 * cv2.GaussianBlur(alpha, (0, 0), max(unit * 0.09, 0.6))  # darker towards the outline
        light = self.folds[window] * depth * (0.55 + 0.45 * within)
        covered = self.image[:, *window]
        covered += alpha * (cloth.at(u, v) * light - covered)
