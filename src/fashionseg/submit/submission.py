"""Claims to Kaggle's CSV, the check of any such CSV, and the comparison of two."""

import csv
import gzip
import itertools
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg.core import files, rle, tables
from fashionseg.core.errors import UserError
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import Prediction, by_image, candidates, grid
from fashionseg.submit.config import Metric, Submission
from fashionseg.submit.postprocess import Rule

COLUMNS = ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
FILLER = "1 1"  # EncodedPixels of the row of an image without a claim
BATCH = 200  # images whose masks are in memory at once
WIDEST = 100  # letters shown of a header that is none
PIXELS = 2**31  # more than any grid has


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a CSV; `line` counts from 1, the header's."""

    line: int
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.column}: {self.found}; expected {self.expected}"


@dataclass(frozen=True)
class Row:
    """A line of the CSV below its header."""

    line: int
    image: str
    pixels: str
    class_id: str
    attribute_ids: str


def sample_ids(path: str | Path) -> list[str]:
    """ImageIds of sample_submission.csv, in its order, each once."""
    return list(dict.fromkeys(tables.read(path, ["ImageId"])["ImageId"]))


def table(
    document: dict[str, Any], predictions: list[Prediction], rule: Rule, order: Sequence[str], params: Submission
) -> pd.DataFrame:
    """The rows of a submission: columns COLUMNS, images as in `order`, one row a claim, a filler row without any.

    document: COCO, its file names are ImageIds. Raises UserError where `order` names an image that it lacks, and for a
    prediction of an image, class or attribute that it lacks.
    """
    images = _images(document)
    predicted = by_image(predictions, document)
    classes = [category["id"] for category in document["categories"]]
    filler_class = kaggle_metric.FILLER_CLASS if kaggle_metric.FILLER_CLASS in classes else classes[0]
    filler = {"EncodedPixels": FILLER, "ClassId": filler_class, "AttributesIds": ""}
    rows = []
    for name in track(order, "claim"):
        if name not in images:
            raise UserError(f"sample_submission.csv names {name}, of which there is no test picture.")
        image = images[name]
        found = candidates(predicted[image["id"]], image["height"], image["width"], params, rule.mask_threshold)
        claims, attribute_ids, masks = rule.claims(found, params)
        rows += [
            {
                "ImageId": name,
                "EncodedPixels": pixels,
                "ClassId": claim["category_id"],
                "AttributesIds": ",".join(map(str, sorted(ids))),
            }
            for claim, ids, pixels in zip(claims, attribute_ids, masks.to_kaggle(), strict=True)
        ] or [{"ImageId": name, **filler}]
    return pd.DataFrame(rows, columns=COLUMNS)


def write(
    path: str | Path, rows: pd.DataFrame, document: dict[str, Any], order: Sequence[str], params: Submission
) -> None:
    """Writes the rows of `table` as CSV. Raises UserError where `check` finds a fault; then `path` is as it was."""
    with files.replacing(path) as beside:
        files.write_csv(beside, rows)
        if faults := check(beside, document, order, params):
            raise UserError(f"{path} would have {len(faults)} faults, the first: {faults[0]}; it was not written.")


def check(path: str | Path, document: dict[str, Any], order: Sequence[str] | None, params: Submission) -> list[Fault]:
    """All faults of a submission's CSV, which may be gzipped, by line; none means that it is valid.

    document: the images with the legal categories and attributes; order: of the ImageIds, None where any will do.
    Raises UserError where there is no file to check.
    """
    rows, faults = _read(path)
    if rows is None:
        return faults
    images = _images(document)
    known = [row for row in rows if row.image in images]
    faults += [
        Fault(row.line, "ImageId", f"'{row.image}'", "an image of sample_submission.csv")
        for row in rows
        if row.image not in images
    ]
    last = rows[-1].line if rows else 1
    seen = {row.image for row in known}
    faults += [
        Fault(last + 1, "ImageId", f"no row of {name}", "every image, with a filler row at least")
        for name in order or images
        if name not in seen
    ]
    faults += _order_faults(known, order)
    faults += _label_faults(known, document)
    for batch in _batches(known):
        faults += _mask_faults(batch, images, params)
    return sorted(faults, key=lambda fault: fault.line)


