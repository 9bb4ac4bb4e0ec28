"""JSON that other programs or hands have been at is one sentence, whatever it holds."""

import copy
import json

import numpy as np
import pytest

from fashionseg.core import documents, schema
from fashionseg.core.errors import UserError
from json_places import ODD, changed, places

RUNS = {"size": [4, 3], "counts": "0<"}  # all of 4 x 3 pixels
DOCUMENT = {
    "info": {},
    "images": [{"id": 1, "file_name": "train/a.jpg", "height": 4, "width": 3}],
    "categories": [{"id": 6, "name": "pants", "supercategory": "lowerbody"}],
    "attributes": [{"id": 115, "name": "long"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 6,
            "segmentation": RUNS,
            "area": 1,
            "bbox": [0, 0, 1.0, 1],
            "attribute_ids": [115],
        }
    ],
}


def written(path, value) -> str:
    path.write_text(json.dumps(value))
    return path


def test_what_fits_is_read(tmp_path):
    path = written(tmp_path / "a.json", DOCUMENT)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors begin a file
    assert documents.read(path) == DOCUMENT
    bare = {"images": [], "categories": []}
    assert documents.read(written(path, bare)) == bare


def test_a_supercategory_may_be_null(tmp_path):
    """As some converters write it."""
    document = changed(DOCUMENT, ("categories", 0, "supercategory"), None)
    assert documents.read(written(tmp_path / "a.json", document)) == document


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        ((), None, r"a\.json: it should be an object, not None; get it again"),
        (("images",), {}, r"images should be a list, not \{\}"),
        (("images", 0, "height"), True, r"images\[0\]\.height should be a whole number, not True"),
        (("categories", 0, "name"), None, r"categories\[0\]\.name should be text, not None"),
        (("attributes",), None, "attributes should be a list, not None"),
        (("annotations", 0, "bbox"), [1, 2, 3], r"annotations\[0\]\.bbox should be a list of 4, not \[1, 2, 3\]"),
        (
            ("annotations", 0, "segmentation", "counts"),
            [1, 2],
            r"annotations\[0\]\.segmentation\.counts should be text",
        ),
        (("annotations", 0, "segmentation", "counts"), "0;", r"annotations\[0\]\.segmentation is no mask: .*sum is 11"),
        (("annotations", 0, "segmentation", "size"), [3, 4], r"size is \[3, 4\], that of its image is \[4, 3\]"),
        (("annotations", 0, "image_id"), 9, r"annotations\[0\]\.image_id has 9, which the document lacks"),
        (("annotations", 0, "attribute_ids"), [115, 7], r"annotations\[0\]\.attribute_ids has 7, which"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, keys, value, sentence):
    with pytest.raises(UserError, match=sentence):
        documents.read(written(tmp_path / "a.json", changed(DOCUMENT, keys, value)))


def test_what_is_missing_is_named(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    del document["annotations"][0]["segmentation"]
    with pytest.raises(UserError, match=r"annotations\[0\] has no 'segmentation'"):
        documents.read(written(tmp_path / "a.json", document))
    with pytest.raises(UserError, match=r"\[0\]\.score should be a number, not 'high'"):
        prediction = {**DOCUMENT["annotations"][0], "score": "high"}
        documents.read(written(tmp_path / "a.json", [prediction]), documents.PREDICTIONS)


@pytest.mark.parametrize(
    "raw", ['{"a": "ü"}'.encode("latin-1"), '{"a": 1}'.encode("utf-16"), b"[" * 200_000, b"1" * 9000, b'{"a": NaN}']
)
def test_no_json_is_one_sentence(tmp_path, raw):
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        documents.read(tmp_path / "a.json")


def test_names_to_show_tell_classes_apart():
    assert documents.short(["shirt, blouse", "top, t-shirt, sweatshirt", "hat"]) == ["shirt", "top", "hat"]
    assert documents.short(["top, long", "top, short", "hat", "hat"]) == ["top, long", "top, short", "hat", "hat (2)"]
    labels = {"categories": [{"id": 7, "name": "top, long"}, {"id": 2, "name": "top, short"}]}
    assert documents.names_of(labels) == {7: "top, long", 2: "top, short"}
    assert documents.short([]) == []


def test_null_and_any_keys_where_a_form_has_them():
    form = {"most": schema.Nullable(int), "own": {str: float}}
    for value in ({"most": None, "own": {"a": 1, "b?": 0.5}}, {"most": 3, "own": {}}):
        assert schema.mismatch(value, form) == ""
    assert schema.mismatch({"most": "3", "own": {}}, form) == "most should be a whole number, not '3'"
    for number in (None, float("nan"), float("inf"), True):
        assert schema.mismatch({"most": 3, "own": {"a": number}}, form).startswith("own.a should be a number, not")


def test_any_value_in_any_place_is_read_or_refused_in_one_sentence(tmp_path):
    random = np.random.default_rng(0)
    for keys in places(DOCUMENT):
        document = changed(DOCUMENT, keys, ODD[random.integers(len(ODD))])
        try:
            documents.read(written(tmp_path / "a.json", document))
        except UserError as error:
            refused = str(error)
    assert "\n" not in refused
