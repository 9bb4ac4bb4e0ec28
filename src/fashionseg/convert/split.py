"""Training and validation: every class and frequent attribute in about the same share on both sides, no picture on
both."""

import warnings

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from fashionseg.convert.competition import Competition
from fashionseg.core.errors import UserError

# A label that every image has once: the folds get even numbers of images, and images without instances are dealt too.
PICTURE = -1
FREQUENT = 10  # instances a fold: attributes from here on are dealt out, and shares looked at
MIN_VALIDATION = 2  # images with instances: post-processing is cross-validated on them


def assign(
    competition: Competition, folds: int, fold: int, seed: int, groups: dict[str, str] | None = None
) -> pd.DataFrame:
    """Columns image_id (sorted), subset ("train" | "val"): fold number `fold` of `folds` is held out.

    scikit-learn's StratifiedGroupKFold over instances and their frequent attributes, grouped by picture (`groups`: of
    `duplicates.groups`): each goes to the fold where it evens out the shares of classes and attributes best, rare and
    frequent ones weighing alike. Depends on ids, classes and attributes and on the seed, not on the order of the rows.
    Raises UserError where there are fewer pictures than folds.
    """
    images = sorted(competition.train_images)
    picture = {name: (groups or {}).get(name, name) for name in images}
    if (different := len(set(picture.values()))) < folds:
        alike = f", but with copies counted once {different}" * (different < len(images))
        raise UserError(
            f"{competition.originals} has {len(images)} usable training pictures{alike}, fewer than split.folds = "
            f"{folds}: add pictures or lower split.folds."
        )
    labels = _labels(competition, FREQUENT * folds)
    names, numbers = [*images, *labels["image_id"]], [PICTURE] * len(images) + labels["label"].tolist()
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a class with fewer images than folds
        _, held_out = list(splitter.split(names, numbers, [picture[name] for name in names]))[fold]
    held = {names[at] for at in held_out}
    check_validation(held, competition)
    return pd.DataFrame({"image_id": images, "subset": ["val" if name in held else "train" for name in images]})


def check_validation(held: set[str], competition: Competition) -> None:
    """Raises UserError where so few images to validate on, of the ids `held`, have something to find: no score of them
    would mean anything, and post-processing could not be cross-validated."""
    instances = competition.instances
    found = len(held & set(instances["image_id"][~instances["crowd"]]))
    if found < MIN_VALIDATION:
        raise UserError(
            f"{competition.originals} has {len(competition.train_images)} usable training pictures, of which "
            f"{len(held)} are held out to validate, {found} of them with instances; {MIN_VALIDATION} are the least: "
            "add pictures with instances or lower split.folds."
        )


def shares(competition: Competition, table: pd.DataFrame, folds: int) -> pd.DataFrame:
    """What is held out of each class and attribute with FREQUENT instances a fold or more, the least share first.

    Columns name, instances, held (a share of them).
    """
    names = {entry["id"]: entry["name"] for entry in competition.categories}
    names |= {_attribute(entry["id"]): entry["name"] for entry in competition.attributes}
    labels = _labels(competition, FREQUENT * folds)
    held = labels["image_id"].isin(table["image_id"][table["subset"] == "val"])
    counted = held.groupby(labels["label"]).agg(instances="size", held="mean")
    counted.insert(0, "name", counted.index.map(names))
    return counted[counted["instances"] >= FREQUENT * folds].sort_values("held", kind="stable", ignore_index=True)


def _labels(competition: Competition, frequent: int) -> pd.DataFrame:
    """Columns image_id and label, sorted: a row for the class of each instance and for each of its attributes that
    `frequent` instances have."""
    instances = competition.instances
    attributes = instances[["image_id", "attribute_ids"]].explode("attribute_ids").dropna()
    of_attribute = attributes.groupby("attribute_ids")["image_id"].transform("size") >= frequent
    labels = [
        instances[["image_id", "class_id"]].rename(columns={"class_id": "label"}),
        attributes[of_attribute].assign(label=lambda rows: _attribute(rows.pop("attribute_ids").astype("int64"))),
    ]
    return pd.concat(labels).sort_values(["image_id", "label"], ignore_index=True)


def _attribute(number):
    """Classes count from 0; attributes' labels are what is left, below PICTURE."""
    return PICTURE - 1 - number
