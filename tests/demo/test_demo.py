import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco

from fashionseg_demo import competition

IMAGES = 40
PARTS = {"sleeve", "pocket", "collar", "lapel", "neckline", "zipper", "belt"}
GARMENTS = {"upperbody", "lowerbody", "wholebody"}
LABELS = json.loads(competition.LABELS.read_text())
NAMES = {category["id"]: category["name"] for category in LABELS["categories"]}
GARMENT_IDS = {category["id"] for category in LABELS["categories"] if category["supercategory"] in GARMENTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    competition.draw_competition(folder, seed=3, images=IMAGES)
    return folder


@pytest.fixture(scope="module")
def train(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "train.csv", dtype={"AttributesIds": str})


def bitmap(row) -> np.ndarray:
    """The mask by pycocotools' decoder: the gaps between Kaggle's runs are COCO's counts."""
    starts, lengths = np.array(row.EncodedPixels.split(), int).reshape(-1, 2).T
    starts -= 1
    ends = starts + lengths
    counts = np.stack([starts - np.r_[0, ends[:-1]], lengths], 1).ravel().tolist()
    counts.append(row.Height * row.Width - int(ends[-1]))
    size = [row.Height, row.Width]
    return coco.decode(coco.frPyObjects({"size": size, "counts": counts}, *size)).astype(bool)


@pytest.fixture(scope="module")
def masks(train) -> list[tuple[str, list[tuple[int, np.ndarray]]]]:
    """Image id -> class and mask of each instance."""
    return [
        (name, [(row.ClassId, bitmap(row)) for row in rows.itertuples()]) for name, rows in train.groupby("ImageId")
    ]


def test_layout_and_columns(folder, train):
    assert sorted(path.name for path in folder.iterdir()) == [
        "label_descriptions.json",
        "sample_submission.csv",
        "test",
        "train",
        "train.csv",
    ]
    assert list(train) == ["ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds"]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in train.ImageId)
    assert {path.stem for path in (folder / "train").iterdir()} == set(train.ImageId)
    assert json.loads((folder / "label_descriptions.json").read_text()) == LABELS


def test_sample_has_each_test_image_once(folder):
    text = (folder / "sample_submission.csv").read_text().splitlines()
    assert text[0] == "ImageId,EncodedPixels,ClassId,AttributesIds"
    pictures = {path.stem for path in (folder / "test").iterdir()}
    assert len(pictures) == IMAGES // 5
    assert sorted(line.split(",", 1)[0] for line in text[1:]) == sorted(pictures)
    assert {line.split(",", 1)[1] for line in text[1:]} == {"1 1,23,"}


def test_pictures_have_the_size_that_the_table_says(folder, train):
    for name, rows in train.groupby("ImageId"):
        picture = cv2.imread(str(folder / "train" / f"{name}.jpg"))
        assert {picture.shape} == set(zip(rows.Height, rows.Width, [3] * len(rows), strict=True))
        assert max(picture.shape) == 320


def test_twenty_classes_are_common(train):
    counts = train.ClassId.map(NAMES).value_counts()
    assert (counts >= 4).sum() >= 20  # in 32 training pictures; some 20 in the 200 that there are by default
    assert 8 <= len(train) / train.ImageId.nunique() <= 16


def test_same_seed_same_bytes_in_one_process_and_in_many(folder, tmp_path):
    drawn = sorted(path for name in ("test", "train") for path in (folder / name).iterdir())
    name, instances = competition._write_picture(tmp_path, seed=3, number=7)
    assert (tmp_path / f"{name}.jpg").read_bytes() == next(path for path in drawn if path.stem == name).read_bytes()
    assert instances

    contents = []
    for seed in (5, 5, 6):
        again = tmp_path / f"{len(contents)}"
        competition.draw_competition(again, seed, images=5)
        files = sorted(path for path in again.rglob("*") if path.is_file())
        contents.append([(path.relative_to(again), hashlib.sha256(path.read_bytes()).digest()) for path in files])
    assert contents[0] == contents[1]
    assert not {path for path, _ in contents[0] if path.suffix == ".jpg"} & {path for path, _ in contents[2]}


def test_masks_of_a_class_share_no_pixel(masks):
    for _, instances in masks:
        for class_id in {class_id for class_id, _ in instances}:
            assert sum(mask.astype(int) for other, mask in instances if other == class_id).max() == 1


def test_parts_lie_inside_a_garment(masks):
    parts = 0
    for name, instances in masks:
        garments = [mask for class_id, mask in instances if class_id in GARMENT_IDS]
        for class_id, mask in instances:
            if NAMES[class_id] in PARTS:
                parts += 1
                assert any((mask <= garment).all() for garment in garments), (name, NAMES[class_id])
    assert parts > IMAGES


def test_the_table_holds_what_was_drawn(train):
    number = IMAGES - 1
    image_id = hashlib.md5(f"3/{number}".encode(), usedforsecurity=False).hexdigest()
    _, items = competition.draw_picture(np.random.default_rng([3, number]))
    rows = list(train[train.ImageId == image_id].itertuples())
    assert [NAMES[row.ClassId] for row in rows] == [item.name for item in items]
    for row, item in zip(rows, items, strict=True):
        np.testing.assert_array_equal(bitmap(row), item.seen)


def test_masks_are_where_the_picture_shows_something(folder, masks):
    """Colour changes more across the outline of a mask than across the same outline moved away."""
    right = wrong = 0.0
    for name, instances in masks[:12]:
        picture = cv2.imread(str(folder / "train" / f"{name}.jpg")).astype(np.float32).sum(2)
        steps = cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, np.ones((3, 3)))
        for _, mask in instances:
            outline = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))).astype(bool)
            right += steps[outline].mean()
            wrong += steps[np.roll(outline, 6, axis=1)].mean()
    assert right > 1.3 * wrong


def test_attributes(train):
    legal = {attribute["id"]: attribute["name"] for attribute in LABELS["attributes"]}
    sets = train.AttributesIds.fillna("").map(lambda text: [int(number) for number in text.split(",") if number])
    assert all(numbers == sorted(set(numbers)) and set(numbers) <= set(legal) for numbers in sets)

    names = train.ClassId.map(NAMES)
    assert sets[~names.isin(PARTS - {"belt", "zipper"}) & ~train.ClassId.isin(GARMENT_IDS)].map(len).max() == 0
    patterns = {"plain (pattern)", "stripe", "check", "dot", "chevron", "floral"}
    for row in sets[train.ClassId.isin(GARMENT_IDS)]:
        assert len(patterns & {legal[number] for number in row}) == 1
    lengths = {legal[number] for row in sets[names == "sleeve"] for number in row}
    assert {"short (length)", "wrist-length"} <= lengths
    assert {"v-neck", "round (neck)"} <= {legal[number] for row in sets[names == "neckline"] for number in row}
