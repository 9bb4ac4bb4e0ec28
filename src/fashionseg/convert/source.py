"""What a folder says, whatever its kind, before `competition.read` checks it."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fashionseg.core.errors import UserError

COLUMNS = ("ImageId", "masked", "Height", "Width", "ClassId", "AttributesIds")
FILLER = "1 1"  # EncodedPixels of the row of a picture without instances, where it may not be empty
ATTRIBUTE_IDS = (
    r"[\[({]?[\d\s,'\"]*[\])}]?"  # whole numbers as the competition joins them or other programs print lists
)
TOO_LONG = r"\d{19}"  # for 64 bits

Label = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Labels, rows and pictures of a folder.

    table: one row an instance; COLUMNS as text (Height and Width only where the files tell them) but `masked` bool,
    whether it has EncodedPixels; row int64, crowd bool, fault str, '' for none. A picture without instances may have a
    row with neither EncodedPixels nor ClassId. masks: joins what a function makes of a part of the rows' EncodedPixels,
    a column with the index of `table`, for all parts: they are too long to be in memory together.
    place: what stands before the number of a row where one is named. train, test: id -> path of every picture, test in
    the order of the submission. sample: the columns of the submission, one row a test picture, as it is submitted
    without instances. numbers: COCO's ids of the pictures, {} where they are to be counted. test_sizes: (height, width)
    of test pictures by path, where the folder tells them. notes: for the user.
    """

    categories: list[Label]
    attributes: list[Label]
    table: pd.DataFrame
    masks: Callable[[Callable[[pd.DataFrame], pd.DataFrame]], pd.DataFrame]
    place: str
    train: dict[str, Path]
    test: dict[str, Path]
    sample: pd.DataFrame
    numbers: dict[Path, int]
    test_sizes: dict[Path, tuple[int, int]]
    notes: list[str]


def check_labels(path: Path, labels: dict[str, Any]) -> None:
    """Raises UserError where categories or attributes of a file have an id twice, or a name that no file can
    hold: JSON knows surrogates without a partner."""
    for kind in ("categories", "attributes"):
        ids = Counter(entry["id"] for entry in labels.get(kind, []))
        if repeated := {id for id, count in ids.items() if count > 1}:
            raise UserError(f"{path}: {kind} names id {min(repeated)} twice.")
        for entry in labels.get(kind, []):
            if entry["name"] != (sound := entry["name"].encode(errors="replace").decode()):
                raise UserError(f"{path}: the name of id {entry['id']} in {kind}, {sound!r}, has half a character.")


def attribute_ids(text: str) -> tuple[int, ...] | None:
    """115,136 as the competition writes it, or as other programs print a list: [115, 136], ['115' '136']. None for
    anything else, and for numbers that no file of ours can hold."""
    if not re.fullmatch(ATTRIBUTE_IDS, text.strip()) or re.search(TOO_LONG, text):
        return None
    return tuple(map(int, re.findall(r"\d+", text)))


def whole(texts: pd.Series) -> pd.Series:
    """Whole numbers as float64, nan for anything else; 23.0 counts, as other programs write it."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    return numbers.where(numbers % 1 == 0)
