"""Reading the competition's files: what is right comes through, what is wrong is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from competition_folder import dropped
from fashionseg.convert import competition as competition_module
from fashionseg.convert.competition import read
from fashionseg.core import files, tables
from fashionseg.core.errors import UserError
from fashionseg.submit import submission

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def test_reads_every_column(folder):
    competition = read(folder.path)
    first = competition.instances.iloc[0]
    mask = np.zeros((40, 30), np.uint8)
    mask[:3, 0] = mask[:4, 2] = 1
    assert first.to_dict() == {
        "image_id": "image000",
        "height": 40,
        "width": 30,
        "class_id": 0,
        "attribute_ids": (115, 136),
        "crowd": False,
        "row": 2,
        "counts": reference.encode(np.asfortranarray(mask))["counts"].decode(),
        "area": 7,
        "bbox": [0, 0, 3, 4],
    }
    assert competition.instances["attribute_ids"].tolist()[1:4] == [(), (115, 136), (340,)]  # one id alone stays text
    assert competition.instances["row"].tolist() == list(range(2, 62))
    assert [c["id"] for c in competition.categories] == [0, 6, 23]
    assert len(competition.train_images) == 30
    assert competition.sample["ImageId"].tolist() == ["b", "a"]
    assert competition.sizes[competition.test_images["a"]] == (25, 50)
    assert dropped(competition) == {}


def test_images_without_rows_are_kept(folder):
    folder.picture("train/lonely.jpg")
    competition = read(folder.write())
    assert competition.empty_images == ["lonely"]
    assert dropped(competition) == {}


def test_mark_line_ends_blank_lines_and_floats_are_tolerated(folder):
    expected = read(folder.path).instances
    folder.rows[3] = folder.rows[3].replace(",40,30,23,", ",40.0,30.0,23.0,")
    folder.write()
    file = folder.path / "train.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n,,,,,\r\n")
    assert read(folder.path).instances.equals(expected)


def test_ids_stay_text(folder):
    folder.picture("train/001.jpg")
    folder.rows = [f"001,{start} 3,40,30,0,{('', '115')[start % 2]}" for start in range(1, 31)]
    competition = read(folder.write())
    assert set(competition.instances["image_id"]) == {"001"}
    assert competition.instances["attribute_ids"].tolist()[:2] == [(115,), ()]
    folder.rows += ["", "001,1 3,40,30,6,NA"]
    competition = read(folder.write())
    assert competition.drops["place"].tolist() == [f"{folder.path / 'train.csv'}:33"]  # behind the blank line 32


BAD_ROWS = [
    ('image000,1 3 81 4,40,30,7,"115"', "ClassId is not in"),
    ("image000,1 3 81 4,40,30,shirt,", "ClassId is no whole number"),
    ("image000,1 3 81,40,30,0,", "EncodedPixels is no mask"),
    ("image000,1 3 x 4,40,30,0,", "EncodedPixels is no mask"),
    ("image000,1 3 1200 2,40,30,0,", "EncodedPixels is no mask"),
    ("image000,1 3 81 0,40,30,0,", "EncodedPixels is no mask"),
    ("image000,0 3 81 2,40,30,0,", "EncodedPixels is no mask"),
    ("image000,81 4 1 3,40,30,0,", "EncodedPixels is no mask"),
    ("image000,1 30 20 4,40,30,0,", "EncodedPixels is no mask"),
    ("image000,,40,30,0,", "EncodedPixels is empty"),
    ("image000,1 3 81 4,30,40,0,", "Height and Width differ"),
    ("image000,1 3 81 4,1e999,40,0,", "Height or Width is no whole number"),
    ("image000,1 3 81 4,,40,0,", "Height or Width is no whole number"),
    ("nowhere,1 3 81 4,40,30,0,", "its picture is missing"),
    (",1 3 81 4,40,30,0,", "its picture is missing"),
    ("image000,1 3 81 4,40,30,0,116", "AttributesIds has an id"),
    ("image000,1 3 81 4,40,30,0,115.0", "AttributesIds are no whole numbers"),
    ('image000,1 3 81 4,40,30,0,"[115, long]"', "AttributesIds are no whole numbers"),
    ("image000,1 3", "Height or Width is no whole number"),  # the file was cut
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_dropped_counted_and_named(folder, row, reason):
    folder.rows[5] = row
    competition = read(folder.write())
    assert len(competition.instances) == 59
    assert 7 not in set(competition.instances["row"])
    assert list(dropped(competition).values()) == [1]
    assert competition.drops["reason"][0].startswith(reason)
    place, _, detail = competition.drops["place"][0].partition(" ")
    assert place == f"{folder.path / 'train.csv'}:7"
    assert bool(detail) == (reason in ("EncodedPixels is no mask", "its picture is missing"))


def test_many_bad_rows_are_a_broken_file(folder):
    folder.rows[10] = folder.rows[10].replace("1 ", "x ", 1)
    for number in (20, 30, 40):
        folder.rows[number] = folder.rows[number].replace(",40,30,", ",40,31,")
    with pytest.raises(UserError, match=r"4 of 60 rows .* 3 of them because: Height and Width .*train\.csv:22\)"):
        read(folder.write())
    folder.rows[20] = folder.rows[21]
    assert sum(dropped(read(folder.write())).values()) == 4  # 5 % of 60, and a repeated one


def test_a_picture_without_header_is_dropped_with_its_rows(folder):
    (folder.path / "train/image003.jpg").write_bytes(b"")
    competition = read(folder.path)
    assert "image003" not in competition.train_images
    assert dropped(competition) == {
        "its picture is missing or has no readable header": 2,
        "picture is missing or has no readable header": 1,
    }
    picture = folder.path / "train/image003.jpg"
    assert competition.drops["place"].tolist()[:2] == [str(picture), f"{folder.path / 'train.csv'}:8 ({picture})"]


def test_exif_turns_are_ignored(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # show turned by a quarter
    folder.picture("train/image000.jpg", exif=exif)
    assert dropped(read(folder.path)) == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.write("ImageId,EncodedPixels,Height,Width,ClassId"), "is not a valid CSV"),
        (lambda f: f.write("ImageId,Pixels,Height,Width,ClassId,AttributesIds"), "lacks the columns EncodedPixels"),
        (lambda f: (f.path / "train.csv").write_text(""), "is empty"),
        (
            lambda f: (f.path / "train.csv").write_text("ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds\n"),
            "no rows",
        ),
        (lambda f: (f.path / "train.csv").write_bytes(b"ImageId,\xff\xfe"), "is not UTF-8 text"),
        (lambda f: (f.path / "train.csv").write_text('"ImageId,EncodedPixels\na,1 1\n'), "is not a valid CSV: .*EOF"),
        (
            lambda f: f.write("ImageId,EncodedPixels,Height,Width,ClassId,ClassId"),
            r"train\.csv has the column ClassId twice; leave one out",
        ),
        (
            lambda f: (f.path / "label_descriptions.json").write_text(
                json.dumps({"categories": [{"id": 0, "name": "shoe \ud83d"}]})
            ),
            r"the name of id 0 in categories, 'shoe \?', has half a character",
        ),
        (lambda f: (f.path / "train.csv").unlink(), r"train\.csv is missing"),
        (lambda f: [(f.path / "train.csv").unlink(), (f.path / "train.csv").mkdir()], r"train\.csv is a folder"),
        (lambda f: [path.unlink() for path in (f.path / "train").iterdir()], "train holds no picture"),
        (lambda f: (f.path / "label_descriptions.json").write_text("{"), "label_descriptions"),
        (lambda f: (f.path / "label_descriptions.json").write_text("[]"), r"it should be an object, not \[\]"),
        (
            lambda f: (f.path / "label_descriptions.json").write_text('{"categories": [{"id": "0", "name": "a"}]}'),
            r"label_descriptions\.json: categories\[0\]\.id should be a whole number, not '0'",
        ),
        (lambda f: (f.path / "label_descriptions.json").write_text('{"categories": []}'), "names no categories"),
        (
            lambda f: (f.path / "label_descriptions.json").write_text('{"categories": [], "attributes": null}'),
            "attributes should be a list, not None",
        ),
        (
            lambda f: (f.path / "label_descriptions.json").write_text(
                json.dumps({"categories": [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]})
            ),
            "id 0 twice",
        ),
        (lambda f: (f.path / "sample_submission.csv").write_text("Image\nb\n"), r"sample_submission\.csv lacks"),
        (lambda f: (f.path / "test/a.jpg").unlink(), r"test has no picture a, which .*sample_submission\.csv:3"),
        (
            lambda f: (f.path / "test/a.jpg").rename(f.path / "test/A.jpg"),
            r"test has no picture a, which .*sample_submission\.csv:3 names, but A; write both alike\.$",
        ),
        (lambda f: (f.path / "test/a.jpg").write_bytes(b""), "damaged or no picture"),
        (lambda f: [f.picture("train/Image000.jpg")], "Image000 and image000 differ in case"),
        (
            lambda f: [f.picture("train/image000.png")],
            r"holds image000\.jpg and image000\.png, both of ImageId image000; remove one",
        ),
    ],
)
def test_a_fault_of_a_whole_file_is_one_sentence(folder, change, sentence):
    change(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        read(folder.path)
    assert "\n" not in str(caught.value)


def test_an_id_in_two_cases_in_the_rows_alone(folder):
    folder.rows[5] = folder.rows[5].replace("image002", "IMAGE002")
    with pytest.raises(UserError, match=r"train\.csv:7 names IMAGE002, and the picture is image002; write both alike"):
        read(folder.write())


def test_rows_with_unquoted_lists(folder):
    folder.rows[5] = "image002,1 3 81 4,40,30,0,115,136"
    with pytest.raises(UserError, match=r"is not a valid CSV.*line 7.*quotes"):
        read(folder.write())
    folder.rows = ["image002,1 3 81 4,40,30,0,115,136"] * 5
    with pytest.raises(UserError, match=r"is not a valid CSV.*quotes"):
        read(folder.write())


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("ids", ["115,136", ""])
def test_another_separator_than_commas_is_named(folder, separator, name, ids):
    rows = ["ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds", "image002,1 3 81 4,40,30,0,"]
    text = "\n".join(row.replace(",", separator) + ids * bool(place) for place, row in enumerate(rows))
    (folder.path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=rf"train\.csv has {name} between its columns; save it with commas\."):
        read(folder.path)


def test_grouped_rows_are_explained(folder):
    folder.rows = ['image000,"[\'1 3\', \'5 6\']",40,30,"[0, 6]","[[], []]"']
    with pytest.raises(UserError, match="groups the instances"):
        read(folder.write())


@pytest.mark.parametrize("text", ["[115, 136]", "['115', '136']", "[115 136]", "(115, 136)", "115, 136"])
def test_attribute_ids_as_other_programs_print_lists(folder, text):
    expected = read(folder.path).instances
    folder.rows = [row.replace("115,136", text) + "[]" * row.endswith(",") for row in folder.rows]
    assert read(folder.write()).instances.equals(expected)


def test_repeated_rows_are_dropped_and_counted(folder):
    """They would halve the AP of a perfect network; attributes of rows of one mask are joined."""
    expected = read(folder.path).instances
    folder.rows *= 2
    competition = read(folder.write())
    assert competition.instances.equals(expected)
    assert dropped(competition) == {"repeats an earlier row": 60}
    assert competition.drops["place"][0] == f"{folder.path / 'train.csv'}:62"
    exploded = [row.replace('"115,136"', attribute) for row in folder.rows[:60] for attribute in ("136", "115")]
    folder.rows = list(dict.fromkeys(exploded))  # one row an attribute
    competition = read(folder.write())
    assert competition.instances.drop(columns="row").equals(expected.drop(columns="row"))
    assert dropped(competition) == {competition_module.JOINED: 30}
    assert competition.drops["place"][0] == f"{folder.path / 'train.csv'}:3"


def test_ids_that_look_like_nothing_are_ids_to_every_reader(folder):
    (folder.path / "test/a.jpg").rename(folder.path / "test/NA.jpg")
    folder.picture("test/null.jpg")
    sample = folder.path / "sample_submission.csv"
    sample.write_text("ImageId,EncodedPixels,ClassId,AttributesIds\nNA,1 1,0,\nb,1 1,0,\n,,,\nnull,1 1,0,\n")
    files.write_csv(folder.path / "ours.csv", read(folder.path).sample)
    assert submission.read_sample(folder.path / "ours.csv").images == ["NA", "b", "null"]


def test_without_takes_pictures_and_rows_out(folder):
    competition = read(folder.path)
    left = competition.without([competition.train_images["image004"]])
    assert len(left.instances) == 58
    assert dropped(left) == {"row of a picture that cannot be decoded": 2, "picture cannot be decoded": 1}
    picture = folder.path / "train/image004.jpg"
    assert left.drops["place"].tolist()[:2] == [str(picture), f"{folder.path / 'train.csv'}:10 ({picture})"]
    with pytest.raises(UserError, match="2 of 30 pictures"):
        competition.without([competition.train_images[name] for name in ("image004", "image005")])


@pytest.mark.parametrize(
    ("name", "rows", "train", "test"), [("ccp", 3909, 700, 99), ("imaterialist_slice", 74, 20, 19)]
)
def test_real_files(name, rows, train, test):
    if not (SHARED / name).is_dir():
        pytest.skip(f"shared data {name} is not here")
    competition = read(SHARED / name)
    assert (len(competition.instances), len(competition.train_images), len(competition.test_images)) == (
        rows,
        train,
        test,
    )
    assert dropped(competition) == {}
    assert (len(competition.categories), len(competition.attributes)) == (46, 294)


def test_rows_are_read_in_chunks_as_at_once(folder, monkeypatch):
    """Row numbers, empty lines, faults and copies are the same wherever a chunk ends."""
    folder.rows[3:3] = ["", folder.rows[0], "image001,1 3 81,40,30,0,", ",,,,,"]
    folder.write()
    expected = read(folder.path)
    assert {"repeats an earlier row", "EncodedPixels is no mask"} <= set(dropped(expected))
    for chunk in (1, 4, 7):
        monkeypatch.setattr(tables, "CHUNK", chunk)
        found = read(folder.path)
        assert found.instances.equals(expected.instances)
        assert found.drops.equals(expected.drops)


def test_test_pictures_that_differ_in_case_only(folder):
    folder.picture("test/A.jpg")
    (folder.path / "sample_submission.csv").write_text(
        "ImageId,EncodedPixels,ClassId,AttributesIds\na,1 1,0,\nA,1 1,0,\n"
    )
    with pytest.raises(UserError, match="A and a differ in case only"):
        read(folder.path)


def test_without_keeps_what_was_dropped_before(folder):
    folder.rows[5] = "nowhere,1 3 81 4,40,30,0,"
    competition = read(folder.write())
    left = competition.without([competition.train_images["image004"]])
    assert len(left.drops) == 1 + 1 + 2
    assert left.instances.index.tolist() == list(range(57))


def test_one_mask_of_two_classes_is_two_instances(folder):
    folder.rows[1] = folder.rows[0].replace(",0,", ",6,")
    competition = read(folder.write())
    assert dropped(competition) == {}
    folder.rows[1] = folder.rows[0].replace('"115,136"', '"115,137"')  # the second of two is unknown
    assert list(dropped(read(folder.write()))) == ["AttributesIds has an id that is not in the list of attributes"]