def score(path: str | Path, document: dict[str, Any], metric: Metric, params: Submission) -> float:
    """The competition's metric of a faultless CSV; document: COCO with the true annotations of its images."""
    images = _images(document)
    truth = defaultdict(list)
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    claims: dict[str, list[Row]] = {name: [] for name in images}
    for row in _read(path)[0] or []:
        claims[row.image].append(row)
    pairs = []
    for name, image in images.items():
        height, width = grid(image["height"], image["width"], params.longest_side)
        rows, true = claims[name], truth[image["id"]]
        masks = rle.from_kaggle([row.pixels for row in rows], [height] * len(rows), [width] * len(rows))
        classes = np.array([int(row.class_id) for row in rows], int)
        attributes = [frozenset(map(int, filter(None, row.attribute_ids.split(",")))) for row in rows]
        true_masks = rle.from_coco([row["segmentation"] for row in true]).resize(height, width)
        true_classes = np.array([row["category_id"] for row in true], int)
        true_attributes = [frozenset(row.get("attribute_ids", [])) for row in true]
        pairs.append(
            (
                kaggle_metric.Instances(masks, classes, attributes),
                kaggle_metric.Instances(true_masks, true_classes, true_attributes),
            )
        )
    return kaggle_metric.value(kaggle_metric.tally(pairs, metric, len(document["attributes"])), metric)


def compare(first: str | Path, second: str | Path, document: dict[str, Any]) -> pd.DataFrame:
    """Claims by class of two CSVs: columns class, both, attributes (same mask, other ids), first, second (only there).

    A claim is the same when image, class and pixels are, however its runs are cut. Classes without a difference are
    left out but for the last row, the sum of all. Raises UserError for what is no submission.
    """
    claims_of = []
    for path in (first, second):
        rows, faults = _read(path)
        if rows is None or any(fault.column == "row" for fault in faults):
            raise UserError(f"{path} is no submission: {faults[0]}.")
        claims = zip(rows, _canonical([row.pixels for row in rows]), strict=True)
        claims_of.append({(row.image, row.class_id, pixels): row.attribute_ids for row, pixels in claims})
    mine, others = claims_of
    names = {str(category["id"]): _short(category) for category in document["categories"]}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for claim in mine.keys() | others.keys():
        if claim in mine and claim in others:
            kind = "both" if mine[claim] == others[claim] else "attributes"
        else:
            kind = "first" if claim in mine else "second"
        counts[names.get(claim[1], claim[1])][kind] += 1
    kinds = ["both", "attributes", "first", "second"]
    rows = [{"class": name, **{kind: counts[name][kind] for kind in kinds}} for name in sorted(counts)]
    found = pd.DataFrame(rows, columns=["class", *kinds])
    changed = found[(found[kinds[1:]] > 0).any(axis=1)]
    return pd.concat([changed, pd.DataFrame([{"class": "all", **found[kinds].sum()}])], ignore_index=True)


def counted(rows: pd.DataFrame, document: dict[str, Any]) -> str:
    """One line on what is claimed: how many, on how many images, of which classes most."""
    real = rows[rows["EncodedPixels"] != FILLER]
    names = {category["id"]: _short(category) for category in document["categories"]}
    most = ", ".join(f"{names[number]} {count}" for number, count in Counter(real["ClassId"]).most_common(5))
    return f"{len(real)} claims on {real['ImageId'].nunique()} of {rows['ImageId'].nunique()} images ({most or 'none'})"


def _canonical(texts: list[str]) -> list[str]:
    """Run lengths with those that touch made one; what is faulty stays as it is."""
    texts, size = np.array(texts, object), (np.full(len(texts), PIXELS), np.ones(len(texts), int))
    sound = np.array([i for i in range(len(texts)) if i not in rle.check_kaggle(texts, *size)], int)
    texts[sound] = rle.from_kaggle(texts[sound], *(side[sound] for side in size)).to_kaggle()
    return texts.tolist()


def _short(category: dict[str, Any]) -> str:
    return category["name"].partition(",")[0]


def _images(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {Path(image["file_name"]).stem: image for image in document["images"]}


def _read(path: str | Path) -> tuple[list[Row] | None, list[Fault]]:
    """The rows of a CSV and what is wrong with its form; no rows where its columns are not those of a submission."""
    try:
        raw = Path(path).read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); name a submission's .csv or .csv.gz.") from None
    faults = []
    if raw.startswith(b"\xef\xbb\xbf"):
        faults.append(Fault(1, "header", "a byte order mark", "plain UTF-8 without one"))
        raw = raw[3:]
    if b"\r" in raw:
        line = raw[: raw.index(b"\r")].count(b"\n") + 1
        faults.append(Fault(line, "row", "a line that ends in CR", "lines that end in LF alone"))
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = raw.decode("utf-8", "replace").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    fields = csv.reader(lines)
    csv.field_size_limit(sys.maxsize)
    header = next(fields, [])
    if header != COLUMNS:
        found = ",".join(header)
        found = found if found.isprintable() else "no text"
        return None, [*faults, Fault(1, "header", found[:WIDEST] or "nothing", ",".join(COLUMNS))]
    rows = []
    for row in fields:
        line = fields.line_num
        if len(row) != len(COLUMNS):
            faults.append(Fault(line, "row", f"{len(row)} fields", f"{len(COLUMNS)}"))
            continue
        rows.append(Row(line, *row))
        if f',"{row[2]}",' in lines[line - 1]:
            faults.append(Fault(line, "ClassId", f'"{row[2]}" in quotes', "a number without quotes"))
    return rows, faults


