"""The CSV that Kaggle takes, and the check that finds every fault of any."""

import numpy as np
import pandas as pd
import pytest

from fashionseg import io, rle, submission
from fashionseg.claims import Rule
from fashionseg.errors import UserError
from test_tuning import PARAMS, prediction, rectangle

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


@pytest.fixture
def rows() -> pd.DataFrame:
    wide = np.zeros((200, 400), bool)
    wide[40:120, 80:200] = True
    predictions = [
        prediction(rectangle(10, 10, 40, 40), 0.8),
        {**prediction(rectangle(30, 10, 40, 40), 0.9), "attribute_ids": [115, 5]},
        prediction(wide, 0.7, category_id=23, image_id=2),
        prediction(rectangle(0, 0, 40, 40), 0.2),
    ]
    return submission.table(TEST, predictions, Rule(0.5, None), IDS, PARAMS)


def test_rows_are_the_competitions(rows, tmp_path):
    path = tmp_path / "submission.csv"
    io.write_csv(path, rows)
    read = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(read) == ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
    assert read["ImageId"].tolist() == [IDS[0], IDS[0], IDS[1], IDS[2]]
    assert read["AttributesIds"].tolist() == ["5,115", "", "", ""]
    assert read.iloc[3].tolist() == [IDS[2], "1 1", "23", ""]
    masks = rle.from_kaggle(read["EncodedPixels"], [100, 100, 50, 100], [100, 100, 100, 100])
    np.testing.assert_array_equal(masks.decode(0), rectangle(30, 10, 40, 40))
    np.testing.assert_array_equal(masks.decode(1), rectangle(10, 10, 20, 40))
    assert masks.boxes()[2].tolist() == [20, 10, 30, 20]  # at a quarter of the size: the grid's long side is 100
    assert submission.check(path, TEST, IDS, PARAMS) == []
    assert submission.counted(rows, TEST) == "3 claims on 2 of 3 images (top 2, shoe 1)"


def test_no_predictions_are_a_legal_submission(tmp_path):
    rows = submission.table(TEST, [], Rule(0.5, 1), IDS, PARAMS)
    io.write_csv(tmp_path / "s.csv", rows)
    assert submission.check(tmp_path / "s.csv", TEST, IDS, PARAMS) == []
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
        (f"{IDS[0]},1 5,1,\n{IDS[0]},3 1,1,", "line 3, EncodedPixels: shares pixels with another claim of class 1"),
    ],
)
def test_each_fault_is_found(tmp_path, line, fault):
    path = tmp_path / "s.csv"
    rest = [f"{image_id},1 1,23," for image_id in IDS]
    path.write_text("\n".join(["ImageId,EncodedPixels,ClassId,AttributesIds", line, *rest]) + "\n")
    faults = submission.check(path, TEST, IDS, PARAMS)
    assert [str(found)[: len(fault)] for found in faults] == [fault]


def test_overlap_of_different_classes_is_legal(tmp_path):
    path = tmp_path / "s.csv"
    rest = [f"{image_id},1 1,23," for image_id in IDS]
    path.write_text("\n".join(["ImageId,EncodedPixels,ClassId,AttributesIds", f"{IDS[0]},1 5,1,", *rest]))
    assert submission.check(path, TEST, IDS, PARAMS) == []


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\xef\xbb\xbfImageId,EncodedPixels,ClassId,AttributesIds\n", "line 1, header: a byte order mark"),
        (b"ImageId,EncodedPixels,ClassId\n", "line 1, header: ImageId,EncodedPixels,ClassId"),
        (b"", "line 1, header: nothing"),
    ],
)
def test_headers(tmp_path, raw, fault):
    (tmp_path / "s.csv").write_bytes(raw)
    assert str(submission.check(tmp_path / "s.csv", TEST, IDS, PARAMS)[0]).startswith(fault)


def test_every_image_must_appear(tmp_path):
    (tmp_path / "s.csv").write_text(f"ImageId,EncodedPixels,ClassId,AttributesIds\n{IDS[1]},1 1,23,\n")
    faults = submission.check(tmp_path / "s.csv", TEST, IDS, PARAMS)
    assert [fault.found for fault in faults] == [f"no row of {IDS[0]}", f"no row of {IDS[2]}"]


def test_a_sample_of_other_images_is_refused(tmp_path):
    (tmp_path / "sample.csv").write_text(f"ImageId,EncodedPixels\n{'e' * 32},1 1\n")
    order = submission.sample_ids(tmp_path / "sample.csv")
    with pytest.raises(UserError, match=r"sample_submission\.csv names e{32}"):
        submission.table(TEST, [], Rule(0.5, 1), order, PARAMS)
    with pytest.raises(UserError, match="gives no ImageIds"):
        submission.sample_ids(tmp_path / "none.csv")
