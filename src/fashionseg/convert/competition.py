"""A competition's folder, read and checked, whatever its kind: `csv_folder` and `coco_folder` tell the kinds.

A fault of a file as a whole raises UserError. A fault of one row or one training picture drops it and is counted with
its first example, as long as few drop; of rows that repeat others any number may. Every test picture must be there: a
submission has to name each.
"""

import contextlib
import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress, track

from fashionseg.convert import coco_folder, csv_folder
from fashionseg.convert.source import Source, attribute_ids, whole
from fashionseg.core import paths, pictures, rle
from fashionseg.core.errors import UserError

TOLERATED = 0.05  # share of rows, or of pictures, that may drop; beyond it the file is broken, not the row
REPEATED = "repeats an earlier row"
JOINED = "same image, class and pixels as an earlier row, which has its AttributesIds now, too"
INSTANCE = ["image_id", "class_id", "counts", "crowd"]  # what tells instances apart


@dataclass(frozen=True, kw_only=True)
class Competition:
    """What a competition folder holds after the checks.

    instances: one row an instance; image_id str, height, width and class_id int64, attribute_ids tuple[int, ...], crowd
    bool, row int64 (line of train.csv, or id of the annotation), and of the mask as pycocotools has them: counts str,
    area int64, bbox list[int]. test_images: in the order of the submission. sizes: (height, width) of every picture by
    its path, in stored pixel order. drops: reason and place of all that was left out. The rest is as in `Source`;
    originals: the folder of all pictures.
    """

    folder: Path
    originals: Path
    categories: list[dict[str, Any]]
    attributes: list[dict[str, Any]]
    instances: pd.DataFrame
    place: str
    train_images: dict[str, Path]
    test_images: dict[str, Path]
    sample: pd.DataFrame
    numbers: dict[Path, int]
    sizes: dict[Path, tuple[int, int]]
    drops: pd.DataFrame
    notes: list[str]

    def file_name(self, path: Path) -> str:
        """Of a picture, as COCO documents have it: from `originals` on."""
        return path.relative_to(self.originals).as_posix()

    @property
    def empty_images(self) -> list[str]:
        """Ids of the training pictures without an instance, sorted; they are kept."""
        return sorted(set(self.train_images) - set(self.instances["image_id"]))

    def without(self, broken: Iterable[Path]) -> "Competition":
        """The competition less these training pictures and their rows; UserError where they are many."""
        broken = set(broken)
        gone = {name: path for name, path in self.train_images.items() if path in broken}
        rows = self.instances[self.instances["image_id"].isin(gone)]
        lost = _drops("picture cannot be decoded", sorted(gone.values()), len(self.train_images), "pictures")
        places = _places(self.place, rows, rows["image_id"].map(gone).to_dict())
        lines = _drops("row of a picture that cannot be decoded", places, len(self.instances), "rows")
        return dataclasses.replace(
            self,
            instances=self.instances.drop(index=rows.index).reset_index(drop=True),
            train_images={name: path for name, path in self.train_images.items() if name not in gone},
            drops=pd.concat([self.drops, lost, lines], ignore_index=True),
        )


