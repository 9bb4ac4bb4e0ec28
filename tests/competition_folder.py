"""A small competition folder that tests bend and break."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fashionseg.convert.competition import Competition

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds"
LABELS = {
    "categories": [
        {"id": 0, "name": "shirt, blouse", "supercategory": "upperbody", "level": 2},
        {"id": 6, "name": "pants", "supercategory": "lowerbody", "level": 2},
        {"id": 23, "name": "shoe", "supercategory": "legs and feet", "level": 2},
    ],
    "attributes": [
        {"id": number, "name": f"attribute {number}", "supercategory": "nickname", "level": 1}
        for number in (115, 136, 340)
    ],
}
HEIGHT, WIDTH = 40, 30


class Folder:
    """Writes the files of a competition: `images` pictures, two instances each, and two test pictures."""

    def __init__(self, path: Path, images: int = 30):
        self.path = path
        self.rows = [
            row
            for number in range(images)
            for row in (
                f'image{number:03},1 {number + 3} 81 4,{HEIGHT},{WIDTH},{(0, 6, 23)[number % 3]},"115,136"',
                f"image{number:03},401 40 501 1,{HEIGHT},{WIDTH},23,{('', '340')[number % 2]}",
            )
        ]
        for name in ("train", "test"):
            (path / name).mkdir(parents=True)
        for number in range(images):
            self.picture(f"train/image{number:03}.jpg", seed=number)
        for name in ("b", "a"):
            self.picture(f"test/{name}.jpg", 25, 50)
        (path / "label_descriptions.json").write_text(json.dumps(LABELS))
        (path / "sample_submission.csv").write_text(
            "ImageId,EncodedPixels,ClassId,AttributesIds\nb,1 1,0,\na,1 1,0,\na,1 1,6,\n"
        )
        self.write()

    def write(self, header: str = HEADER) -> Path:
        (self.path / "train.csv").write_text("\n".join([header, *self.rows]) + "\n")
        return self.path

    def picture(self, name: str, height: int = HEIGHT, width: int = WIDTH, seed: int = 0, **options) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(
            buffer, options.pop("format", "JPEG"), **options
        )
        (self.path / name).write_bytes(buffer.getvalue())
        return self.path / name


def dropped(competition: Competition) -> dict[str, int]:
    """Reason -> count, most frequent first."""
    return competition.drops["reason"].value_counts().to_dict()
