"""Draws a small competition of people in clothes, so that everything runs without a download.

This module writes the files and draws the scenes; `figures` draws the people, `canvas` the shapes and the true masks,
`cloths` the colours and patterns.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from fashionseg.core import files, rle
from fashionseg_demo.canvas import Canvas, Item, box, ellipse, outline, smooth
from fashionseg_demo.cloths import PATTERNS, STRIPE, Cloth, palette
from fashionseg_demo.figures import Figure

LABELS = Path(__file__).with_name("label_descriptions.json")
TEST_FRACTION = 0.2
MIN_CORE = 50  # pixels of an instance whose eight neighbours belong to it too; with fewer it is left out of the truth
SIZES = [(320, 240), (320, 214), (320, 256), (320, 320), (240, 320), (256, 320)]  # height, width
FRAMINGS = [6.9, 5.5, 4.6]  # units from top to bottom: the whole figure, to the knees, to the hips
MUTED = palette("c9d3d6 b7c4b1 d8cfc0 a9b4c2 c7b7a3 9aa5a0 8f9aa8 e3ddd3 bfb5c9 737f85")
(LEAF,) = palette("5f7f5a")


def furnish(canvas: Canvas, rng: np.random.Generator) -> None:
    """A wall, a floor and things that are not clothes, out of focus."""
    unit = 45
    height, width = np.array(canvas.folds.shape) / unit
    canvas.place = np.array([[unit, 0, 0], [0, unit, 0]], np.float32)
    wall, other, floor, *things = rng.permutation(MUTED)
    patterns = list(PATTERNS)
    paper = Cloth(wall, wall * 0.75 + other * 0.25, rng.choice(patterns), "smooth", rng.uniform(0.4, 1.2))
    canvas.paint([box(width / 2, height / 2, width, height)], paper)
    level = height * rng.uniform(0.72, 0.9)
    boards = Cloth(floor * 0.8, floor * 0.7, STRIPE, period=0.5)
    canvas.paint([box(width / 2, level + height / 2, width, height / 2)], boards)
    for colour in things[: rng.integers(2, 6)]:
        x, y, size = rng.uniform(0, width), rng.uniform(0.2, 0.7) * height, rng.uniform(0.4, 1.1)
        cloth = Cloth(colour, colour * np.float32(0.7), rng.choice(patterns), period=0.3)
        match rng.choice(["picture", "plant", "lamp", "blot"]):
            case "picture":
                canvas.paint([box(x, y, size, size * 0.8)], Cloth(colour * 0.5))
                canvas.paint([box(x, y, size * 0.85, size * 0.65)], cloth)
            case "plant":
                for angle in np.radians([-40, -12, 17, 46]):
                    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
                    canvas.paint([ellipse(0, -size / 2, 0.16, size) @ turn + (x, level - 0.4)], Cloth(LEAF))
                canvas.paint([box(x, level, 0.35, 0.4)], Cloth(colour * 0.8))
            case "lamp":
                canvas.paint([box(x, (y + level) / 2, 0.05, (level - y) / 2)], Cloth(colour * 0.4))
                shade = outline("-.3 -.4  .3 -.4  .6 .3  -.6 .3")
                canvas.paint([shade + np.array([x, y])], cloth)
            case "blot":
                canvas.paint([smooth(ellipse(x, y, size * 0.7, size * 0.5)[::4] + rng.normal(0, 0.2, (7, 2)))], cloth)
    focus = rng.uniform(0.6, 2.2)
    canvas.image = np.stack([cv2.GaussianBlur(plane, (0, 0), focus) for plane in canvas.image])


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image as a camera takes it, (H, W, 3) uint8 RGB: uneven light, a colour cast, noise."""
    height, width = image.shape[1:]
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + slope * (x * np.cos(angle) + y * np.sin(angle)) - 0.25 * (x**2 + y**2)
    cast = rng.uniform(0.93, 1.07, (3, 1, 1)) * rng.uniform(0.85, 1.12)
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1.5, 6))
    photo = image * light.astype(np.float32) * cast.astype(np.float32) + noise
    return np.clip(photo, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def draw_picture(rng: np.random.Generator) -> tuple[np.ndarray, list[Item]]:
    """One image (H, W, 3) uint8 RGB and its true instances, back to front."""
    height, width = SIZES[rng.integers(len(SIZES))]
    canvas = Canvas(height, width)
    furnish(canvas, rng)
    folds = rng.normal(1, 0.09, (height // 40 + 2, width // 12 + 2)).astype(np.float32)
    canvas.folds = cv2.resize(folds, (width, height), interpolation=cv2.INTER_CUBIC)
    unit = height / rng.choice(FRAMINGS, p=[0.7, 0.2, 0.1] if height >= width else [0, 0.5, 0.5])
    people = 2 if width / unit > 4 and rng.random() < 0.45 else 1
    for centre in [-0.5, 0.5] if people == 2 else [0]:
        lean, scale = rng.normal(0, 0.04), unit * rng.uniform(0.88, 0.98)
        turn = scale * np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
        x = width / 2 + centre * min(2.5 * unit, width / 2) + rng.uniform(-0.25, 0.25) * unit
        canvas.place = np.column_stack([turn, (x, rng.uniform(1.6, 1.8) * unit)]).astype(np.float32)
        Figure(canvas, rng).draw()
    square = np.ones((3, 3), np.uint8)
    items = [item for item in canvas.items if cv2.erode(item.seen.astype(np.uint8), square).sum() >= MIN_CORE]
    return photograph(canvas.image, rng), items


def _write_picture(folder: Path, seed: int, number: int) -> tuple[str, list[tuple]]:
    """Draws one image into the folder. Returns its id and, of each instance, mask, height, width, class, attributes."""
    rng = np.random.default_rng([seed, number])
    image, items = draw_picture(rng)
    image_id = hashlib.md5(f"{seed}/{number}".encode(), usedforsecurity=False).hexdigest()
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(82, 95))])[1]
    (folder / f"{image_id}.jpg").write_bytes(jpeg.tobytes())
    return image_id, [
        (rle.encode(item.seen).to_kaggle()[0], *image.shape[:2], item.name, item.attributes) for item in items
    ]


