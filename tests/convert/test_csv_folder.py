"""What the files of a competition tell about its kind, and what is said where they do not fit each other."""

import pytest

from competition_folder import HEADER, Folder, dropped
from fashionseg.convert.competition import read
from fashionseg.core.errors import UserError

SAMPLE = "sample_submission.csv"
OF_2019 = "ImageId,EncodedPixels,Height,Width,ClassId"


def without(folder: Folder, *columns: str) -> None:
    """train.csv without these columns."""
    names = HEADER.split(",")
    kept = [place for place, name in enumerate(names) if name not in columns]
    rows = [row.replace('"115,136"', "115;136").split(",") for row in folder.rows]
    folder.rows = [",".join(row[place] for place in kept).replace("115;136", '"115,136"') for row in rows]
    folder.write(",".join(names[place] for place in kept))


def sample(folder: Folder, header: str, *rows: str) -> None:
    (folder.path / SAMPLE).write_text("\n".join([header, *rows]) + "\n")


def in_2019(folder: Folder) -> None:
    """`class_attribute_attribute` in ClassId, names with their suffix."""
    parts = [row.replace('"115,136"', "115_136").split(",") for row in folder.rows]
    folder.rows = [
        f"{name}.jpg,{pixels},{height},{width},{'_'.join(filter(None, (number, attributes)))}"
        for name, pixels, height, width, number, attributes in parts
    ]
    folder.write(OF_2019)
    sample(folder, "ImageId,EncodedPixels,ClassId", "b.jpg,1 1,6", "a.jpg,1 1,6")


def one_class(folder: Folder) -> None:
    without(folder, "Height", "Width", "ClassId", "AttributesIds")
    sample(folder, "ImageId,EncodedPixels", "b,1 1", "a,1 1")
    (folder.path / "label_descriptions.json").unlink()


def test_2019_says_the_same_in_another_form(folder):
    expected = read(folder.path).instances
    in_2019(folder)
    competition = read(folder.path)
    assert competition.instances["image_id"].tolist() == [f"{name}.jpg" for name in expected["image_id"]]
    assert competition.instances.drop(columns="image_id").equals(expected.drop(columns="image_id"))
    assert competition.sample.values.tolist() == [["b.jpg", "1 1", "6"], ["a.jpg", "1 1", "6"]]
    assert dropped(competition) == {}
    assert competition.without([competition.train_images["image004.jpg"]]).drops["place"][0].endswith("image004.jpg")


def test_one_class_without_anything_else(folder):
    expected = read(folder.path).instances
    one_class(folder)
    folder.picture("train/nothing.jpg")
    folder.rows.append("nothing,")
    competition = read(folder.write("ImageId,EncodedPixels"))
    same = ["image_id", "counts", "area", "height", "width", "row"]
    assert competition.instances[same].equals(expected[same])
    assert competition.categories == [{"id": 1, "name": "object"}]
    assert set(competition.instances["class_id"]) == {1}
    assert competition.empty_images == ["nothing"]
    assert dropped(competition) == {}


@pytest.mark.parametrize("where", ["train", "sample", "nowhere"])
def test_a_picture_without_instances_is_submitted_as_the_files_have_it(folder, where):
    """An empty row if there is one in train.csv or in the sample, else a pixel of the first class in the sample."""
    if where == "train":
        folder.picture("train/nothing.jpg")
        folder.rows.append("nothing,,40,30,,")
        folder.write()
    pixels = "" if where == "sample" else "9 9"
    sample(folder, "ImageId,EncodedPixels,ClassId,AttributesIds", f"b,{pixels},6,115", "a,1 1,0,")
    competition = read(folder.path)
    filler = "1 1" if where == "nowhere" else ""
    assert competition.sample.values.tolist() == [["b", filler, "6", ""], ["a", filler, "6", ""]]
    sample(folder, "ImageId,EncodedPixels,ClassId,AttributesIds", f"b,{pixels},23.0,", "a,1 1,0,")
    assert read(folder.path).sample["ClassId"].tolist() == ["23", "23"]  # as in train.csv
    sample(folder, "ImageId,EncodedPixels,ClassId,AttributesIds", f"b,{pixels},99,", "a,1 1,0,")
    assert read(folder.path).sample["ClassId"].tolist() == ["0", "0"]  # 99 is no class: the first of the label file


def test_labels_of_the_rows_where_no_file_names_them(folder):
    (folder.path / "label_descriptions.json").unlink()
    competition = read(folder.path)
    assert competition.categories == [{"id": number, "name": str(number)} for number in (0, 6, 23)]
    assert competition.attributes == [{"id": number, "name": str(number)} for number in (115, 136, 340)]
    assert "are those of train.csv" in competition.notes[0]
    assert dropped(competition) == {}


def test_a_class_of_twenty_digits_drops_its_row_and_is_no_category(folder):
    (folder.path / "label_descriptions.json").unlink()
    folder.rows[5] = f"image002,1 3 81 4,40,30,{'9' * 20},"
    competition = read(folder.write())
    assert [category["id"] for category in competition.categories] == [0, 6, 23]
    assert dropped(competition) == {"ClassId is not in the list of categories": 1}


