"""The competition's files, read and checked: train.csv, label_descriptions.json, sample_submission.csv, train/, test/.

A fault of a file as a whole raises UserError. A fault of one row or one training picture drops it and is counted with
its first example, as long as few drop; of rows that repeat others any number may. Every test picture must be there: a
submission has to name each.
"""

import contextlib
import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg.core import documents, pictures, rle, tables
from fashionseg.core.errors import UserError

TRAIN, LABELS, SAMPLE = "train.csv", "label_descriptions.json", "sample_submission.csv"
COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds")
TOLERATED = 0.05  # share of rows, or of pictures, that may drop; beyond it the file is broken, not the row
REPEATED = "repeats an earlier row"
LIST = re.compile(r"[\[({]?[\d\s,'\"]*[\])}]?")  # of whole numbers
CHUNK = 10_000  # rows whose runs are in memory at once


@dataclass(frozen=True)
class Competition:
    """What a competition folder holds after the checks.

    instances: one row an instance; image_id str, encoded str, height, width and class_id int64, attribute_ids
    tuple[int, ...], row int64 (line of train.csv). test_images: in the order of sample_submission.csv. sizes: (height,
    width) of every picture by its path, in stored pixel order. drops: reason and place of all that was left out.
    """

    folder: Path
    categories: list[dict[str, Any]]
    attributes: list[dict[str, Any]]
    instances: pd.DataFrame
    train_images: dict[str, Path]
    test_images: dict[str, Path]
    sizes: dict[Path, tuple[int, int]]
    drops: pd.DataFrame

    @property
    def sample_ids(self) -> list[str]:
        return list(self.test_images)

    @property
    def empty_images(self) -> list[str]:
        """Ids of the training pictures without an instance, sorted; they are kept."""
        return sorted(set(self.train_images) - set(self.instances["image_id"]))

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> count, most frequent first."""
        return self.drops["reason"].value_counts().to_dict()

    def without(self, broken: Iterable[Path]) -> "Competition":
        """The competition less these training pictures and their rows; UserError where they are many."""
        gone = {path.stem: path for path in sorted(broken)}
        rows = self.instances[self.instances["image_id"].isin(gone)]
        lost = _drops("picture cannot be decoded", gone.values(), len(self.train_images), "pictures")
        lines = _drops(
            "row of a picture that cannot be decoded", _lines(self.folder, rows, {}), len(self.instances), "rows"
        )
        return dataclasses.replace(
            self,
            instances=self.instances.drop(index=rows.index).reset_index(drop=True),
            train_images={name: path for name, path in self.train_images.items() if name not in gone},
            drops=pd.concat([self.drops, lost, lines], ignore_index=True),
        )


def read(folder: str | Path) -> Competition:
    """Reads and checks a competition folder; raises UserError as the module's first lines say."""
    folder = Path(folder)
    categories, attributes = _labels(folder / LABELS)
    table = tables.read(folder / TRAIN, COLUMNS)
    originals = pictures.originals(folder)
    train, test = _pictures(originals / "train"), _test_pictures(folder / SAMPLE, originals / "test")
    _no_collision([*train, *table["ImageId"].unique()], folder / TRAIN)
    _no_collision(test, folder / SAMPLE)

    paths = [*train.values(), *test.values()]
    with ThreadPoolExecutor(16) as pool:  # the disk is waited for, not the processor
        headers = track(pool.map(_size, paths), "reading picture headers", total=len(paths))
        sizes = {path: size for path, size in zip(paths, headers, strict=True) if size}
    for path in test.values():
        if path not in sizes:
            raise UserError(f"{path} is no whole picture, but every test picture must be answered; get it again.")
    broken = [path for path in train.values() if path not in sizes]
    lost = _drops("picture has no readable header", broken, len(train), "pictures")
    train = {name: path for name, path in train.items() if path in sizes}

    instances, faults, details = _instances(
        table, categories, attributes, {name: sizes[path] for name, path in train.items()}
    )
    again = faults == REPEATED
    bad = (faults != "") & ~again
    rows = _drops(faults[bad].tolist(), _lines(folder, instances[bad], details), len(table), "rows")
    copies = _drops(REPEATED, _lines(folder, instances[again], {}), math.inf, "rows")  # nothing is lost with them
    return Competition(
        folder=folder,
        categories=categories,
        attributes=attributes,
        instances=instances[faults == ""]
        .astype({"height": "int64", "width": "int64", "class_id": "int64"})
        .reset_index(drop=True),
        train_images=train,
        test_images=test,
        sizes=sizes,
        drops=pd.concat([lost, rows, copies], ignore_index=True),
    )


def _lines(folder: Path, rows: pd.DataFrame, details: dict[int, str]) -> list[str]:
    """Where each row stands, with what there is to add about it; details: by index of the row."""
    return [
        f"{folder / TRAIN}:{line}" + (f" ({details[at]})" if at in details else "") for at, line in rows["row"].items()
    ]


def _drops(reasons: str | list[str], places: Iterable[Any], total: float, what: str) -> pd.DataFrame:
    """What is left out, columns reason and place; UserError where it is more than TOLERATED of the total."""
    places = [str(place) for place in places]
    drops = pd.DataFrame({"reason": reasons, "place": places}, index=range(len(places)), dtype=object)
    if len(drops) > TOLERATED * total:
        reason, count = next(iter(drops["reason"].value_counts().items()))
        place = drops["place"][drops["reason"] == reason].iloc[0]
        raise UserError(
            f"{len(drops)} of {total} {what} cannot be used, {count} of them because: {reason} (first: {place}); "
            f"more than {TOLERATED:.0%} is no training set: mend the files or get them again."
        )
    return drops


