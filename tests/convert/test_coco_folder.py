"""A folder in COCO's layout against pycocotools' own reading of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference
from pycocotools.coco import COCO

from competition_folder import dropped
from fashionseg.coco.average_precision import evaluate
from fashionseg.convert import coco, resizing, split
from fashionseg.convert.competition import read
from fashionseg.core import documents, files
from fashionseg.core.errors import UserError

HEIGHT, WIDTH = 40, 60


def drawn(folder: Path, pictures: str = "train2017") -> dict:
    """24 pictures with a polygon, run lengths and compressed run lengths each; two more name the test pictures."""
    random = np.random.default_rng(0)
    document = {
        "images": [
            {"id": 5 * n + 3, "file_name": f"{n:06}.jpg", "height": HEIGHT, "width": WIDTH} for n in reversed(range(24))
        ],
        "categories": [{"id": 7, "name": "hat", "supercategory": "head"}, {"id": 90, "name": "shoe"}],
        "annotations": [],
    }
    for image in document["images"]:
        bitmap = random.random((HEIGHT, WIDTH)) < 0.2
        flat = np.flatnonzero(np.diff(np.r_[False, bitmap.T.ravel(), False].astype(int)))
        counts = np.diff(np.r_[0, flat, bitmap.size]).tolist()
        points = random.uniform(-3, 63, (2, 5, 2)).round(2)  # some leave the picture
        for segmentation in (
            [polygon.ravel().tolist() for polygon in points],
            {"size": [HEIGHT, WIDTH], "counts": counts},
            {"size": [HEIGHT, WIDTH], "counts": reference.encode(np.asfortranarray(~bitmap))["counts"].decode()},
        ):
            number = len(document["annotations"])
            document["annotations"].append(
                {
                    "id": 100 + number,
                    "image_id": image["id"],
                    "category_id": (7, 90)[number % 2],
                    "segmentation": segmentation,
                    "iscrowd": 0,
                }
            )
    test = {"images": [{**document["images"][0], "id": 3 + n, "file_name": f"t{n}.jpg"} for n in range(2)]}
    files.write_json(folder / "annotations/image_info_test2017.json", test)
    for place, of_place in ((pictures, document), ("test2017", test)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for image in of_place["images"]:
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / place / image["file_name"])
    return written(folder, document)


def written(folder: Path, document: dict) -> dict:
    files.write_json(folder / "annotations/instances_train2017.json", document)
    return document


@pytest.mark.parametrize("pictures", ["train2017", "images/train2017", "images", ""])
def test_masks_and_ids_are_those_that_pycocotools_reads(tmp_path, pictures):
    document = drawn(tmp_path, pictures)
    competition = read(tmp_path)
    assert dropped(competition) == {}
    made = coco.documents(competition, split.assign(competition, 3, 0, 0))
    source = COCO(tmp_path / "annotations/instances_train2017.json")
    seen = 0
    for subset in ("train", "val"):
        files.write_json(tmp_path / f"{subset}.json", made[subset])
        ours = COCO(tmp_path / f"{subset}.json")
        for image_id, image in ours.imgs.items():
            assert source.imgs[image_id]["file_name"] == image["ImageId"]
            assert (tmp_path / image["file_name"]).is_file()
            theirs = source.loadAnns(source.getAnnIds(imgIds=[image_id]))
            for one, other in zip(ours.loadAnns(ours.getAnnIds(imgIds=[image_id])), theirs, strict=True):
                np.testing.assert_array_equal(ours.annToMask(one), source.annToMask(other))
                assert one["category_id"] == other["category_id"]
                seen += 1
    assert seen == len(document["annotations"])
    assert made["train"]["categories"] == document["categories"]
    assert {image["id"] for image in made["test"]["images"]} == {3, 4}


def test_pictures_of_one_name_size_and_time_in_several_folders(tmp_path):
    """As uncompressed ones of several cameras, of a copy that kept or lost their times."""
    document = drawn(tmp_path, "images")
    for number, image in enumerate(document["images"]):
        name = f"{number // 12}/frames/{number % 12:06}.bmp"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(tmp_path / "images" / name)
        os.utime(tmp_path / "images" / name, ns=(1, 1))
        image["file_name"] = name
    written(tmp_path, document)
    with resizing.resizing(read(tmp_path), tmp_path / "resized", 64, 1) as competition:
        assert dropped(competition) == {}
    for number, image in enumerate(document["images"]):
        with Image.open(tmp_path / "resized/images" / image["file_name"]) as picture:
            assert abs(picture.getpixel((9, 9))[0] - number) <= 2  # JPEG


def test_names_may_begin_with_a_bracket(tmp_path):
    """Only in columns of run lengths and classes it is a sign of instances grouped into lists."""
    document = drawn(tmp_path, "images")
    for image in document["images"]:
        name = f"[set] {image['file_name']}"
        (tmp_path / "images" / image["file_name"]).rename(tmp_path / "images" / name)
        image["file_name"] = name
    written(tmp_path, document)
    competition = read(tmp_path)
    table = split.assign(competition, 3, 0, 0)
    files.write_csv(tmp_path / "split.csv", table)
    assert coco.read_split(tmp_path / "split.csv", competition)["subset"].tolist() == table["subset"].tolist()


def test_attributes_and_categories_without_gaps_are_not_needed(tmp_path):
    document = drawn(tmp_path)
    document["attributes"] = [{"id": 4, "name": "long"}]
    document["annotations"][0]["attribute_ids"] = [4]
    written(tmp_path, document)
    competition = read(tmp_path)
    assert competition.instances["attribute_ids"].tolist()[:2] == [(4,), ()]
    assert list(competition.sample) == ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]


def test_a_crowd_region_is_no_instance_and_is_passed_over(tmp_path):
    """As COCO's AP has it: a prediction within a crowd region counts neither for nor against."""
    document = drawn(tmp_path)
    size = {"size": [HEIGHT, WIDTH]}
    for image in document["images"]:
        everything = {**size, "counts": [0, HEIGHT * WIDTH]}
        crowd = {"image_id": image["id"], "category_id": 7, "segmentation": everything, "iscrowd": 1}
        document["annotations"].append({**crowd, "id": 1000 + image["id"]})
    written(tmp_path, document)
    competition = read(tmp_path)
    made = coco.documents(competition, split.assign(competition, 3, 0, 0))
    files.write_json(tmp_path / "val.json", made["val"])
    truth = documents.read(tmp_path / "val.json")
    assert len(truth["crowds"]) == len(truth["images"])
    assert len(truth["annotations"]) == 3 * len(truth["images"])
    assert len(COCO(tmp_path / "val.json").anns) == 4 * len(truth["images"])
    keys = ("image_id", "category_id", "segmentation", "bbox")
    right = [{key: row[key] for key in keys} | {"score": 0.5} for row in truth["annotations"]]
    within = [{**row, "category_id": 7, "score": 0.9} for row in right]
    # Twice the same, with a higher score: wrong but for the crowd around it.
    assert evaluate(truth, right + within)["segm"].stats[0] == 1
    assert evaluate({**truth, "crowds": []}, right + within)["segm"].stats[0] < 1


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 1, 5, 5]], "polygon that is no list of three points"),
        ([[1, 1, 5, 5, 9]], "polygon that is no list of three points"),
        ([[1, 1, 5, "5", 9, 9]], "a point that is no number"),
        ([[1, 1, 5, 5, 9, 1e9]], "leaves the picture by more than its size"),
        ([], "segmentation is empty"),
        ([[1, 1, 1, 1, 1, 1]], "segmentation is empty"),
        ({"size": [60, 40], "counts": [0, 2400]}, "of another size than its image"),
        ({"size": [40, 60], "counts": [0, 2399]}, "segmentation is no mask"),
        ({"size": [40, 60]}, "segmentation is no mask"),
        (None, "segmentation is no mask"),
    ],
)
def test_a_bad_mask_is_dropped_and_named(tmp_path, segmentation, reason):
    document = drawn(tmp_path)
    document["annotations"][5]["segmentation"] = segmentation
    written(tmp_path, document)
    competition = read(tmp_path)
    assert reason in competition.drops["reason"][0]
    assert competition.drops["place"].tolist() == [
        f"{tmp_path / 'annotations/instances_train2017.json'}: annotation 105"
    ]


