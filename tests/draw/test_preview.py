"""Previews of training batches."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fashionseg.__main__ import main
from fashionseg.core import rle
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Batches
from fashionseg.draw import preview


def test_a_sheet_of_nothing_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.jpg; `dvc repro preview` writes them"):
        preview.sheet(tmp_path, tmp_path / "sheet.jpg")


@pytest.mark.parametrize("count", [3, 9])
def test_each_picture_is_drawn_once_with_its_masks(tmp_path, count):
    (segmentation,) = rle.encode(np.pad(np.ones((20, 20), bool), 10)).to_coco()
    annotation = {"category_id": 7, "segmentation": segmentation, "bbox": [10, 10, 20, 20], "area": 400}
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in range(5)],
        "annotations": [{"id": i, "image_id": i, **annotation} for i in range(5)],
        "categories": [{"id": 7, "name": "shoe"}],
    }
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((40, 40, 3), 50 * number, np.uint8))
    batches = Batches(document, tmp_path, 64, batch_size=2, instances=3)
    assert preview.draw_batches(batches, count, tmp_path / "preview") == min(count, 5)
    drawn = [np.array(Image.open(file)) for file in sorted((tmp_path / "preview").iterdir())]
    assert len(drawn) == min(count, 5)
    for number, picture in enumerate(drawn):
        assert abs(picture[2, 2].astype(int) - 50 * number).max() < 12  # unchanged outside of the mask
        middle = picture[len(picture) // 2, len(picture) // 2].astype(int)
        assert abs(middle - 50 * number).max() > 12  # tinted by the mask

    main(["sheet", str(tmp_path / "preview"), str(tmp_path / "sheet.jpg")])
    sheet, cell = np.array(Image.open(tmp_path / "sheet.jpg")).astype(int), preview.CELL
    assert sheet.shape == (-(-len(drawn) // 4) * cell, 4 * cell, 3)
    for number in range(8):
        if number // 4 * cell < len(sheet):
            corner = sheet[number // 4 * cell + 20, number % 4 * cell + 20]
            assert abs(corner - (50 * number if number < len(drawn) else 255)).max() < 12