def _labels(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    labels = {"attributes": [], **documents.read(path, documents.LABELS)}
    if not labels["categories"]:
        raise UserError(f"{path} names no categories; get it again.")
    for kind in ("categories", "attributes"):
        ids = [entry["id"] for entry in labels[kind]]
        if repeated := {id for id in ids if ids.count(id) > 1}:
            raise UserError(f"{path}: {kind} names id {min(repeated)} twice.")
    return labels["categories"], labels["attributes"]


def _pictures(folder: Path) -> dict[str, Path]:
    """Id -> path of every picture in a folder, sorted by name; UserError where there is none or two have one id."""
    found: dict[str, Path] = {}
    for path in pictures.find(folder) if folder.is_dir() else []:
        if (other := found.setdefault(path.stem, path)) != path:
            raise UserError(f"{folder} holds {other.name} and {path.name}, both of ImageId {path.stem}; remove one.")
    if not found:
        raise UserError(
            f"{folder} holds no picture; it should hold <ImageId>.jpg for each image, not in folders below."
        )
    return found


def _test_pictures(sample: Path, folder: Path) -> dict[str, Path]:
    table, there = tables.read(sample, ["ImageId"]), _pictures(folder)
    for name, row in zip(table["ImageId"], table["row"], strict=True):
        if name not in there:
            raise UserError(f"{folder} has no picture {name}, which {sample}:{row} names; get it again.")
    return {name: there[name] for name in table["ImageId"].unique()}


def _no_collision(names: Iterable[str], path: Path) -> None:
    spellings = defaultdict(set)
    for name in names:
        spellings[name.lower()].add(name)
    for alike in spellings.values():
        if len(alike) > 1:
            raise UserError(
                f"{path}: the images {' and '.join(sorted(alike))} differ in case only and would overwrite each other "
                "on some file systems; rename one."
            )


def _size(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(UserError):
        return pictures.size(path)
    return None


def _instances(
    table: pd.DataFrame,
    categories: list[dict[str, Any]],
    attributes: list[dict[str, Any]],
    sizes: dict[str, tuple[int, int]],
) -> tuple[pd.DataFrame, pd.Series, dict[int, str]]:
    """Competition.instances of all rows, each row's fault ('' for none), and by index what more there is to say."""
    faults = pd.Series("", index=table.index, dtype=object)

    def blame(rows: pd.Series, reason: str) -> None:
        faults[rows & (faults == "")] = reason

    known = {entry["id"] for entry in attributes}
    parsed = {text: _attribute_ids(text) for text in table["AttributesIds"].unique()}
    unreadable = {text for text, ids in parsed.items() if ids is None}
    unknown = {text for text, ids in parsed.items() if not known.issuperset(ids or ())}
    instances = pd.DataFrame(
        {
            "image_id": table["ImageId"],
            "encoded": table["EncodedPixels"],
            "height": _whole(table["Height"]),
            "width": _whole(table["Width"]),
            "class_id": _whole(table["ClassId"]),
            "attribute_ids": table["AttributesIds"].map(parsed),
            "row": table["row"],
        }
    )
    there = instances["image_id"].isin(sizes)
    header = np.array([sizes.get(name, (0, 0)) for name in instances["image_id"]])
    blame(~there, "train/ lacks a readable picture of this ImageId")
    blame(instances[["height", "width"]].isna().any(axis=1), "Height or Width is no whole number")
    blame((instances[["height", "width"]] != header).any(axis=1), "Height and Width differ from the picture")
    blame(instances["class_id"].isna(), "ClassId is no whole number")
    blame(~instances["class_id"].isin([entry["id"] for entry in categories]), f"ClassId is not in {LABELS}")
    blame(table["AttributesIds"].isin(unreadable), "AttributesIds are no whole numbers joined by commas")
    blame(table["AttributesIds"].isin(unknown), f"AttributesIds has an id that is not in {LABELS}")
    blame(table["EncodedPixels"].str.strip() == "", "EncodedPixels is empty")
    sound, details = instances[faults == ""], {}
    for start in track(range(0, len(sound), CHUNK), "checking run lengths"):
        rows = sound.iloc[start : start + CHUNK]
        heights, widths = (rows[side].to_numpy(np.int64) for side in ("height", "width"))
        broken = rle.check_kaggle(rows["encoded"].tolist(), heights, widths)
        details |= {rows.index[at]: detail for at, detail in broken.items()}
    faults[list(details)] = "EncodedPixels is no mask"
    sound = instances[faults == ""]
    instance = ["image_id", "class_id", "encoded"]
    faults[sound.index[sound.duplicated(instance)]] = (
        "image, class and pixels of an earlier row, with other AttributesIds"
    )
    faults[sound.index[sound.duplicated([*instance, "attribute_ids"])]] = REPEATED
    return instances, faults, details


def _whole(texts: pd.Series) -> pd.Series:
    """Whole numbers as float64, nan for anything else; 23.0 counts, as other programs write it."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    return numbers.where(numbers % 1 == 0)


def _attribute_ids(text: str) -> tuple[int, ...] | None:
    """115,136 as the competition writes it, or as other programs print a list: [115, 136], ['115' '136']."""
    return tuple(map(int, re.findall(r"\d+", text))) if LIST.fullmatch(text.strip()) else None