@pytest.mark.parametrize("side", [0, -5, 10**6, 2**31, 2**62])
def test_a_size_that_no_picture_has_drops_the_annotations_of_its_image(tmp_path, side):
    document = drawn(tmp_path)
    document["images"][0]["height"] = side
    document["annotations"][1]["segmentation"]["size"] = [side, WIDTH]
    written(tmp_path, document)
    assert read(tmp_path).drops["place"].str.extract(r"(\d+)$")[0].tolist() == ["100", "101", "102"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("image_id", 4, "its picture is missing"),
        ("category_id", 8, "ClassId is not in the list of categories"),
        ("attribute_ids", [1], "AttributesIds has an id that is not in the list"),
    ],
)
def test_a_foreign_id_drops_its_annotation(tmp_path, key, value, reason):
    document = drawn(tmp_path)
    document["annotations"][5][key] = value
    written(tmp_path, document)
    (found,) = read(tmp_path).drops["reason"]
    assert found.startswith(reason)


def test_a_crowd_region_leaves_an_instance_of_the_same_mask(tmp_path):
    """Its flag may be true or false, as some programs write it."""
    document = drawn(tmp_path)
    for annotation in document["annotations"]:
        annotation["iscrowd"] = False
    document["annotations"].insert(0, {**document["annotations"][0], "id": 1, "iscrowd": True})
    written(tmp_path, document)
    competition = read(tmp_path)
    assert dropped(competition) == {}
    assert competition.instances["row"][competition.instances["crowd"]].tolist() == [1]
    assert len(competition.instances) == len(document["annotations"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, d: (p / "annotations/instances_train2017.json").unlink(), r"holds no instances\*train\*\.json"),
        (lambda p, d: (p / "annotations/image_info_test2017.json").unlink(), r"no image_info\*test\*\.json or .*val"),
        (lambda p, d: files.write_json(p / "annotations/instances_train.json", d), r"leave one of them there"),
        (lambda p, d: d["annotations"][0].pop("image_id"), r"annotations\[0\] has no 'image_id'"),
        (lambda p, d: d["images"][0].update(file_name="../x.jpg"), r"\.\./x\.jpg leads out of the folder"),
        (
            lambda p, d: d["images"][0].update(file_name="a/" + 400 * "x"),
            r"file_name x+\.\.\. is longer than a file's name",
        ),
        (lambda p, d: d["images"][0].update(file_name="a\r.jpg"), r"file_name 'a\\r\.jpg' has a line break"),
        (
            lambda p, d: Image.new("RGB", (HEIGHT, WIDTH)).save(p / "test2017/t1.jpg"),
            r"t1\.jpg has 60 x 40 .* says 40 x 60",
        ),
        (lambda p, d: d["annotations"][0].update(iscrowd="1"), r"\[0\]\.iscrowd should be 0 or 1, not '1'"),
        (lambda p, d: d["images"][0].update(height=2**70), r"\[0\]\.height should be a whole number, not 1180"),
        (lambda p, d: d["images"][0].update(id=3), r"has two images of the id 3"),
        (lambda p, d: d["images"][0].update(file_name="000000.jpg"), r"two images of the file_name 000000\.jpg"),
        (lambda p, d: d["images"][0].update(file_name=".//000000.jpg"), r"two images of the file_name 000000\.jpg"),
        (
            lambda p, d: (p / "train2017").rename(p / "elsewhere"),
            r"is in none of .*train2017.*; put the pictures there",
        ),
        (lambda p, d: d.update(annotations=[]), r"2017\.json has no annotations"),
        (
            lambda p, d: [annotation.update(iscrowd=1) for annotation in d["annotations"]],
            r"has no instance: no .* CVAT",
        ),
        (lambda p, d: d.update(categories=[]), r"has no categories"),
        (lambda p, d: d["categories"][0].update(id=90), r"categories names id 90 twice"),
        (lambda p, d: d.update(images=[]), r"has no images"),
        (lambda p, d: [image.update(height=9) for image in d["images"]], r"72 of 72 rows .* of another size than"),
    ],
)
def test_a_file_that_is_not_of_the_form_is_one_sentence(tmp_path, change, sentence):
    document = drawn(tmp_path)
    before = json.dumps(document)
    change(tmp_path, document)
    if json.dumps(document) != before:
        written(tmp_path, document)
    with pytest.raises(UserError, match=sentence) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_picture_of_both_files_is_named(tmp_path):
    document = drawn(tmp_path, "")
    test = {"images": [document["images"][3]]}
    files.write_json(tmp_path / "annotations/image_info_test2017.json", test)
    with pytest.raises(UserError, match=r"both name .*; a picture is for one of them"):
        read(tmp_path)


