"""Kaggle's CSV: built from predictions, checked, scored against ground truth, compared with another."""

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

from fashionseg.coco.results import Prediction
from fashionseg.core import documents, files, rle, schema, tables
from fashionseg.core.errors import UserError
from fashionseg.submit import kaggle_metric
from fashionseg.submit.candidates import grid_size, make_candidates, predictions_by_image
from fashionseg.submit.config import Metric, Submission
from fashionseg.submit.postprocess import PostProcessing

BATCH = 200  # images whose masks are in memory at once
MAX_HEADER = 100  # characters of a wrong header that are shown
MAX_PIXELS = 2**31  # more than any grid has


@dataclass(frozen=True)
class Fault:
    """An error in a CSV; line 1 is the header."""

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


@dataclass(frozen=True)
class Sample:
    """The form of a submission: columns in order; images: ImageIds in order; filler: cells by column of the row for an
    image without submitted instances, whose EncodedPixels may be empty."""

    columns: list[str]
    images: list[str]
    filler: dict[str, str]

    @property
    def filler_class(self) -> int | None:
        """See `kaggle_metric.MatchCounts`."""
        return int(self.filler.get("ClassId", kaggle_metric.NO_CLASS)) if self.filler["EncodedPixels"] else None


def read_sample(path: str | Path) -> Sample:
    """The sample_submission.csv that `convert` wrote."""
    rows = tables.read(path, tables.NEEDED).drop(columns="row")
    return Sample([*rows], list(dict.fromkeys(rows["ImageId"])), rows.drop(columns="ImageId").iloc[0].to_dict())


def table(
    document: dict[str, Any],
    predictions: list[Prediction],
    post: PostProcessing,
    sample: Sample,
    params: Submission,
) -> tuple[pd.DataFrame, int]:
    """The rows of a submission: columns and images as in the sample, one row per instance, or one filler row.

    Also returns how many attributes were dropped (`PostProcessing.dropped_attributes`). document: COCO. Raises
    UserError where the sample names an image that the document lacks.
    """
    images = _images(document)
    predicted = predictions_by_image(predictions, document)
    rows, dropped = [], 0
    for name in track(sample.images, "post-process"):
        if name not in images:
            raise UserError(
                f"sample_submission.csv names {name}, which the COCO document lacks; both should be of the same "
                "pictures, as `dvc repro convert` writes them."
            )
        image = images[name]
        size = image["height"], image["width"]
        candidates = make_candidates(predicted[image["id"]], *size, params, post.mask_threshold)
        submitted, attribute_sets, masks = post.apply(candidates, params)
        dropped += post.dropped_attributes(submitted)
        rows += [
            {
                "ImageId": name,
                "EncodedPixels": pixels,
                "ClassId": prediction["category_id"],
                "AttributesIds": ",".join(map(str, sorted(ids))),
            }
            for prediction, ids, pixels in zip(submitted, attribute_sets, masks.to_kaggle(), strict=True)
        ] or [{"ImageId": name, **sample.filler}]
    return pd.DataFrame(rows, columns=sample.columns), dropped


def write(path: str | Path, rows: pd.DataFrame, document: dict[str, Any], sample: Sample, params: Submission) -> None:
    """Writes the rows of `table` as CSV. Raises UserError and leaves `path` as it is where `check` finds an error."""
    with files.replacing(path) as beside:
        files.write_csv(beside, rows)
        if faults := check(beside, document, sample, params):
            raise UserError(f"{path} would have {len(faults)} errors, the first: {faults[0]}; it was not written.")


