"""The drawn competition laid out as others are. Each takes the folder that `draw` wrote and its truth, changes the
folder and returns the truth as it is there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fashionseg.core import files, rle
from fashionseg_demo.competition import draw_competition

Truth = pd.DataFrame  # ImageId, EncodedPixels at the original size, Height, Width, ClassId, AttributesIds


def draw(folder: Path, images: int, side: int = 64) -> Truth:
    """The competition of 2020 with small pictures; the last fifth of the training pictures are the test pictures, whose
    truth is returned."""
    draw_competition(folder, seed=3, images=images)
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()
    rows = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    masks = rle.from_kaggle(rows["EncodedPixels"].tolist(), rows["Height"].astype(int), rows["Width"].astype(int))
    for path in sorted((folder / "train").iterdir()):
        picture = Image.open(path)
        picture.thumbnail((side, side))
        picture.save(path)
        of_picture = (rows["ImageId"] == path.stem).to_numpy()
        rows.loc[of_picture, ["Height", "Width"]] = str(picture.height), str(picture.width)
    small = masks.resize(rows["Height"].astype(int).to_numpy(), rows["Width"].astype(int).to_numpy())
    rows["EncodedPixels"] = small.to_kaggle()
    rows = rows[small.areas() > 20]
    test = sorted(rows["ImageId"].unique())[-images // 5 :]
    for name in test:
        (folder / f"train/{name}.jpg").rename(folder / f"test/{name}.jpg")
    held = rows["ImageId"].isin(test)
    files.write_csv(folder / "train.csv", rows[~held])
    sample = {"ImageId": test, "EncodedPixels": "1 1", "ClassId": "23", "AttributesIds": ""}
    files.write_csv(folder / "sample_submission.csv", pd.DataFrame(sample))
    return rows[held].reset_index(drop=True)


def of_2019(folder: Path, truth: Truth) -> Truth:
    """ImageId with its suffix, attributes in ClassId; a submission has no attributes."""
    rows = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    rows["ClassId"] = (rows["ClassId"] + "_" + rows["AttributesIds"].str.replace(",", "_")).str.removesuffix("_")
    files.write_csv(folder / "train.csv", _with_suffix(rows.drop(columns="AttributesIds")))
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str)[["ImageId", "EncodedPixels", "ClassId"]]
    files.write_csv(folder / "sample_submission.csv", _with_suffix(sample))
    return _with_suffix(truth)


def _with_suffix(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(ImageId=rows["ImageId"] + ".jpg")


def one_class(folder: Path, truth: Truth) -> Truth:
    """ImageId and EncodedPixels alone, PNG, no label file; two pictures on each side have no instances."""
    for path in folder.glob("t*/*.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    (folder / "label_descriptions.json").unlink()
    apart = [_apart(rows) for rows in (pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False), truth)]
    columns = ["ImageId", "EncodedPixels"]
    rows, truth = (_emptied(part, 2) for part in apart)
    files.write_csv(folder / "train.csv", rows[columns])
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str)[columns]
    files.write_csv(folder / "sample_submission.csv", sample)
    return truth[truth["EncodedPixels"] != ""].assign(ClassId="1", AttributesIds="").reset_index(drop=True)


def _apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the instances that share a pixel with one before."""
    kept = []
    for _, of_picture in rows.groupby("ImageId"):
        size = int(of_picture["Height"].iloc[0]), int(of_picture["Width"].iloc[0])
        taken = np.zeros(size, bool)
        for row in of_picture.itertuples():
            bitmap = rle.from_kaggle([row.EncodedPixels], *([side] for side in size)).decode(0).astype(bool)
            if not (taken & bitmap).any():
                taken |= bitmap
                kept.append(row.Index)
    return rows.loc[kept]


def _emptied(rows: pd.DataFrame, pictures: int) -> pd.DataFrame:
    """With an empty row in place of the instances of the first pictures."""
    names = sorted(rows["ImageId"].unique())[:pictures]
    empty = pd.DataFrame({"ImageId": names}).reindex(columns=rows.columns, fill_value="")
    return pd.concat([empty, rows[~rows["ImageId"].isin(names)]], ignore_index=True)


def coco(folder: Path, truth: Truth) -> Truth:
    """annotations/, train2017/ and val2017/; a crowd region over the first picture; ids of pictures with gaps."""
    rows = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    labels = json.loads((folder / "label_descriptions.json").read_text())
    (folder / "annotations").mkdir()
    for subset, part in (("train", rows), ("val", truth)):
        document = {**labels, **_document(part)}
        if subset == "train":
            size = [document["images"][0][side] for side in ("height", "width")]
            everything = {"size": size, "counts": [0, size[0] * size[1]]}
            crowd = {"image_id": document["images"][0]["id"], "category_id": 0, "segmentation": everything}
            document["annotations"] += [{**crowd, "id": 9999, "iscrowd": 1}]
        files.write_json(folder / f"annotations/instances_{subset}2017.json", document)
    (folder / "train").rename(folder / "train2017")
    (folder / "test").rename(folder / "val2017")
    for name in ("train.csv", "sample_submission.csv", "label_descriptions.json"):
        (folder / name).unlink()
    return _with_suffix(truth)


def _document(rows: pd.DataFrame) -> dict:
    images, annotations = [], []
    for number, (name, of_picture) in enumerate(rows.groupby("ImageId")):
        height, width = int(of_picture["Height"].iloc[0]), int(of_picture["Width"].iloc[0])
        images.append({"id": 700 + 3 * number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for row in of_picture.itertuples():
            mask = rle.from_kaggle([row.EncodedPixels], [height], [width])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "category_id": int(row.ClassId),
                    "segmentation": mask.to_coco()[0],
                    "area": int(mask.areas()[0]),
                    "iscrowd": 0,
                    "attribute_ids": [int(text) for text in row.AttributesIds.split(",") if text],
                }
            )
    return {"images": images, "annotations": annotations}


KINDS: dict[str, Callable[[Path, Truth], Truth]] = {
    "imaterialist_2019": of_2019,
    "imaterialist_2020": lambda folder, truth: truth,
    "one_class": one_class,
    "coco": coco,
}