def read(folder: str | Path) -> Competition:
    """Reads and checks a competition folder; raises UserError as the module's first lines say."""
    folder = Path(folder)
    originals = pictures.originals(folder)
    with _named_as_in(originals, folder):
        source = (coco_folder if paths.in_coco(folder) else csv_folder).read(folder)
    source = dataclasses.replace(
        source,
        place=_own(source.place, originals, folder),
        notes=[_own(note, originals, folder) for note in source.notes],
    )
    _no_collision(source.train, originals)
    _no_collision(source.test, originals)
    _check_spelling(source)

    images = [*source.train.values(), *source.test.values()]
    with ThreadPoolExecutor(16) as pool:  # the disk is waited for, not the processor
        headers = track(pool.map(_size, images), "reading picture headers", total=len(images))
        sizes = {path: size for path, size in zip(images, headers, strict=True) if size}
    for path in source.test.values():
        if path not in sizes:
            raise UserError(f"{path} is damaged or no picture, and every test picture must be answered; get it again.")
        if source.test_sizes.get(path, sizes[path]) != sizes[path]:
            told, stored = (" x ".join(map(str, size)) for size in (source.test_sizes[path], sizes[path]))
            raise UserError(
                f"{path} has {stored} pixels (height x width) as stored, which EXIF may turn, but its annotation file "
                f"says {told}; answers of one size do not fit the other: mend the file or get the picture again."
            )
    broken = [path for path in source.train.values() if path not in sizes]
    lost = _drops("picture is missing or has no readable header", broken, len(source.train), "pictures")
    train = {name: path for name, path in source.train.items() if path in sizes}

    instances, faults, details = _instances(source, {name: sizes[path] for name, path in train.items()})
    again = faults.isin([REPEATED, JOINED])
    bad = (faults != "") & ~again
    rows = _drops(faults[bad].tolist(), _places(source.place, instances[bad], details), len(instances), "rows")
    copies = _places(source.place, instances[again], {})
    if not ((faults == "") & source.table["masked"] & ~source.table["crowd"]).any():
        crowds = " but crowd regions (iscrowd 1, as CVAT writes masks: set it to 0)" * bool(source.table["crowd"].any())
        raise UserError(
            f"{originals} has no instance: no row or annotation has a mask{crowds}; there is nothing to train on."
        )
    return Competition(
        folder=folder,
        originals=originals,
        categories=source.categories,
        attributes=source.attributes,
        instances=instances[(faults == "") & source.table["masked"]]
        .astype(dict.fromkeys(("height", "width", "class_id", "area"), "int64"))
        .reset_index(drop=True),
        place=source.place,
        train_images=train,
        test_images=source.test,
        sample=source.sample,
        numbers=source.numbers,
        sizes=sizes,
        drops=pd.concat([lost, rows, _drops(faults[again].tolist(), copies, math.inf, "rows")], ignore_index=True),
        notes=source.notes,
    )


def _places(place: str, rows: pd.DataFrame, details: dict[int, Any]) -> list[str]:
    """Where each row stands, with what there is to add about it; details: by index of the row."""
    return [f"{place}{number}" + (f" ({details[at]})" if at in details else "") for at, number in rows["row"].items()]


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


@contextlib.contextmanager
def _named_as_in(originals: Path, folder: Path) -> Iterator[None]:
    """Names files of `folder`, where DVC has its copy of a user's tables and undoes edits, as those of `originals`."""
    try:
        yield
    except UserError as error:
        raise UserError(_own(str(error), originals, folder)) from None


def _own(text: str, originals: Path, folder: Path) -> str:
    theirs, copies = re.escape(str(originals)), re.escape(str(folder))
    return re.sub(rf"{theirs}|(?<![\w./-]){copies}(?=/)", lambda _: str(originals), text)


def _check_spelling(source: Source) -> None:
    """Raises UserError where a row and a picture differ in case only."""
    pictures_of = {name.lower(): name for name in source.train}
    for name, row in zip(source.table["ImageId"], source.table["row"], strict=True):
        there = pictures_of.get(name.lower(), name)
        if there != name:
            raise UserError(f"{source.place}{row} names {name}, and the picture is {there}; write both alike.")


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