def check(path: str | Path, document: dict[str, Any], sample: Sample | None, params: Submission) -> list[Fault]:
    """All errors of a submission's CSV, which may be gzipped, ordered by line; empty for a valid file.

    document: COCO, with the images, categories and attributes that may occur. Without a sample any of
    `tables.SUBMITTED` and any order are valid. Raises UserError where the file cannot be read.
    """
    rows, faults = _read(path, document, sample.columns if sample else None)
    if rows is None:
        return faults
    images, order = _images(document), sample.images if sample else []
    valid = [row for row in rows if row.image in images]
    faults += [
        Fault(row.line, "ImageId", f"'{row.image}'", "an image of sample_submission.csv")
        for row in rows
        if row.image not in images
    ]
    last = rows[-1].line if rows else 1
    seen = {row.image for row in valid}
    faults += [
        Fault(last + 1, "ImageId", f"no row of {name}", "at least a filler row for every image")
        for name in order or images
        if name not in seen
    ]
    faults += _order_faults(valid, order)
    faults += _label_faults(valid, document)
    empty, filled = ([row for row in valid if bool(row.pixels.strip()) == has_pixels] for has_pixels in (False, True))
    faults += _empty_faults(empty, valid, sample)
    for batch in _batches(filled):
        faults += _mask_faults(batch, images, params)
    return sorted(faults, key=lambda fault: fault.line)


def score_file(path: str | Path, document: dict[str, Any], metric: Metric, params: Submission) -> float:
    """The competition's metric of a valid CSV. document: COCO with the ground truth of its images."""
    images = _images(document)
    truth = defaultdict(list)
    for annotation in document["annotations"]:
        truth[annotation["image_id"]].append(annotation)
    rows_of: dict[str, list[Row]] = {name: [] for name in images}
    for row in _read(path, document)[0] or []:
        if row.pixels.strip():
            rows_of[row.image].append(row)
    pairs = []
    for name, image in images.items():
        size = grid_size(image["height"], image["width"], params)
        of_truth = kaggle_metric.ImageInstances.of_coco(truth[image["id"]], *size)
        pairs.append((_submitted_instances(rows_of[name], *size), of_truth))
    # Every image has a row: where it has no pixels, the image is empty.
    counts = kaggle_metric.count_matches(pairs, metric, len(document["attributes"]), filler_class=None)
    return kaggle_metric.score(counts, metric)


def _submitted_instances(rows: list[Row], height: int, width: int) -> kaggle_metric.ImageInstances:
    return kaggle_metric.ImageInstances(
        masks=rle.from_kaggle([row.pixels for row in rows], [height] * len(rows), [width] * len(rows)),
        classes=np.array([int(row.class_id) for row in rows], int),
        attributes=[frozenset(map(int, filter(None, row.attribute_ids.split(",")))) for row in rows],
    )


