"""A competition of run lengths: train.csv, sample_submission.csv, train/, test/ and, mostly, label_descriptions.json.

What there is beside ImageId and EncodedPixels differs from one competition to the next, and the files tell it:
- Height and Width may be absent: the pictures have them.
- ClassId may be absent (one class), a number, or as in 2019 a number followed by attributes: 6_115_136.
- AttributesIds may be absent, or ids joined by commas.
- ImageId is the picture's name, with its suffix or without.
- label_descriptions.json may be absent: classes and attributes are then those of the rows.
- A picture without instances may have a row with neither EncodedPixels nor ClassId.
"""

from pathlib import Path

import pandas as pd

from fashionseg.convert.source import COLUMNS, FILLER, Label, Source, attribute_ids, check_labels, whole
from fashionseg.core import documents, pictures, tables
from fashionseg.core.errors import UserError

TRAIN, LABELS, SAMPLE = "train.csv", "label_descriptions.json", "sample_submission.csv"
COMPOUND = r"\d+(_\d+)+"  # a ClassId of 2019
ONE_CLASS = {"id": 1, "name": "object"}
EXACT = 2**53  # from here on a float64 skips whole numbers


def read(folder: Path) -> Source:
    """Raises UserError for what is wrong with a file as a whole, and where columns do not fit each other."""
    path, sample_path = folder / TRAIN, folder / SAMPLE
    table, sample = tables.read(path, tables.NEEDED, _without_masks), tables.read(sample_path, tables.NEEDED)
    columns, table = {*table}, _unified(table, path)
    has_class = "ClassId" in columns
    nothing = ~table["masked"] & (table["ClassId"] == "")
    categories, attributes, notes = _labels(folder / LABELS, table, has_class)
    if not has_class:
        table["ClassId"] = table["ClassId"].where(nothing, str(categories[0]["id"]))
    if table["AttributesIds"].any():  # also of ClassId, as in 2019
        columns.add("AttributesIds")
    _check_asked(sample, sample_path, columns, len(categories))
    originals = pictures.originals(folder)
    return Source(
        categories=categories,
        attributes=attributes,
        table=table.assign(crowd=False, fault=""),
        masks=lambda of_part: tables.read(path, tables.NEEDED, of_part),
        place=f"{path}:",
        train=_pictures(originals / "train", _names_are_whole(table["ImageId"], path)),
        test=_test_pictures(sample, sample_path, originals / "test"),
        sample=_without_instances(sample, categories, bool(nothing.any())),
        numbers={},
        test_sizes={},
        notes=notes,
    )


def _without_masks(chunk: pd.DataFrame) -> pd.DataFrame:
    return chunk.drop(columns="EncodedPixels").assign(masked=chunk["EncodedPixels"].str.strip() != "")