def _instances(source: Source, sizes: dict[str, tuple[int, int]]) -> tuple[pd.DataFrame, pd.Series, dict[int, Any]]:
    """Competition.instances of all rows, each row's fault ('' for none), and by index what more there is to say.

    A row without a fault and without a mask says that its picture has no instances. sizes: of the training pictures, by
    id.
    """
    table, faults = source.table, source.table["fault"].astype(object)

    def blame(rows: pd.Series, reason: str) -> None:
        faults[rows & (faults == "")] = reason

    parsed = {text: attribute_ids(text) for text in table["AttributesIds"].unique()}
    unreadable = {text for text, ids in parsed.items() if ids is None}
    known = {entry["id"] for entry in source.attributes}
    unknown = {text for text, ids in parsed.items() if not known.issuperset(ids or ())}
    header = np.array([sizes.get(name, (0, 0)) for name in table["ImageId"]]).reshape(-1, 2)
    given = "Height" in table
    instances = pd.DataFrame(
        {
            "image_id": table["ImageId"],
            "height": whole(table["Height"]) if given else header[:, 0].astype(float),
            "width": whole(table["Width"]) if given else header[:, 1].astype(float),
            "class_id": whole(table["ClassId"]),
            "attribute_ids": table["AttributesIds"].map(parsed),
            "crowd": table["crowd"],
            "row": table["row"],
        }
    )
    masked = table["masked"]
    nothing = ~masked & (table["ClassId"] == "")
    unseen = ~instances["image_id"].isin(sizes)
    blame(unseen, "its picture is missing or has no readable header")
    blame(
        nothing & table["ImageId"].isin(table["ImageId"][masked]),
        "EncodedPixels is empty, but not in another row of the picture",
    )
    blame(~nothing & instances[["height", "width"]].isna().any(axis=1), "Height or Width is no whole number")
    blame(
        ~nothing & (instances[["height", "width"]] != header).any(axis=1),
        "Height and Width differ from the stored picture, which EXIF may turn",
    )
    blame(
        ~nothing & instances["class_id"].isna(), "ClassId is no whole number, nor one with attributes such as 6_115_136"
    )
    blame(
        ~nothing & ~instances["class_id"].isin([entry["id"] for entry in source.categories]),
        "ClassId is not in the list of categories",
    )
    blame(table["AttributesIds"].isin(unreadable), "AttributesIds are no whole numbers joined by commas")
    blame(table["AttributesIds"].isin(unknown), "AttributesIds has an id that is not in the list of attributes")
    blame(~masked & ~nothing, "EncodedPixels is empty")
    masks, details = _masks(source, instances, ((faults == "") & masked).to_numpy())
    faults[list(details)] = "EncodedPixels is no mask"
    details |= {at: source.train.get(name, name or "no ImageId") for at, name in instances["image_id"][unseen].items()}
    instances = instances.join(masks)
    _join(instances, faults, masked)
    return instances, faults, details


def _masks(source: Source, instances: pd.DataFrame, chosen: np.ndarray) -> tuple[pd.DataFrame, dict[int, str]]:
    """counts, area and bbox of the `chosen` rows (n,) bool, and by index what is wrong with those that are no masks."""
    heights, widths = (instances[side].where(chosen, 0).to_numpy(np.int64) for side in ("height", "width"))
    details: dict[int, str] = {}
    with Progress() as progress:
        task = progress.add_task("reading run lengths", total=len(instances))

        def of_part(part: pd.DataFrame) -> pd.DataFrame:
            progress.advance(task, len(part))
            rows = part.index[chosen[part.index]]
            texts = part["EncodedPixels"][rows].tolist()
            runs, broken = rle.read_kaggle(texts, heights[rows], widths[rows])
            details.update({rows[at]: detail for at, detail in broken.items()})
            counts = pd.Series([mask["counts"] for mask in runs.to_coco()], rows, dtype="str")
            return pd.DataFrame({"counts": counts, "area": runs.areas(), "bbox": runs.boxes().tolist()}, rows)

        return source.masks(of_part), details


def _join(instances: pd.DataFrame, faults: pd.Series, masked: pd.Series) -> None:
    """Of rows of one instance the first gets the attributes of all, and the others a fault."""
    sound = instances[(faults == "") & masked]
    repeated = sound[sound.duplicated(INSTANCE, keep=False)]
    faults[sound.index[sound.duplicated(INSTANCE)]] = JOINED
    faults[sound.index[sound.duplicated([*INSTANCE, "attribute_ids"])]] = REPEATED
    joined = repeated.groupby(INSTANCE, sort=False)["attribute_ids"].agg(lambda ids: tuple(sorted(set().union(*ids))))
    first = repeated.index[~repeated.duplicated(INSTANCE)]
    instances.loc[first, "attribute_ids"] = pd.Series(joined.tolist(), index=first, dtype=object)
