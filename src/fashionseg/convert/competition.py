"""The competition's files, read and checked: train.csv, label_descriptions.json, sample_submission.csv, train/, test/.

A fault of a file as a whole raises UserError. A fault of one row or one training picture drops it and is counted with
its first example, as long as few drop. Every test picture must be there: a submission has to name each.
"""

import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.progress import track

from fashionseg.core import files, rle
from fashionseg.core.errors import UserError

TRAIN, LABELS, SAMPLE = "train.csv", "label_descriptions.json", "sample_submission.csv"
COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds")
TOLERATED = 0.05  # share of rows, or of pictures, that may drop; beyond it the file is broken, not the row
CHUNK = 10_000  # rows whose runs are in memory at once

Image.MAX_IMAGE_PIXELS = None  # the competition's pictures of 90 million pixels are no attack


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
        pictures = _drops("picture cannot be decoded", gone.values(), len(self.train_images), "pictures")
        lines = _drops(
            "row of a picture that cannot be decoded", _lines(self.folder, rows, {}), len(self.instances), "rows"
        )
        return dataclasses.replace(
            self,
            instances=self.instances.drop(index=rows.index).reset_index(drop=True),
            train_images={name: path for name, path in self.train_images.items() if name not in gone},
            drops=pd.concat([self.drops, pictures, lines], ignore_index=True),
        )


def read(folder: str | Path) -> Competition:
    """Reads and checks a competition folder; raises UserError as the module's first lines say."""
    folder = Path(folder)
    categories, attributes = _labels(folder / LABELS)
    table = _table(folder / TRAIN, COLUMNS)
    train, test = _pictures(folder / "train"), _test_pictures(folder)
    _no_collision([*train, *table["ImageId"].unique()], folder / TRAIN)
    _no_collision(test, folder / SAMPLE)

    paths = [*train.values(), *test.values()]
    with ThreadPoolExecutor(16) as pool:  # the disk is waited for, not the processor
        headers = track(pool.map(_header, paths), "reading picture headers", total=len(paths))
        sizes = {path: size for path, size in zip(paths, headers, strict=True) if size}
    for path in test.values():
        if path not in sizes:
            raise UserError(f"{path} is no whole picture, but every test picture must be answered; get it again.")
    broken = [path for path in train.values() if path not in sizes]
    pictures = _drops("picture has no readable header", broken, len(train), "pictures")
    train = {name: path for name, path in train.items() if path in sizes}

    instances, faults, details = _instances(
        table, categories, attributes, {name: sizes[path] for name, path in train.items()}
    )
    bad = faults != ""
    rows = _drops(faults[bad].tolist(), _lines(folder, instances[bad], details), len(table), "rows")
    return Competition(
        folder=folder,
        categories=categories,
        attributes=attributes,
        instances=instances[~bad]
        .astype({"height": "int64", "width": "int64", "class_id": "int64"})
        .reset_index(drop=True),
        train_images=train,
        test_images=test,
        sizes=sizes,
        drops=pd.concat([pictures, rows], ignore_index=True),
    )


def _lines(folder: Path, rows: pd.DataFrame, details: dict[int, str]) -> list[str]:
    """Where each row stands, with what there is to add about it; details: by index of the row."""
    return [
        f"{folder / TRAIN}:{line}" + (f" ({details[at]})" if at in details else "") for at, line in rows["row"].items()
    ]


def _drops(reasons: str | list[str], places: Iterable[Any], total: int, what: str) -> pd.DataFrame:
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
    labels = files.read_json(path)
    if not isinstance(labels, dict) or not labels.get("categories"):
        raise UserError(f"{path} should hold an object with 'categories' and 'attributes', each a list of id and name.")
    for kind in ("categories", "attributes"):
        entries = labels.setdefault(kind, [])
        for entry in entries:
            if not (isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("name"), str)):
                raise UserError(f"{path}: {kind} holds {entry!r}; each entry needs a whole number 'id' and a 'name'.")
        ids = [entry["id"] for entry in entries]
        if repeated := {id for id in ids if ids.count(id) > 1}:
            raise UserError(f"{path}: {kind} names id {min(repeated)} twice.")
    return labels["categories"], labels["attributes"]


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as text, with `row`, the line each row stands on; lines without any value are left out."""
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the folder should hold the competition's files.") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; it should start with {','.join(columns)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}).") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        hint = "every row needs as many fields as the header, lists of ids in quotes"
        raise UserError(f"{path} is no CSV: {' '.join(str(error).split())}; {hint}.") from None
    table = table.fillna("").assign(row=np.arange(len(table)) + 2)
    table = table[(table.drop(columns="row") != "").any(axis=1)].reset_index(drop=True)
    _explain_other_layouts(path, table)
    if lacking := [name for name in columns if name not in table]:
        found = ", ".join(map(str, table.columns[:-1]))
        raise UserError(f"{path} lacks the columns {', '.join(lacking)}; its first line names {found}.")
    if table.empty:
        raise UserError(f"{path} has no rows below its header.")
    return table


def _explain_other_layouts(path: Path, table: pd.DataFrame) -> None:
    start = table.head(100).astype(str)
    if start.apply(lambda cells: cells.str.startswith("[")).to_numpy().any():
        raise UserError(
            f"{path} groups the instances of an image into lists; one row an instance is expected: explode the lists."
        )
    dotted = "ImageId" in start and start["ImageId"].str.endswith(".jpg").any()
    if dotted or ("ClassId" in start and start["ClassId"].str.fullmatch(r"\d+(_\d+)+").any()):
        raise UserError(
            f"{path} is in the form of the 2019 edition (ImageId with .jpg or ClassId as 6_115_136); expected is that "
            "of 2020: ImageId without .jpg, ClassId a number, attribute ids in AttributesIds."
        )


def _pictures(folder: Path) -> dict[str, Path]:
    """Id -> path of every .jpg in a folder, sorted by id; UserError where there is none."""
    pictures = {path.stem: path for path in sorted(folder.glob("*.jpg"))}
    if not pictures:
        raise UserError(f"{folder} holds no picture; it should hold <ImageId>.jpg for each image.")
    return pictures


def _test_pictures(folder: Path) -> dict[str, Path]:
    table, there = _table(folder / SAMPLE, ["ImageId"]), _pictures(folder / "test")
    for name, row in zip(table["ImageId"], table["row"], strict=True):
        if name not in there:
            raise UserError(f"{folder / 'test'} lacks {name}.jpg, which {folder / SAMPLE}:{row} names; get it again.")
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


def _header(path: Path) -> tuple[int, int] | None:
    """(height, width) in stored pixel order, whatever EXIF says, without decoding; None where there is no picture."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError):
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
    return instances, faults, details


def _whole(texts: pd.Series) -> pd.Series:
    """Whole numbers as float64, nan for anything else; 23.0 counts, as other programs write it."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    return numbers.where(numbers % 1 == 0)


def _attribute_ids(text: str) -> tuple[int, ...] | None:
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        return None