def compare(first: str | Path, second: str | Path, document: dict[str, Any]) -> pd.DataFrame:
    """Numbers of instances of two CSVs by class: columns class, both, attributes, first, second.

    both: in both files; attributes: in both, with different attributes; first, second: in one file only. Two instances
    are equal if image, class and pixels are, however the pixels are split into runs. Classes without a difference are
    left out; the last row sums over all classes. Raises UserError for a file that is not a submission.
    """
    instances_of = []
    for path in (first, second):
        rows, faults = _read(path, document)
        if rows is None or any(fault.column == "row" for fault in faults):
            raise UserError(f"{path} is not a submission: {faults[0]}.")
        pixels = _merged_runs([row.pixels for row in rows])
        attributes_of: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)  # a row may stand there twice
        for row, p in zip(rows, pixels, strict=True):
            attributes_of[row.image, row.class_id, p][row.attribute_ids] += 1
        instances_of.append(attributes_of)
    in_first, in_second = instances_of
    names = {str(id): name for id, name in documents.names_of(document).items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for instance in in_first.keys() | in_second.keys():
        first_rows, second_rows = in_first[instance], in_second[instance]
        both = (first_rows & second_rows).total()
        left, right = first_rows.total() - both, second_rows.total() - both
        changed = min(left, right)
        found = {"both": both, "attributes": changed, "first": left - changed, "second": right - changed}
        counts[names.get(instance[1], instance[1])] += Counter(found)
    kinds = ["both", "attributes", "first", "second"]
    rows = [{"class": name, **{kind: counts[name][kind] for kind in kinds}} for name in sorted(counts)]
    by_class = pd.DataFrame(rows, columns=["class", *kinds])
    differing = by_class[(by_class[kinds[1:]] > 0).any(axis=1)]
    return pd.concat([differing, pd.DataFrame([{"class": "all", **by_class[kinds].sum()}])], ignore_index=True)


def summary(rows: pd.DataFrame, dropped: int, document: dict[str, Any], sample: Sample) -> str:
    """One line about the result of `table`: instances, images, the most frequent classes, dropped attributes."""
    instances = rows[rows["EncodedPixels"] != sample.filler["EncodedPixels"]]
    names = documents.names_of(document)
    classes = Counter(instances["ClassId"] if "ClassId" in rows else [next(iter(names))] * len(instances))
    most = ", ".join(f"{names[class_id]} {count}" for class_id, count in classes.most_common(5))
    images = f"{instances['ImageId'].nunique()} of {rows['ImageId'].nunique()} images"
    return (
        f"{len(instances)} instances submitted on {images} ({most or 'none'}), "
        f"{dropped} attributes dropped that no training instance of the class has"
    )


def _merged_runs(texts: list[str]) -> list[str]:
    """EncodedPixels with touching runs merged; invalid ones are kept as they are."""
    runs, invalid = rle.read_kaggle(texts, [MAX_PIXELS] * len(texts), [1] * len(texts))
    merged = zip(texts, runs.to_kaggle(), strict=True)
    return [text if row in invalid else new for row, (text, new) in enumerate(merged)]


def _images(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Images by ImageId or, where a document has none, by the stem of the file name."""
    return {image.get("ImageId", Path(image["file_name"]).stem): image for image in document["images"]}


def _read(
    path: str | Path, document: dict[str, Any], columns: list[str] | None = None
) -> tuple[list[Row] | None, list[Fault]]:
    """The rows of a CSV and its format errors; None instead of rows if its columns are not `columns` or, where that is
    None, `tables.NEEDED` and any others of `tables.SUBMITTED`. Without ClassId all rows have the first class."""
    try:
        raw = Path(path).read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); name the .csv or .csv.gz of a submission.") from None
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
    columns = columns or [name for name in tables.SUBMITTED if name in tables.NEEDED or name in header]
    if header != columns:
        text = ",".join(header)
        text = text if text.isprintable() else "not text"
        return None, [*faults, Fault(1, "header", text[:MAX_HEADER] or "nothing", ",".join(columns))]
    defaults = {"ClassId": str(document["categories"][0]["id"]), "AttributesIds": ""}
    rows = []
    for row in fields:
        line = fields.line_num
        if len(row) != len(columns):
            faults.append(Fault(line, "row", f"{len(row)} fields", f"{len(columns)}"))
            continue
        cells = defaults | dict(zip(columns, row, strict=True))
        rows.append(Row(line, *(cells[name] for name in tables.SUBMITTED)))
        if "ClassId" in columns and _cell(lines[line - 1], columns.index("ClassId")).startswith('"'):
            faults.append(Fault(line, "ClassId", f'"{cells["ClassId"]}" in quotes', "a number without quotes"))
    return rows, faults


def _cell(line: str, index: int) -> str:
    """A cell as written in the line, quotes included; the cells before it, names and run lengths, have no commas."""
    return "".join(line.split(",")[index : index + 1])


def _empty_faults(empty: list[Row], rows: list[Row], sample: Sample | None) -> list[Fault]:
    """Rows without pixels where the sample has no such rows, or where their image has other rows."""
    if sample and sample.filler["EncodedPixels"]:
        expected = f"runs, or `{sample.filler['EncodedPixels']}` for an image without instances"
        return [Fault(row.line, "EncodedPixels", "no runs", expected) for row in empty]
    counts = Counter(row.image for row in rows)
    expected = "an empty row as the only one of its image"
    return [
        Fault(row.line, "EncodedPixels", "no runs, but the image has other rows", expected)
        for row in empty
        if counts[row.image] > 1
    ]


def _order_faults(rows: list[Row], order: Sequence[str]) -> list[Fault]:
    """The first row whose image comes, in the sample, before that of the previous row."""
    position = {name: index for index, name in enumerate(order)}
    for previous, row in itertools.pairwise(rows):
        if position.get(row.image, 0) < position.get(previous.image, 0):
            expected = "the images in the order of sample_submission.csv"
            return [Fault(row.line, "ImageId", f"{row.image} after {previous.image}", expected)]
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
    sizes = [grid_size(images[row.image]["height"], images[row.image]["width"], params) for row in rows]
    size = np.array(sizes, np.int64).reshape(-1, 2)
    runs, reasons = rle.read_kaggle([row.pixels for row in rows], size[:, 0], size[:, 1])
    faults = [
        Fault(rows[i].line, "EncodedPixels", reason, f"runs on a grid of {size[i, 0]} x {size[i, 1]}")
        for i, reason in reasons.items()
    ]
    valid = [i for i in range(len(rows)) if i not in reasons]
    first: dict[tuple[str, str, str], int] = {}
    instances = [(rows[i].image, rows[i].class_id, rows[i].pixels) for i in valid]
    repeated = {i for i, instance in zip(valid, instances, strict=True) if first.setdefault(instance, i) != i}
    faults += [
        Fault(
            rows[i].line,
            "row",
            f"the image, class and pixels of line {rows[first[rows[i].image, rows[i].class_id, rows[i].pixels]].line}",
            "each instance once",
        )
        for i in sorted(repeated)
    ]
    valid = [i for i in valid if i not in repeated]
    runs = runs[np.array(valid, int)]
    keys = [(rows[i].image, rows[i].class_id if params.overlap == "same_class" else "") for i in valid]
    groups: dict[tuple[str, str], int] = {}
    group = np.array([groups.setdefault(key, len(groups)) for key in keys], int)
    # All runs on one line, with one section per group of instances that must not overlap. Two runs share pixels where
    # one starts before the end of an earlier one.
    starts = runs.starts + group[runs.rows] * int((size[:, 0] * size[:, 1]).max(initial=0))
    order = np.argsort(starts, kind="stable")
    ends = np.maximum.accumulate((starts + runs.lengths)[order])
    shared = order[1:][starts[order][1:] < ends[:-1]]
    for i in sorted({valid[row] for row in runs.rows[shared].tolist()}):
        of_class, per = (f" of class {rows[i].class_id}", " and class") if params.overlap == "same_class" else ("", "")
        found, expected = f"shares pixels with another instance{of_class}", f"no overlap within an image{per}"
        faults.append(Fault(rows[i].line, "EncodedPixels", found, expected))
    return faults


def read_document(path: str) -> dict[str, Any]:
    """A COCO document. Raises UserError where the file is something else."""
    document, keys = files.read_json(path), ("images", "categories", "attributes")
    if not isinstance(document, dict) or any(key not in document for key in keys):
        raise UserError(f"{path} is not a COCO document with {', '.join(keys)}; use one such as data/coco/val.json.")
    annotation = {"image_id": int, "category_id": int, "segmentation": documents.RUNS, "attribute_ids?": [int]}
    needed = {**documents.LABELS, "images": [documents.IMAGE], "annotations?": [annotation]}
    fault = schema.mismatch(document, needed) or ("" if document["categories"] else "it has no categories")
    if fault := fault or documents.foreign_or_no_mask(document):
        raise UserError(f"{path}: {fault}; use one such as data/coco/val.json.")
    return documents.apart(document)