def _order_faults(rows: list[Row], order: Sequence[str] | None) -> list[Fault]:
    """The first row that comes after one of an image that the sample has later."""
    place = {name: number for number, name in enumerate(order or [])}
    for before, row in itertools.pairwise(rows):
        if order is not None and place.get(row.image, 0) < place.get(before.image, 0):
            expected = "the images in the order of sample_submission.csv"
            return [Fault(row.line, "ImageId", f"{row.image} after {before.image}", expected)]
    return []


def _label_faults(rows: list[Row], document: dict[str, Any]) -> list[Fault]:
    classes = {str(category["id"]) for category in document["categories"]}
    attributes = {str(attribute["id"]) for attribute in document["attributes"]}
    faults = []
    for row in rows:
        if row.class_id not in classes:
            faults.append(Fault(row.line, "ClassId", f"'{row.class_id}'", "the id of a category of the label file"))
        ids = row.attribute_ids.split(",") if row.attribute_ids else []
        if unknown := [name for name in ids if name not in attributes]:
            faults.append(Fault(row.line, "AttributesIds", f"'{unknown[0]}'", "ids of attributes of the label file"))
        elif ids != sorted(set(ids), key=int):
            faults.append(Fault(row.line, "AttributesIds", f"'{row.attribute_ids}'", "each id once, ascending"))
    return faults


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows of BATCH images at a time."""
    of_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_image[row.image].append(row)
    groups = list(of_image.values())
    for start in range(0, len(groups), BATCH):
        yield [row for group in groups[start : start + BATCH] for row in group]


def _mask_faults(rows: list[Row], images: dict[str, dict[str, Any]], params: Submission) -> list[Fault]:
    strings = [row.pixels for row in rows]
    sizes = [grid(images[row.image]["height"], images[row.image]["width"], params.longest_side) for row in rows]
    size = np.array(sizes, np.int64).reshape(-1, 2)
    reasons = rle.check_kaggle(strings, size[:, 0], size[:, 1])
    reasons |= {i: "no runs" for i, text in enumerate(strings) if not text.strip()}
    faults = [
        Fault(rows[i].line, "EncodedPixels", reason, f"runs on a grid of {size[i, 0]} x {size[i, 1]}")
        for i, reason in reasons.items()
    ]
    sound = [i for i in range(len(rows)) if i not in reasons]
    first: dict[tuple[str, str, str], int] = {}
    claims = [(rows[i].image, rows[i].class_id, rows[i].pixels) for i in sound]
    repeated = {i for i, claim in zip(sound, claims, strict=True) if first.setdefault(claim, i) != i}
    faults += [
        Fault(
            rows[i].line,
            "row",
            f"the image, class and pixels of line {rows[first[rows[i].image, rows[i].class_id, rows[i].pixels]].line}",
            "each claim once",
        )
        for i in sorted(repeated)
    ]
    sound = [i for i in sound if i not in repeated]
    runs = rle.from_kaggle([strings[i] for i in sound], size[sound, 0], size[sound, 1])
    rivals = [(rows[i].image, rows[i].class_id if params.overlap == "same_class" else "") for i in sound]
    groups: dict[tuple[str, str], int] = {}
    group = np.array([groups.setdefault(rival, len(groups)) for rival in rivals], int)
    # All runs on one line, a stretch for each group of rivals: there a shared pixel is a run that begins too early.
    starts = runs.starts + group[runs.rows] * int((size[:, 0] * size[:, 1]).max(initial=0))
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate((starts + runs.lengths)[order])
    early = order[1:][starts[order][1:] < reach[:-1]]
    for i in sorted({sound[row] for row in runs.rows[early].tolist()}):
        whom, where = (f" of class {rows[i].class_id}", " and class") if params.overlap == "same_class" else ("", "")
        found, expected = f"shares pixels with another claim{whom}", f"no overlap within an image{where}"
        faults.append(Fault(rows[i].line, "EncodedPixels", found, expected))
    return faults


def answers(path: str) -> dict[str, Any]:
    document, keys = files.read_json(path), ("images", "categories", "attributes")
    if not isinstance(document, dict) or any(key not in document for key in keys):
        raise UserError(f"{path} is no COCO document with {', '.join(keys)}; name one such as data/coco/val.json.")
    return document
