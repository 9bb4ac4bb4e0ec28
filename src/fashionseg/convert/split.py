"""Training and validation: whole images, every class in about the same share on both sides."""

import warnings

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from fashionseg.convert.competition import Competition
from fashionseg.core.errors import UserError

# A class that every image has once: the folds get even numbers of images, and images without instances are dealt too.
PICTURE = -1


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
