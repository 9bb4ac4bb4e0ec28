"""From the competition's form to the trainer's: COCO documents at the original size, and tables of what they hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg.convert.competition import Competition
from fashionseg.convert.split import check_validation
from fashionseg.core import tables
from fashionseg.core.errors import UserError

SMALL, MEDIUM = 32**2, 96**2  # pixels; where COCO's small and medium instances end
BINS = 20  # of the size histogram

Document = dict[str, Any]


def read_split(path: str | Path, competition: Competition) -> pd.DataFrame:
    """The split stage's table; raises UserError where it is not one of exactly this competition's images."""
    table = tables.read(path, ["image_id", "subset"])[["image_id", "subset"]]
    fits = table["subset"].isin(["train", "val"]).all() and sorted(table["image_id"]) == sorted(
        competition.train_images
    )
    if not fits:
        raise UserError(f"{path} is not a split of the images of {competition.folder}; run `dvc repro split`.")
    return table


def documents(competition: Competition, split: pd.DataFrame) -> dict[str, Document]:
    """COCO documents "train", "val" and "test" at the original image size.

    split: columns image_id, subset, exactly the competition's training images. Image ids are those of a COCO folder;
    else they count from 1 over the sorted ids of train/ (and of test/). ImageId is a picture's name in the tables.
    Annotation ids count from 1 in each document, category and attribute ids are those of the labels. area, bbox (x, y,
    w, h) and segmentation (compressed RLE) are pycocotools' own to the last character.
    Raises UserError where no two images are left to validate.
    """
    image_ids, test_ids = (
        {name: competition.numbers.get(images[name], number) for number, name in enumerate(sorted(images), 1)}
        for images in (competition.train_images, competition.test_images)
    )
    subsets = dict(zip(split["image_id"], split["subset"], strict=True))
    labels = {"categories": competition.categories, "attributes": competition.attributes}
    made = {subset: {"info": {}, "images": [], "annotations": [], **labels} for subset in ("train", "val", "test")}
    check_validation({name for name in image_ids if subsets[name] == "val"}, competition)
    for name, number in image_ids.items():
        made[subsets[name]]["images"].append(_image(competition, name, competition.train_images[name], number))
    for name, number in test_ids.items():
        made["test"]["images"].append(_image(competition, name, competition.test_images[name], number))
    rows = track(competition.instances.itertuples(), "writing COCO annotations", len(competition.instances))
    for row in rows:
        annotations = made[subsets[row.image_id]]["annotations"]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_ids[row.image_id],
                "category_id": row.class_id,
                "segmentation": {"size": [row.height, row.width], "counts": row.counts},
                "area": row.area,
                "bbox": row.bbox,
                "iscrowd": int(row.crowd),
                "attribute_ids": list(row.attribute_ids),
            }
        )
    return made


def _image(competition: Competition, name: str, path: Path, number: int) -> Document:
    height, width = competition.sizes[path]
    file_name = competition.file_name(path)
    return {"id": number, "file_name": file_name, "width": width, "height": height, "ImageId": name}


def class_table(documents: dict[str, Document]) -> pd.DataFrame:
    """One row a category: class_id, name, instances, and for "train" and "val" <subset>_instances, <subset>_images."""
    categories = documents["train"]["categories"]
    table = pd.DataFrame({"class_id": [c["id"] for c in categories], "name": [c["name"] for c in categories]})
    table["instances"] = 0
    for subset in ("train", "val"):
        pairs = [(a["category_id"], a["image_id"]) for a in documents[subset]["annotations"]]
        by_class = pd.DataFrame(pairs, columns=["class_id", "image_id"]).groupby("class_id")["image_id"]
        table[f"{subset}_instances"] = table["class_id"].map(by_class.size()).fillna(0).astype(int)
        table[f"{subset}_images"] = table["class_id"].map(by_class.nunique()).fillna(0).astype(int)
        table["instances"] += table[f"{subset}_instances"]
    return table


def size_table(documents: dict[str, Document]) -> pd.DataFrame:
    """Histogram of instance sizes; `side` is the upper end of a bin of sqrt(area) / long image side.

    `instances` in the bin, the same by subset ("train", "val") and by COCO's area at the original size ("small",
    "medium", "large").
    """
    edges = np.linspace(0, 1, BINS + 1)
    table = pd.DataFrame({"side": edges[1:].round(4)})
    table[["instances", "train", "val", "small", "medium", "large"]] = 0
    for subset in ("train", "val"):
        sides = {image["id"]: max(image["height"], image["width"]) for image in documents[subset]["images"]}
        annotations = documents[subset]["annotations"]
        areas = np.array([a["area"] for a in annotations], float)
        relative = np.sqrt(areas) / np.array([sides[a["image_id"]] for a in annotations], float)
        every = np.ones(len(areas), bool)
        small, large = areas < SMALL, areas >= MEDIUM
        counted = {"instances": every, subset: every, "small": small, "medium": ~(small | large), "large": large}
        for name, chosen in counted.items():
            table[name] += np.histogram(relative[chosen], edges)[0]
    return table


def dropped_table(competition: Competition) -> pd.DataFrame:
    """What was left out: reason, count, first (the first example's file and line), most frequent first."""
    by_reason = competition.drops.groupby("reason", sort=False)["place"]
    table = pd.DataFrame({"count": by_reason.size(), "first": by_reason.first()})
    return table.rename_axis("reason").reset_index().sort_values("count", ascending=False, kind="stable")
