"""Training and validation: whole images, every class in about the same share on both sides."""

import warnings
from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from fashionseg.data.competition import Competition
from fashionseg.errors import UserError

PICTURE = (
    -1
)  # a class that every image has once, so that the folds get even numbers of images, those without instances too


def assign(competition: Competition, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Columns image_id (sorted), subset ("train" | "val"): fold number `fold` of `folds` is held out.

    scikit-learn's StratifiedGroupKFold over instances, grouped by image: each image goes to the fold where it evens out
    the classes' shares best, rare and frequent classes weighing alike. Depends on the ids and classes and on the seed,
    not on the order of the rows. Raises UserError where the numbers cannot be.
    """
    images = sorted(competition.train_images)
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(f"split.fold should be 0 to split.folds - 1 and split.folds 2 at least, not {fold} of {folds}.")
    if len(images) < folds:
        raise UserError(
            f"{competition.folder} has {len(images)} usable training images, fewer than split.folds = {folds}."
        )
    instances = competition.instances.sort_values(["image_id", "class_id"])
    groups = [*images, *instances["image_id"]]
    classes = [PICTURE] * len(images) + instances["class_id"].tolist()
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a class with fewer images than folds
        _, held_out = list(splitter.split(groups, classes, groups))[fold]
    held = {groups[at] for at in held_out}
    return pd.DataFrame({"image_id": images, "subset": ["val" if name in held else "train" for name in images]})


def read(path: str | Path, competition: Competition) -> pd.DataFrame:
    """The table that `assign` made; raises UserError where it is not one of exactly this competition's images."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run `dvc repro split`.") from None
    fits = (
        list(table.columns) == ["image_id", "subset"]
        and table["subset"].isin(["train", "val"]).all()
        and sorted(table["image_id"]) == sorted(competition.train_images)
    )
    if not fits:
        raise UserError(f"{path} is not a split of the images of {competition.folder}; run `dvc repro split`.")
    return table
