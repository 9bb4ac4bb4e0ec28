"""The CSV that Kaggle accepts, and the check that finds every error."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fashionseg.__main__ import main
from fashionseg.core import files, rle
from fashionseg.core.errors import UserError
from fashionseg.submit import submission
from fashionseg.submit.postprocess import PostProcessing, Thresholds
from submission_scenes import METRIC, PARAMS, prediction, rectangle

IDS = ["b" * 32, "a" * 32, "c" * 32]
TEST = {
    "images": [
        {"id": 1, "file_name": f"test/{IDS[0]}.jpg", "height": 100, "width": 100},
        {"id": 2, "file_name": f"test/{IDS[1]}.jpg", "height": 200, "width": 400},
        {"id": 3, "file_name": f"test/{IDS[2]}.jpg", "height": 50, "width": 50},
    ],
    "categories": [{"id": 1, "name": "top, t-shirt"}, {"id": 23, "name": "shoe"}],
    "attributes": [{"id": 5, "name": "lined"}, {"id": 115, "name": "mini"}],
}


POST = PostProcessing(
    max_per_image=None,
    nms_iou=1.0,
    mask_overlap=1.0,
    min_area=4,
    score_thresholds=Thresholds(0.5),
    attribute_thresholds=Thresholds(0.3),
    attribute_pairs={"1": [5, 115]},
    selector=None,
    categories=[1, 23],
)
HEADER = "ImageId,EncodedPixels,ClassId,AttributesIds"
COLUMNS = ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
SAMPLE = submission.Sample(COLUMNS, IDS, {"EncodedPixels": "1 1", "ClassId": "23", "AttributesIds": ""})
FILLERS = [f"{image_id},1 1,23," for image_id in IDS]


def written(path, *lines, rest=FILLERS):
    path.write_text("\n".join([HEADER, *lines, *rest]) + "\n")
    return path


@pytest.fixture
def table() -> tuple[pd.DataFrame, int]:
    """Rows and the number of attributes dropped."""
    wide = np.zeros((200, 400), bool)
    wide[40:120, 80:200] = True
    predictions = [
        prediction(rectangle(10, 10, 40, 40), 0.8),
        {
            **prediction(rectangle(30, 10, 40, 40), 0.9),
            "attribute_ids": [115, 5],
            "attribute_scores": [0.9, 0.3],
        },
        {
            **prediction(wide, 0.7, category_id=23, image_id=2),
            "attribute_ids": [5, 115],
            "attribute_scores": [0.9, 0.2],  # no training instance of class 23 has 5; 115 is below its threshold
        },
        prediction(rectangle(60, 60, 40, 40), 0.2),
    ]
    return submission.table(TEST, predictions, POST, SAMPLE, PARAMS)


@pytest.fixture
def rows(table) -> pd.DataFrame:
    return table[0]


def test_rows_have_the_competitions_format(table, tmp_path):
    rows, dropped = table
    path = tmp_path / "submission.csv"
    files.write_csv(path, rows)
    read = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(read) == ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
    assert read["ImageId"].tolist() == [IDS[0], IDS[0], IDS[1], IDS[2]]
    assert read["AttributesIds"].tolist() == ["5,115", "", "", ""]
    assert read.iloc[3].tolist() == [IDS[2], "1 1", "23", ""]
    masks = rle.from_kaggle(read["EncodedPixels"], [100, 100, 50, 100], [100, 100, 100, 100])
    np.testing.assert_array_equal(masks.decode(0), rectangle(30, 10, 40, 40))
    np.testing.assert_array_equal(masks.decode(1), rectangle(10, 10, 20, 40))
    assert masks.boxes()[2].tolist() == [20, 10, 30, 20]  # at a quarter of the size: the grid's long side is 100
    assert submission.check(path, TEST, SAMPLE, PARAMS) == []
    assert submission.summary(rows, dropped, TEST, SAMPLE) == (
        "3 instances submitted on 2 of 3 images (top 2, shoe 1), "
        "1 attributes dropped that no training instance of the class has"
    )


def test_without_predictions_the_submission_is_valid(tmp_path):
    rows, _ = submission.table(TEST, [], POST, SAMPLE, PARAMS)
    files.write_csv(tmp_path / "s.csv", rows)
    assert submission.check(tmp_path / "s.csv", TEST, SAMPLE, PARAMS) == []
    assert rows["ImageId"].tolist() == IDS


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f"{IDS[0]},1 2,99,", "line 2, ClassId: '99'; expected the id of a category"),
        (f"{IDS[0]},1 2,x,", "line 2, ClassId: 'x'"),
        (f'{IDS[0]},1 2,1,"115,5"', "line 2, AttributesIds: '115,5'; expected each id once, ascending"),
        (f'{IDS[0]},1 2,1,"5,5"', "line 2, AttributesIds: '5,5'"),
        (f"{IDS[0]},1 2,1,7", "line 2, AttributesIds: '7'; expected ids of attributes"),
        (f"{IDS[0]},1 2 9,1,", "line 2, EncodedPixels: an odd number of values, 3"),
        (f"{IDS[0]},9999 3,1,", "line 2, EncodedPixels: the run `9999 3` goes past the last pixel 10000"),
        (f"{IDS[0]},5 0,1,", "line 2, EncodedPixels: the run at 5 has length 0"),
        (f"{IDS[0]},5 4 7 2,1,", "line 2, EncodedPixels: the run at 7 overlaps the one before"),
        (f"{IDS[0]},,1,", "line 2, EncodedPixels: no runs"),
        (f"{'d' * 32},1 2,1,", f"line 2, ImageId: '{'d' * 32}'"),
        (f"{IDS[0].upper()},1 2,1,", f"line 2, ImageId: '{IDS[0].upper()}'"),
        (f"{IDS[0]},1 2,1", "line 2, row: 3 fields; expected 4"),
        (f"{IDS[0]},1 5,1,\n{IDS[0]},3 1,1,", "line 3, EncodedPixels: shares pixels with another instance of class 1"),
        (
            f"{IDS[0]},5 4,1,\n{IDS[0]},5 4,1,5",
            "line 3, row: the image, class and pixels of line 2",
        ),
        (f'{IDS[0]},1 2,"1",', 'line 2, ClassId: "1" in quotes'),
        (f"{IDS[0]},1 2,1.0,", "line 2, ClassId: '1.0'"),
        (f"{IDS[0]},1 2 3 1,1,\r", "line 2, row: a line that ends in CR; expected lines that end in LF alone"),
    ],
)
def test_each_error_is_found(tmp_path, line, fault):
    faults = submission.check(written(tmp_path / "s.csv", line), TEST, SAMPLE, PARAMS)
    assert [str(found)[: len(fault)] for found in faults] == [fault]


def test_all_errors_are_listed(tmp_path):
    lines = [f"{IDS[0]},1 2,99,7", f"{IDS[0]},9 9 1 1,1,", "x,1 1,1,", f"{IDS[0]},1 1,1"]
    faults = submission.check(written(tmp_path / "s.csv", *lines, rest=FILLERS[:2]), TEST, SAMPLE, PARAMS)
    assert [(fault.line, fault.column) for fault in faults] == [
        (2, "ClassId"),
        (2, "AttributesIds"),
        (3, "EncodedPixels"),
        (4, "ImageId"),
        (5, "row"),
        (8, "ImageId"),
    ]


def test_gzip_files(tmp_path):
    plain = written(tmp_path / "s.csv", f"{IDS[0]},1 2,99,")
    zipped = tmp_path / "s.csv.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert submission.check(zipped, TEST, SAMPLE, PARAMS) == submission.check(plain, TEST, SAMPLE, PARAMS) != []
    zipped.write_bytes(zipped.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"s\.csv\.gz cannot be read"):
        submission.check(zipped, TEST, SAMPLE, PARAMS)
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        submission.check(tmp_path / "none.csv", TEST, SAMPLE, PARAMS)


def test_rows_follow_the_order_of_the_sample(tmp_path):
    path = written(tmp_path / "s.csv", rest=FILLERS[::-1])
    (fault,) = submission.check(path, TEST, SAMPLE, PARAMS)
    assert str(fault).startswith(f"line 3, ImageId: {IDS[1]} after {IDS[2]}; expected the images in the order of")
    assert submission.check(path, TEST, None, PARAMS) == []


def test_classes_may_overlap_unless_params_forbid_it(tmp_path):
    path = written(tmp_path / "s.csv", f"{IDS[0]},1 5,1,")
    assert submission.check(path, TEST, SAMPLE, PARAMS) == []
    (fault,) = submission.check(path, TEST, SAMPLE, replace(PARAMS, overlap="any"))
    assert str(fault).startswith(
        "line 3, EncodedPixels: shares pixels with another instance; expected no overlap within"
    )


def test_an_invalid_submission_does_not_replace_a_valid_one(tmp_path, rows):
    path = tmp_path / "s.csv"
    submission.write(path, rows, TEST, SAMPLE, PARAMS)
    good = path.read_bytes()
    with pytest.raises(UserError, match=r"s\.csv would have 1 errors, the first: line 2, ClassId: '99'.*not written"):
        submission.write(path, rows.assign(ClassId=[99, *rows["ClassId"][1:]]), TEST, SAMPLE, PARAMS)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


def test_an_overlap_is_found_across_batches_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "BATCH", 1)
    lines = [f"{IDS[1]},1 5,1,", f"{IDS[1]},3 1,1,"]
    path = written(tmp_path / "s.csv", FILLERS[0], *lines, rest=FILLERS[1:])
    assert [fault.line for fault in submission.check(path, TEST, SAMPLE, PARAMS)] == [4]


def test_the_score_of_a_file(tmp_path, rows):
    """The submitted instances as truth, with other attributes of one of them, and one more instance."""
    path = tmp_path / "s.csv"
    files.write_csv(path, rows)
    truth = [
        {**prediction(rectangle(30, 10, 40, 40), 1.0), "attribute_ids": [5, 115]},
        {**prediction(rectangle(10, 10, 20, 40), 1.0), "attribute_ids": [5]},
        prediction(rectangle(0, 0, 9, 9, side=50), 1.0, image_id=3),
    ]
    answers = {**TEST, "annotations": truth}
    assert submission.score_file(path, answers, METRIC, PARAMS) == pytest.approx((1 / 2 + 0 + 0) / 3)
    iou_alone = replace(METRIC, f1="none")
    assert submission.score_file(path, answers, iou_alone, PARAMS) == pytest.approx((1 + 0 + 0) / 3)


def test_compare_counts_by_class(tmp_path):
    first = written(tmp_path / "a.csv", f"{IDS[0]},5 4,1,", f"{IDS[0]},20 4,1,5", f"{IDS[0]},40 4,1,")
    second = written(tmp_path / "b.csv", f"{IDS[0]},5 4,1,5", f"{IDS[0]},20 4,1,5", f"{IDS[0]},9 9,23,")
    found = submission.compare(first, second, TEST).set_index("class")
    assert found.loc["top"].tolist() == [1, 1, 1, 0]
    assert found.loc["shoe"].tolist() == [3, 0, 0, 1]
    assert found.loc["all"].tolist() == [4, 1, 1, 1]
    assert submission.compare(first, first, TEST)["class"].tolist() == ["all"]
    cut = written(tmp_path / "c.csv", f"{IDS[0]},5 2 7 2,1,", f"{IDS[0]},20 4,1,5", f"{IDS[0]},40 4,1,")
    assert submission.compare(first, cut, TEST)["class"].tolist() == ["all"]  # the same pixels
    twice = written(tmp_path / "twice.csv", f"{IDS[0]},5 4,1,", f"{IDS[0]},20 4,1,5", *2 * [f"{IDS[0]},40 4,1,"])
    assert submission.compare(first, twice, TEST).set_index("class").loc["top"].tolist() == [3, 0, 0, 1]
    with pytest.raises(UserError, match=r"d\.csv is not a submission: line 2, row: 3 fields"):
        submission.compare(first, written(tmp_path / "d.csv", f"{IDS[0]},5 4,1"), TEST)
    second.write_text("a,b\n")
    with pytest.raises(UserError, match=r"b\.csv is not a submission: line 1, header: a,b"):
        submission.compare(first, second, TEST)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[2] / "params.yaml").read_text())
    wide = FILLERS[0].replace("1 1", "99999999 1")  # beyond the real grid of 1024 pixels
    files.write_json("test.json", {**TEST, "annotations": []})
    files.write_json("answers.json", {**TEST, "annotations": [prediction(rectangle(0, 0, 9, 9), 1.0)]})
    main(["check", str(written(tmp_path / "s.csv")), "test.json"])
    assert capsys.readouterr().out == f"{tmp_path}/s.csv is valid\n"
    main(["check", "s.csv", "answers.json"])
    assert "precision 0.00000 (average: image, f1: set)" in capsys.readouterr().out
    main(["compare-submissions", "s.csv", "s.csv", "test.json"])
    with pytest.raises(UserError, match=r"^name two submissions: make compare-submissions FIRST=a"):
        main(["compare-submissions", "s.csv", "", "test.json"])
    with pytest.raises(UserError, match="1 errors"):
        main(["check", str(written(tmp_path / "w.csv", rest=[wide, *FILLERS[1:]])), "test.json"])
    assert "line 2, EncodedPixels" in capsys.readouterr().out
    many = [f"{IDS[0]},{place} 1,99," for place in range(1, 200, 2)]
    with pytest.raises(UserError, match="100 errors"):
        main(["check", str(written(tmp_path / "m.csv", *many)), "test.json"])
    assert capsys.readouterr().out.count("ClassId: '99'") == 100  # all of them
    with pytest.raises(SystemExit):
        main(["chekc"])
    assert "invalid choice: 'chekc'" in capsys.readouterr().err
    for wrong in ([], {"images": []}):
        files.write_json("wrong.json", wrong)
        with pytest.raises(UserError, match=r"wrong\.json is not a COCO document with images, categories, attributes"):
            main(["check", "s.csv", "wrong.json"])
    polygon = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]], "area": 40, "bbox": [0, 0, 9, 9]}
    files.write_json("polygons.json", {**files.read_json("answers.json"), "annotations": [polygon]})
    with pytest.raises(UserError, match=r"polygons\.json: annotations\[0\]\.segmentation .* use one such as data/coco"):
        main(["check", "s.csv", "polygons.json"])
    answers = files.read_json("answers.json")
    damaged = [{**row, "segmentation": {**row["segmentation"], "counts": "0"}} for row in answers["annotations"]]
    for changed, sentence in (
        ({"annotations": damaged}, r"annotations\[0\]\.segmentation is no mask"),
        ({"categories": []}, "it has no categories"),
        ({"categories": [3]}, r"categories\[0\] should be an object"),
    ):
        files.write_json("wrong.json", answers | changed)
        with pytest.raises(UserError, match=rf"wrong\.json: {sentence}.*; use one such as data/coco/val\.json"):
            main(["check", "s.csv", "wrong.json"])
    with pytest.raises(UserError, match="is not valid JSON"):
        main(["check", "s.csv", str(tmp_path)])


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\xef\xbb\xbfImageId,EncodedPixels,ClassId,AttributesIds\nx,1 1,1,\n", "line 1, header: a byte order mark"),
        (b"ImageId,EncodedPixels,ClassId\n", "line 1, header: ImageId,EncodedPixels,ClassId"),
        (b"", "line 1, header: nothing"),
        (b"PK\x03\x04\x14\x00\x00", "line 1, header: not text"),
        (b"a" * 500, f"line 1, header: {'a' * 100}; expected"),
    ],
)
def test_headers(tmp_path, raw, fault):
    (tmp_path / "s.csv").write_bytes(raw)
    assert str(submission.check(tmp_path / "s.csv", TEST, SAMPLE, PARAMS)[0]).startswith(fault)


def test_every_image_must_appear(tmp_path):
    (tmp_path / "s.csv").write_text(f"ImageId,EncodedPixels,ClassId,AttributesIds\n{IDS[1]},1 1,23,\n")
    faults = submission.check(tmp_path / "s.csv", TEST, SAMPLE, PARAMS)
    assert [fault.found for fault in faults] == [f"no row of {IDS[0]}", f"no row of {IDS[2]}"]


def test_a_sample_of_other_images_is_an_error(tmp_path):
    (tmp_path / "sample.csv").write_text(f"ImageId,EncodedPixels\n{'e' * 32},1 1\n")
    sample = submission.read_sample(tmp_path / "sample.csv")
    with pytest.raises(UserError, match=r"sample_submission\.csv names e{32}, which the COCO document lacks"):
        submission.table(TEST, [], POST, sample, PARAMS)
    with pytest.raises(UserError, match=r"none\.csv is missing"):
        submission.read_sample(tmp_path / "none.csv")


def test_the_form_is_that_of_the_sample(tmp_path):
    """Columns and order of the sample, the class of its filler row, or an empty row where it has one."""
    predictions = [prediction(rectangle(10, 10, 40, 40), 0.8)]
    one_class = {**TEST, "categories": [{"id": 1, "name": "object"}], "attributes": []}
    post = replace(POST, attribute_pairs={}, categories=[1])
    for text, expected in (
        ("ImageId,EncodedPixels\n{},\n{},\n{},\n", ["{},", "{},"]),
        ("ImageId,EncodedPixels,ClassId\n{},1 1,1\n{},1 1,1\n{},1 1,1\n", ["{},1 1,1", "{},1 1,1"]),
        ("EncodedPixels,ImageId\n1 1,{}\n1 1,{}\n1 1,{}\n", ["1 1,{}", "1 1,{}"]),
    ):
        (tmp_path / "sample.csv").write_text(text.format(*IDS))
        sample = submission.read_sample(tmp_path / "sample.csv")
        rows, dropped = submission.table(one_class, predictions, post, sample, PARAMS)
        submission.write(tmp_path / "s.csv", rows, one_class, sample, PARAMS)
        lines = (tmp_path / "s.csv").read_text().splitlines()
        assert lines[0] == text.partition("\n")[0]
        assert lines[2:] == [line.format(name) for line, name in zip(expected, IDS[1:], strict=True)]
        assert submission.summary(rows, dropped, one_class, sample).startswith(
            "1 instances submitted on 1 of 3 images (object 1"
        )
        fault = submission.check(written(tmp_path / "other.csv"), one_class, sample, PARAMS)[0]
        assert str(fault) == f"line 1, header: {HEADER}; expected {lines[0]}"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([f"{IDS[0]},", f"{IDS[0]},1 2"], "line 2, EncodedPixels: no runs, but the image has other rows"),
        ([f"{IDS[0]},99999 2"], "line 2, EncodedPixels: the run `99999 2` goes past the last pixel 10000"),
        ([f"{IDS[0]},1 5", f"{IDS[0]},3 1"], "line 3, EncodedPixels: shares pixels with another instance"),
    ],
)
def test_faults_of_one_class(tmp_path, lines, found):
    sample = submission.Sample(["ImageId", "EncodedPixels"], IDS, {"EncodedPixels": ""})
    rest = [f"{name}," for name in IDS[1:]]
    (tmp_path / "s.csv").write_text("\n".join(["ImageId,EncodedPixels", *lines, *rest]) + "\n")
    for form in (sample, None):
        (fault,) = submission.check(tmp_path / "s.csv", TEST, form, PARAMS)
        assert str(fault).startswith(found)


def test_an_empty_row_is_right_where_there_is_nothing(tmp_path):
    (tmp_path / "s.csv").write_text("ImageId,EncodedPixels\n" + "".join(f"{name},\n" for name in IDS))
    answers = {**TEST, "annotations": [prediction(rectangle(0, 0, 9, 9, side=50), 1.0, image_id=3)]}
    assert submission.score_file(tmp_path / "s.csv", answers, METRIC, PARAMS) == pytest.approx(2 / 3)


def test_every_image_must_appear_also_without_a_sample(tmp_path):
    path = written(tmp_path / "s.csv", rest=FILLERS[:2])
    assert [fault.found for fault in submission.check(path, TEST, None, PARAMS)] == [f"no row of {IDS[2]}"]


def test_the_score_of_a_wide_picture(tmp_path, rows):
    path = tmp_path / "s.csv"
    files.write_csv(path, rows)
    wide = np.zeros((200, 400), bool)
    wide[40:120, 80:200] = True
    answers = {**TEST, "annotations": [prediction(wide, 1.0, category_id=23, image_id=2)]}
    assert submission.score_file(path, answers, METRIC, PARAMS) == pytest.approx(1 / 3)


def test_lines_that_end_in_cr_alone(tmp_path):
    path = written(tmp_path / "s.csv")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert [(fault.line, fault.column) for fault in submission.check(path, TEST, SAMPLE, PARAMS)] == [(1, "row")]


def test_a_mask_of_many_runs(tmp_path):
    """More characters than csv takes by itself."""
    pixels = " ".join(f"{place} 1" for place in range(1, 60_000, 2))
    path = written(tmp_path / "s.csv", f"{IDS[0]},{pixels},1,")
    assert submission.check(path, TEST, SAMPLE, replace(PARAMS, longest_side=1024)) == []


def test_runs_of_two_instances_may_touch(tmp_path):
    path = written(tmp_path / "s.csv", f"{IDS[0]},1 5,1,", f"{IDS[0]},6 3,1,")
    assert submission.check(path, TEST, SAMPLE, PARAMS) == []


def test_every_overlap_is_named_by_its_line(tmp_path):
    """Behind a row that is no mask, and of a third instance beyond the end of the second."""
    lines = [f"{IDS[0]},9 9 1 1,1,", f"{IDS[0]},1 90,1,", f"{IDS[0]},5 2,1,", f"{IDS[0]},50 2,1,"]
    faults = submission.check(written(tmp_path / "s.csv", *lines), TEST, SAMPLE, PARAMS)
    assert [fault.line for fault in faults] == [2, 4, 5]


def test_a_crowd_region_is_no_truth(tmp_path):
    crowd = {**prediction(rectangle(0, 0, 9, 9), 1.0), "iscrowd": 1}
    files.write_json(tmp_path / "answers.json", {**TEST, "annotations": [crowd]})
    assert submission.read_document(tmp_path / "answers.json")["annotations"] == []


def test_pixels_that_are_no_runs_differ(tmp_path):
    first, second = (written(tmp_path / f"{x}.csv", f"{IDS[0]},5 {x},1,") for x in "xy")
    assert submission.compare(first, second, TEST).set_index("class").loc["top"].tolist() == [0, 0, 1, 1]


def test_images_are_named_as_in_the_tables(tmp_path):
    """ImageId with its suffix, as in 2019."""
    pairs = zip(TEST["images"], IDS, strict=True)
    document = {**TEST, "images": [{**image, "ImageId": f"{name}.jpg"} for image, name in pairs]}
    path = written(tmp_path / "s.csv", rest=[line.replace(",", ".jpg,", 1) for line in FILLERS])
    assert submission.check(path, document, None, PARAMS) == []