def test_rows_without_a_single_mask_are_one_sentence(folder):
    """`tune` called the empty submission the best there is."""
    sample(folder, "ImageId,EncodedPixels,ClassId,AttributesIds", "b,,,", "a,,,")
    folder.rows = [f"image{number:03},,,,," for number in range(30)]
    with pytest.raises(UserError, match=r"has no instance: no row or annotation has a mask; there is nothing to train"):
        read(folder.write())


@pytest.mark.parametrize("digits", [20, 5000])
def test_an_attribute_of_twenty_digits_drops_its_row_and_is_none(folder, digits):
    """JSON readers refuse it, and Python reads no number of thousands of digits."""
    (folder.path / "label_descriptions.json").unlink()
    folder.rows[5] = f'image002,1 3 81 4,40,30,0,"115,{"9" * digits}"'
    competition = read(folder.write())
    assert [attribute["id"] for attribute in competition.attributes] == [115, 136, 340]
    ((reason, count),) = dropped(competition).items()
    assert reason.startswith("AttributesIds are no whole numbers")
    assert count == 1


@pytest.mark.parametrize("name", ["shirt", ""])
def test_classes_without_a_number_want_a_label_file(folder, name):
    (folder.path / "label_descriptions.json").unlink()
    without(folder, "ClassId", "AttributesIds")
    header = "ImageId,EncodedPixels,Height,Width,ClassId"
    folder.rows = [f"{row},{name}" for row in folder.rows]
    folder.write(header)
    with pytest.raises(UserError, match=rf"train\.csv has no whole number in ClassId \(first: '{name}'\); number the"):
        read(folder.path)


@pytest.mark.parametrize("number", ["6__115", "6_", "_6", "6_x", "6-115"])
def test_a_class_id_that_is_not_of_the_form_drops_its_row(folder, number):
    in_2019(folder)
    folder.rows[5] = f"image002.jpg,1 3 81 4,40,30,{number}"
    competition = read(folder.write(OF_2019))
    assert dropped(competition) == {"ClassId is no whole number, nor one with attributes such as 6_115_136": 1}
    assert competition.drops["place"][0] == f"{folder.path / 'train.csv'}:7"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("image002,1200 2", r"EncodedPixels is no mask"),  # of 40 x 30 pixels
        ("image002,", r"EncodedPixels is empty, but not in another row of the picture"),
        ("nowhere,", "its picture is missing"),
    ],
)
def test_a_bad_row_of_one_class_is_dropped_and_named(folder, row, reason):
    one_class(folder)
    folder.rows[5] = row
    competition = read(folder.write("ImageId,EncodedPixels"))
    assert competition.drops["reason"][0].startswith(reason)
    assert competition.drops["place"][0].startswith(f"{folder.path / 'train.csv'}:7")
    assert len(competition.instances) == 59


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: without(f, "EncodedPixels"), r"train\.csv lacks the columns EncodedPixels; its header is"),
        (lambda f: without(f, "Width"), r"has the column Height alone; expected are both of Height and Width"),
        (lambda f: without(f, "ClassId"), r"names 3 categories, but .*train\.csv has no column ClassId"),
        (
            lambda f: [f.rows.__setitem__(5, "image002,1 3 81 4,40,30,6_115,136"), f.write()],
            r"mixes two forms: line 7 has attributes in ClassId, as in 2019, and in AttributesIds, as in 2020",
        ),
        (
            lambda f: [f.rows.__setitem__(5, f.rows[5].replace("image002", "image002.jpg")), f.write()],
            r"mixes two forms of ImageId: image002\.jpg has a suffix, image000 has none",
        ),
        (
            lambda f: [one_class(f), sample(f, "ImageId,EncodedPixels,ClassId", "b,1 1,1", "a,1 1,1")],
            r"asks for ClassId, but .*train\.csv has no such column; they are of two competitions",
        ),
        (lambda f: without(f, "AttributesIds"), r"asks for AttributesIds, but .*train\.csv has no such column"),
        (lambda f: sample(f, "ImageId,EncodedPixels", "b,1 1", "a,1 1"), r"no column ClassId, but .* has 3 classes"),
        (lambda f: sample(f, "ImageId,Predicted", "b,1 1", "a,1 1"), r"lacks the columns EncodedPixels"),
        (lambda f: sample(f, "ImageId,EncodedPixels,ClassId,Usage", "b,1 1,0,x"), r"has a column Usage; a submission"),
        (
            lambda f: sample(f, "ImageId,EncodedPixels,ClassId,row", "b,1 1,0,x"),
            r"csv has a column row, which has no",
        ),
        (lambda f: sample(f, "ImageId,EncodedPixels,ClassId", "b,1 1,0", "a.jpg,1 1,0"), r"a\.jpg has a suffix, b has"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(folder, change, sentence):
    change(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        read(folder.path)
    assert "\n" not in str(caught.value)