def draw_competition(folder: Path, seed: int, images: int, progress: Callable[[Iterable], Iterable] = iter) -> None:
    """Writes a competition of `images` images, a fifth of them test images, into `folder`.

    The same seed gives the same bytes with any number of processes: each image depends on the seed and its number only.
    `progress` wraps the iteration over the images, as `rich.progress.track`.
    """
    labels = files.read_json(LABELS)
    class_ids = {category["name"]: category["id"] for category in labels["categories"]}
    attribute_ids = {attribute["name"]: attribute["id"] for attribute in labels["attributes"]}
    folders = [folder / "test"] * round(images * TEST_FRACTION)
    folders += [folder / "train"] * (images - len(folders))
    for subset in set(folders):
        subset.mkdir(parents=True)
    drawn = Parallel(n_jobs=-1, return_as="generator")(
        delayed(_write_picture)(subset, seed, number) for number, subset in enumerate(folders)
    )
    rows, test_ids = [], []
    for subset, (image_id, instances) in zip(progress(folders), drawn, strict=True):
        if subset.name == "test":
            test_ids.append(image_id)
            continue
        for mask, height, width, name, attributes in instances:
            ids = ",".join(str(attribute) for attribute in sorted({attribute_ids[each] for each in attributes}))
            rows.append((image_id, mask, height, width, class_ids[name], ids))
    columns = ["ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds"]
    files.write_csv(folder / "train.csv", pd.DataFrame(rows, columns=columns))
    sample = {"ImageId": test_ids, "EncodedPixels": "1 1", "ClassId": 23, "AttributesIds": ""}
    files.write_csv(folder / "sample_submission.csv", pd.DataFrame(sample))
    files.write_text(folder / "label_descriptions.json", LABELS.read_text(encoding="utf-8"))
