import numpy as np
import pytest

from fashionseg.data.labels import Labels

DOCUMENT = {
    "categories": [{"id": 3, "name": "shirt"}, {"id": 0, "name": "shoe"}, {"id": 45, "name": "tassel"}],
    "attributes": [{"id": 9, "name": "lace"}, {"id": 4, "name": "plain"}, {"id": 340, "name": "check"}],
}


def test_indices_follow_the_label_file_across_gaps():
    labels = Labels.of(DOCUMENT)
    classes = labels.classes([45, 3, 0, 3])
    np.testing.assert_array_equal(classes, [3, 1, 2, 1])
    assert [labels.category_ids[number - 1] for number in classes] == [45, 3, 0, 3]
    hot = labels.multi_hot([[4, 340], [], [9]])
    np.testing.assert_array_equal(hot, [[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert [[labels.attribute_ids[place] for place in np.flatnonzero(row)] for row in hot] == [[4, 340], [], [9]]


def test_plain_coco_has_no_attributes():
    labels = Labels.of({"categories": DOCUMENT["categories"]})
    assert labels.multi_hot([[], []]).shape == (2, 0)
    assert labels.classes([]).shape == (0,)
    with pytest.raises(KeyError):
        labels.classes([7])