def test_what_a_folder_may_leave_out_and_hold(tmp_path):
    """Without iscrowd; with two attributes; the test pictures in the file's order; classes' first as the sample's."""
    document = drawn(tmp_path)
    document["attributes"] = [{"id": 4, "name": "long"}, {"id": 5, "name": "lined"}]
    document["annotations"][0]["attribute_ids"] = [4, 5]
    for annotation in document["annotations"]:
        del annotation["iscrowd"]
    written(tmp_path, document)
    competition = read(tmp_path)
    assert competition.instances["attribute_ids"][0] == (4, 5)
    assert competition.sample.values.tolist() == [["t0.jpg", "", "7", ""], ["t1.jpg", "", "7", ""]]
    assert len(competition.notes) == 1


@pytest.mark.parametrize(("x", "good"), [(-60, True), (-61, False), (120, True), (121, False)])
def test_a_polygon_may_leave_the_picture_by_its_size(tmp_path, x, good):
    document = drawn(tmp_path)
    document["annotations"][5]["segmentation"] = [[x, 1, 30, 5, 30, 30]]
    written(tmp_path, document)
    assert (dropped(read(tmp_path)) == {}) == good


def test_an_absolute_name_leads_out_of_the_folder(tmp_path):
    document = drawn(tmp_path)
    document["images"][0]["file_name"] = str(tmp_path / "train2017" / document["images"][0]["file_name"])
    written(tmp_path, document)
    with pytest.raises(UserError, match="leads out of the folder"):
        read(tmp_path)


def test_the_first_picture_may_be_missing(tmp_path):
    document = drawn(tmp_path)
    (tmp_path / "train2017" / document["images"][0]["file_name"]).unlink()
    assert dropped(read(tmp_path))["picture is missing or has no readable header"] == 1