def _unified(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Columns as in 2020, without Height and Width where there are none; what is absent otherwise is ''."""
    sides = [name for name in ("Height", "Width") if name in table]
    if len(sides) == 1:
        raise UserError(f"{path} has the column {sides[0]} alone; expected are both of Height and Width, or neither.")
    for name in {"ClassId", "AttributesIds"} - {*table}:
        table[name] = ""
    compound = table["ClassId"].str.fullmatch(COMPOUND)
    if compound.any():
        both = table[compound & (table["AttributesIds"] != "")]
        if len(both):
            raise UserError(
                f"{path} mixes two forms: line {both['row'].iloc[0]} has attributes in ClassId, as in 2019, and in "
                "AttributesIds, as in 2020; leave one."
            )
        parts = table["ClassId"][compound].str.partition("_")
        table.loc[compound, "ClassId"] = parts[0]
        table.loc[compound, "AttributesIds"] = parts[2].str.replace("_", ",")
    return table[[*(name for name in COLUMNS if name in table), "row"]]


def _labels(path: Path, table: pd.DataFrame, has_class: bool) -> tuple[list[Label], list[Label], list[str]]:
    """Categories, attributes, and what there is to tell about them."""
    if not path.exists():
        numbers = whole(table["ClassId"]).dropna()
        numbers = numbers[numbers.abs() < EXACT].astype(int)
        ids = table["AttributesIds"].map(attribute_ids).dropna().explode()
        if has_class and numbers.empty:
            raise UserError(
                f"{path.with_name(TRAIN)} has no whole number in ClassId (first: {table['ClassId'].iloc[0]!r}); number "
                f"the classes and name them in {path.name}, or leave the column out where all is one class."
            )
        categories = _numbered(numbers) if has_class else [ONE_CLASS]
        note = f"{path} is not there: classes and attributes are those of {TRAIN}, named by their numbers"
        return categories, _numbered(ids.dropna()), [note] * has_class
    labels = {"attributes": [], **documents.read(path, documents.LABELS)}
    if not labels["categories"]:
        raise UserError(f"{path} names no categories; get it again.")
    check_labels(path, labels)
    if not has_class and len(labels["categories"]) > 1:
        raise UserError(
            f"{path} names {len(labels['categories'])} categories, but {path.with_name(TRAIN)} has no column ClassId; "
            "add it, or remove the label file where all is one class."
        )
    return labels["categories"], labels["attributes"], []


def _numbered(ids: pd.Series) -> list[Label]:
    return [{"id": number, "name": str(number)} for number in sorted(set(ids.tolist()))]


def _check_asked(sample: pd.DataFrame, path: Path, told: set[str], classes: int) -> None:
    """Raises UserError where the submission asks for what train.csv does not tell, or cannot tell classes apart."""
    train = path.with_name(TRAIN)
    if unknown := [name for name in sample if name not in (*tables.SUBMITTED, "row")]:
        raise UserError(
            f"{path} has a column {unknown[0]}; a submission here has columns of {', '.join(tables.SUBMITTED)}."
        )
    for name in ("ClassId", "AttributesIds"):
        if name in sample and name not in told:
            raise UserError(f"{path} asks for {name}, but {train} has no such column; they are of two competitions.")
    if "ClassId" not in sample and classes > 1:
        raise UserError(f"{path} has no column ClassId, but {train} has {classes} classes; add it.")


def _names_are_whole(names: pd.Series, path: Path) -> bool:
    """Whether ImageId is a whole file name, with its suffix."""
    whole_name = names.map(lambda name: Path(name).suffix.lower() in pictures.SUFFIXES).astype(bool)
    others = names[~whole_name & (names != "")]
    if whole_name.any() and len(others):
        raise UserError(
            f"{path} mixes two forms of ImageId: {names[whole_name].iloc[0]} has a suffix, {others.iloc[0]} has none; "
            "write all in one."
        )
    return bool(whole_name.any())


def _pictures(folder: Path, whole_names: bool) -> dict[str, Path]:
    """ImageId -> path of every picture, sorted by name; UserError where there is none or two have one id."""
    found: dict[str, Path] = {}
    for path in pictures.find(folder) if folder.is_dir() else []:
        name = path.name if whole_names else path.stem
        if (other := found.setdefault(name, path)) != path:
            raise UserError(f"{folder} holds {other.name} and {path.name}, both of ImageId {path.stem}; remove one.")
    if not found:
        raise UserError(
            f"{folder} holds no picture; it should hold <ImageId>.jpg for each image, not in folders below."
        )
    return found


def _test_pictures(sample: pd.DataFrame, path: Path, folder: Path) -> dict[str, Path]:
    there = _pictures(folder, _names_are_whole(sample["ImageId"], path))
    for name, row in zip(sample["ImageId"], sample["row"], strict=True):
        if name not in there:
            alike = next((f", but {other}; write both alike" for other in there if other.lower() == name.lower()), "")
            raise UserError(f"{folder} has no picture {name}, which {path}:{row} names{alike or '; get it again'}.")
    return {name: there[name] for name in sample["ImageId"].unique()}


def _without_instances(sample: pd.DataFrame, categories: list[Label], empty: bool) -> pd.DataFrame:
    """The sample with one row a picture, as it is submitted without instances: without EncodedPixels where rows of
    train.csv (`empty`) or of the sample are; else FILLER, of the class of the sample's first row."""
    ids = [str(category["id"]) for category in categories]
    empty |= bool((sample["EncodedPixels"].str.strip() == "").any())
    asked = whole(sample.get("ClassId", pd.Series([""])).iloc[:1]).iloc[0]
    named = next((number for number in ids if float(number) == asked), ids[0])  # 23.0 is 23, as in train.csv
    cells = {
        "EncodedPixels": "" if empty else FILLER,
        "ClassId": named,
        "AttributesIds": "",
    }
    kept = sample.drop(columns="row").drop_duplicates("ImageId", ignore_index=True)
    return kept.assign(**{name: cell for name, cell in cells.items() if name in kept})
