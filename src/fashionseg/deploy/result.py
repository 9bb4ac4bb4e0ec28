"""What a network found on one picture."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashionseg.core import documents, files, pictures, rle
from fashionseg.draw import overlay


def pixels(picture: Path | np.ndarray) -> np.ndarray:
    """Of a photograph (H, W, 3) uint8 RGB, upright; an image is taken as it is. Raises UserError as `pictures.read`."""
    if isinstance(picture, np.ndarray):
        return picture
    return pictures.read(picture, upright=True, remedy=pictures.AGAIN)


@dataclass(frozen=True)
class Result:
    """n instances on one picture, best first, in pixels of the upright picture.

    source: the file or the image (H, W, 3) uint8 RGB; size: height, width; instances: COCO results without image_id;
    labels: `categories` and `attributes` with id and name. Masks are held as run lengths, a file is read again to draw.
    """

    source: Path | np.ndarray
    size: tuple[int, int]
    instances: list[dict[str, Any]]
    labels: dict[str, Any]

    def __len__(self) -> int:
        return len(self.instances)

    def __repr__(self) -> str:
        where = self.source if isinstance(self.source, Path) else "an image"
        return f"<Result: {self.summary()} on {where}>"

    def summary(self) -> str:
        """ "2 shoe, 1 dress": how many of each class, most first."""
        names = documents.names_of(self.labels)
        counts = Counter(names[instance["category_id"]] for instance in self.instances)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float64 x1 y1 x2 y2."""
        boxes = np.array([instance["bbox"] for instance in self.instances], float).reshape(-1, 4)
        return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])

    @property
    def scores(self) -> np.ndarray:
        """(n,) float64, 0..1."""
        return np.array([instance["score"] for instance in self.instances], float)

    @property
    def names(self) -> list[str]:
        """The class of each instance."""
        names = {category["id"]: category["name"] for category in self.labels["categories"]}
        return [names[instance["category_id"]] for instance in self.instances]

    @property
    def attributes(self) -> list[dict[str, float]]:
        """Of each instance its attributes by name and their scores, highest first; empty dicts of a network without."""
        labels = self.labels.get("attributes", [])
        counts = Counter(attribute["name"] for attribute in labels)
        names = {a["id"]: a["name"] if counts[a["name"]] == 1 else f"{a['name']} ({a['id']})" for a in labels}
        by_score = [
            sorted(zip(one["attribute_scores"], one["attribute_ids"], strict=True), reverse=True)
            for one in self.instances
        ]
        return [{names[attribute_id]: score for score, attribute_id in of_instance} for of_instance in by_score]

    @cached_property
    def runs(self) -> rle.Runs:
        """The masks as run lengths, which know area, box, union and IoU without a bitmap."""
        return rle.from_coco([instance["segmentation"] for instance in self.instances])

    @property
    def masks(self) -> np.ndarray:
        """(n, H, W) bool, decoded anew each time."""
        masks = [self.runs.decode(row).astype(bool) for row in range(len(self))]
        return np.stack(masks) if masks else np.zeros((0, *self.size), bool)

    def draw(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB with masks, boxes, names and scores; a small one is enlarged."""
        image = pixels(self.source)
        categories = self.labels["categories"]
        drawn = overlay.DrawnInstances.of_coco(self.instances, documents.places_of(self.labels), *self.size)
        return overlay.draw(image, drawn, [category["name"] for category in categories])

    def save(self, path: str | Path) -> None:
        """Writes what `draw` gives as a picture file, in the format of its suffix."""
        with files.replacing(path) as beside:
            Image.fromarray(self.draw()).save(beside, quality=90)

    def coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, score, segmentation (compressed RLE), bbox, area, attribute_ids, ..."""
        areas = self.runs.areas().tolist()
        return [{"image_id": image_id, **one, "area": area} for one, area in zip(self.instances, areas, strict=True)]
