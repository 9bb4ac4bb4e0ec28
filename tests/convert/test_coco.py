"""COCO documents against pycocotools, pictures against Pillow and OpenCV at full size."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as reference
from pycocotools.coco import COCO

from fashionseg.convert import coco, split
from fashionseg.convert.competition import Competition, read
from fashionseg.core import files, rle
from fashionseg.core.errors import UserError

SLICE = Path(__file__).parents[2] / ".." / "shared" / "data" / "imaterialist_slice"


def made(competition: Competition) -> dict[str, dict]:
    return coco.documents(competition, split.assign(competition, 5, 0, 0))


def loaded(document: dict, path: Path) -> COCO:
    files.write_json(path, document)
    return COCO(path)


def bitmap(encoded: str, height: int, width: int) -> np.ndarray:
    """The definition: pairs start length, counted from 1, down the columns."""
    pixels = np.zeros(height * width, np.uint8)
    numbers = [int(text) for text in encoded.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        pixels[start - 1 : start - 1 + length] = 1
    return pixels.reshape(width, height).T


def check_against_pycocotools(competition: Competition, tmp_path: Path):
    """Every row of the CSV is found in the documents that COCO loads, unchanged and encoded as pycocotools would."""
    seen = 0
    encoded_pixels = pd.read_csv(competition.folder / "train.csv")["EncodedPixels"]
    for subset, document in made(competition).items():
        data = loaded(document, tmp_path / f"{subset}.json")
        assert [a["id"] for a in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
        names = {image["id"]: Path(image["file_name"]).stem for image in data.dataset["images"]}
        for name in set(names.values()):
            (number,) = (key for key, value in names.items() if value == name)
            rows = competition.instances[competition.instances["image_id"] == name] if subset != "test" else []
            annotations = data.loadAnns(data.getAnnIds(imgIds=[number]))
            assert len(annotations) == len(rows)
            if len(rows) == 0:
                continue
            for row, annotation in zip(rows.itertuples(), annotations, strict=True):
                seen += 1
                text = encoded_pixels[row.row - 2]
                truth = bitmap(text, row.height, row.width)
                encoded = reference.encode(np.asfortranarray(truth))
                assert annotation["segmentation"] == {"size": encoded["size"], "counts": encoded["counts"].decode()}
                assert annotation["area"] == reference.area(encoded) == truth.sum()
                assert annotation["bbox"] == reference.toBbox(encoded).tolist()
                assert annotation["category_id"] == row.class_id
                assert annotation["attribute_ids"] == list(row.attribute_ids)
                assert annotation["iscrowd"] == 0
                assert rle.from_coco([annotation["segmentation"]]).to_kaggle() == [text]
    assert seen == len(competition.instances)


def test_documents_hold_every_row(folder, tmp_path):
    folder.picture("train/lonely.jpg")
    check_against_pycocotools(read(folder.path), tmp_path)


@pytest.mark.skipif(not SLICE.is_dir(), reason="shared data imaterialist_slice is not here")
def test_real_rows_come_back_unchanged(tmp_path):
    check_against_pycocotools(read(SLICE), tmp_path)


def test_documents_form(folder):
    competition = read(folder.path)
    documents = made(competition)
    assert list(documents) == ["train", "val", "test"]
    assert documents["test"]["images"] == [
        {"id": 1, "file_name": "test/a.jpg", "width": 50, "height": 25, "ImageId": "a"},
        {"id": 2, "file_name": "test/b.jpg", "width": 50, "height": 25, "ImageId": "b"},
    ]
    assert documents["test"]["annotations"] == []
    ids = sorted((i["id"], i["file_name"]) for name in ("train", "val") for i in documents[name]["images"])
    assert ids == [(number + 1, f"train/image{number:03}.jpg") for number in range(30)]
    for document in documents.values():
        assert document["categories"] == competition.categories
        assert document["attributes"] == competition.attributes


def test_class_table_counts(folder):
    folder.rows = folder.rows[:-1]
    competition = read(folder.write())
    table = coco.class_table(made(competition)).set_index("class_id")
    assert table["name"].tolist() == ["shirt, blouse", "pants", "shoe"]
    counts = competition.instances["class_id"].value_counts()
    assert (table["train_instances"] + table["val_instances"]).to_dict() == counts.to_dict()
    images = competition.instances.groupby("class_id")["image_id"].nunique()
    assert table["instances"].to_dict() == counts.to_dict()
    assert (table["train_images"] + table["val_images"]).to_dict() == images.to_dict()


def test_size_table_counts():
    images = [{"id": 1, "height": 100, "width": 200}]
    areas = [1, 1023, 1024, 9215, 9216, 20000]  # either side of COCO's bounds; the last is the whole picture
    annotations = [{"image_id": 1, "area": area} for area in areas]
    documents = {
        "train": {"images": images, "annotations": annotations},
        "val": {"images": images, "annotations": annotations[:1]},
    }
    table = coco.size_table(documents).set_index("side")
    assert table.sum().to_dict() == {"instances": 7, "train": 6, "val": 1, "small": 3, "medium": 2, "large": 2}
    assert table.loc[0.05].tolist() == [2, 1, 1, 2, 0, 0]  # a side of 1 in 200
    assert table.loc[0.75, "large"] == 1  # 141 in 200
    assert table.index[-1] == 1


def test_tables_without_instances(folder):
    competition = read(folder.path)
    empty = made(competition) | {"val": {"images": [], "annotations": []}}
    assert coco.class_table(empty)["val_instances"].sum() == 0
    assert coco.size_table(empty)["val"].sum() == 0
    assert coco.dropped_table(competition).columns.tolist() == ["reason", "count", "first"]
    assert coco.dropped_table(competition).empty


def test_dropped_table_names_the_first(folder):
    folder.rows[5] = folder.rows[5].replace(",40,30,", ",40,31,")
    folder.rows[8] = folder.rows[8].replace(",40,30,", ",41,30,")
    folder.rows[1] = "nowhere,1 1,40,30,0,"
    table = coco.dropped_table(read(folder.write()))
    assert table["count"].tolist() == [2, 1]
    assert table["reason"].tolist()[0] == "Height and Width differ from the stored picture, which EXIF may turn"
    assert table["first"].tolist() == [f"{folder.path / 'train.csv'}:{line}" for line in ("7", "3 (nowhere)")]


def test_split_reaches_the_documents(folder):
    competition = read(folder.path)
    chosen = {"image003", "image017"}
    table = pd.DataFrame({"image_id": sorted(competition.train_images)})
    table["subset"] = ["val" if name in chosen else "train" for name in table["image_id"]]
    documents = coco.documents(competition, table)
    assert {Path(image["file_name"]).stem for image in documents["val"]["images"]} == chosen
    assert len(documents["val"]["annotations"]) == 4


def test_one_validation_image_is_refused_when_the_others_cannot_be_decoded(folder):
    competition = read(folder.path)
    table = pd.DataFrame({"image_id": sorted(competition.train_images), "subset": ["val"] * 2 + ["train"] * 28})
    left = competition.without([competition.train_images["image001"]])
    with pytest.raises(UserError, match="29 usable training pictures, of which 1 are held out to validate"):
        coco.documents(left, table)


def test_read_split_takes_only_a_split_of_these_images(folder, tmp_path):
    competition = read(folder.path)
    table = split.assign(competition, 5, 0, 0)
    path = tmp_path / "split.csv"
    files.write_csv(path, table)
    assert coco.read_split(path, competition).equals(table)
    for wrong in (table[1:], table.replace("val", "test")):
        files.write_csv(path, wrong)
        with pytest.raises(UserError, match="not a split of the images"):
            coco.read_split(path, competition)
    with pytest.raises(UserError, match=r"nowhere\.csv is missing"):
        coco.read_split(tmp_path / "nowhere.csv", competition)
