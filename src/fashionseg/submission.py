"""Instances to Kaggle's CSV, and the check of any such CSV."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from fashionseg import rle
from fashionseg.claims import Prediction, Rule, by_image, grid, on_grid
from fashionseg.errors import UserError
from fashionseg.params import Submission

COLUMNS = ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
FILLER = {"EncodedPixels": "1 1", "ClassId": 23, "AttributesIds": ""}  # an image without a claim must appear too


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a CSV; `line` counts from 1, the header's."""

    line: int
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.column}: {self.found}; expected {self.expected}"


def sample_ids(path: str | Path) -> list[str]:
    """ImageIds of sample_submission.csv, in its order, each once."""
    try:
        return list(dict.fromkeys(pd.read_csv(path, dtype=str, usecols=["ImageId"])["ImageId"]))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} gives no ImageIds ({error}); it should be the competition's sample.") from None


def table(
    document: dict[str, Any], predictions: list[Prediction], rule: Rule, order: Sequence[str], params: Submission
) -> pd.DataFrame:
    """The rows of a submission: columns COLUMNS, images as in `order`, one row a claim, a filler row without any.

    document: COCO, its file names are ImageIds. Raises UserError where `order` names an image that it lacks.
    """
    images = {Path(image["file_name"]).stem: image for image in document["images"]}
    predicted = by_image(predictions, (image["id"] for image in document["images"]))
    rows = []
    for image_id in track(order, "claim"):
        if image_id not in images:
            raise UserError(f"sample_submission.csv names {image_id}, of which there is no test picture.")
        group = predicted[images[image_id]["id"]]
        chosen = np.flatnonzero(rule.chosen(np.array([prediction["score"] for prediction in group])))
        claims, masks = on_grid([group[i] for i in chosen], params)
        rows += [
            {
                "ImageId": image_id,
                "EncodedPixels": pixels,
                "ClassId": claim["category_id"],
                "AttributesIds": ",".join(map(str, sorted(claim["attribute_ids"]))),
            }
            for claim, pixels in zip(claims, masks.to_kaggle(), strict=True)
        ] or [{"ImageId": image_id, **FILLER}]
    return pd.DataFrame(rows, columns=COLUMNS)


def check(path: str | Path, document: dict[str, Any], order: Sequence[str], params: Submission) -> list[Fault]:
    """All faults of a submission's CSV, by line; none means that it is valid.

    document: the test images with the legal categories and attributes; order: the ImageIds that must appear.
    """
    raw = Path(path).read_bytes()
    if raw.startswith(b"\xef\xbb\xbf"):
        return [Fault(1, "header", "a byte order mark", "plain UTF-8 without one")]
    lines = csv.reader(raw.decode("utf-8", "replace").splitlines())
    header = next(lines, [])
    if header != COLUMNS:
        return [Fault(1, "header", ",".join(header) or "nothing", ",".join(COLUMNS))]
    sizes = {
        Path(image["file_name"]).stem: grid(image["height"], image["width"], params.longest_side)
        for image in document["images"]
    }
    faults, rows, numbers = [], [], []
    for number, row in enumerate(lines, 2):
        if len(row) != len(COLUMNS):
            faults.append(Fault(number, "row", f"{len(row)} fields", f"{len(COLUMNS)}"))
        elif row[0] not in sizes:
            faults.append(Fault(number, "ImageId", f"'{row[0]}'", "an image of sample_submission.csv"))
        else:
            rows.append(row)
            numbers.append(number)
    faults += _label_faults(rows, numbers, document)
    faults += _mask_faults(rows, numbers, sizes)
    present = {row[0] for row in rows}
    faults += [
        Fault(len(numbers) + 2, "ImageId", f"no row of {image_id}", "every test image, with a filler row at least")
        for image_id in order
        if image_id not in present
    ]
    return sorted(faults, key=lambda fault: fault.line)


def _label_faults(rows: list[list[str]], numbers: list[int], document: dict[str, Any]) -> list[Fault]:
    classes = {str(category["id"]) for category in document["categories"]}
    attributes = {str(attribute["id"]) for attribute in document["attributes"]}
    faults = []
    for number, (_, _, class_id, attribute_ids) in zip(numbers, rows, strict=True):
        if class_id not in classes:
            faults.append(Fault(number, "ClassId", f"'{class_id}'", "the id of a category of the label file"))
        ids = attribute_ids.split(",") if attribute_ids else []
        if unknown := [name for name in ids if name not in attributes]:
            faults.append(Fault(number, "AttributesIds", f"'{unknown[0]}'", "ids of attributes of the label file"))
        elif ids != sorted(set(ids), key=int):
            faults.append(Fault(number, "AttributesIds", f"'{attribute_ids}'", "each id once, ascending"))
    return faults


def _mask_faults(rows: list[list[str]], numbers: list[int], sizes: dict[str, tuple[int, int]]) -> list[Fault]:
    strings = [row[1] for row in rows]
    size = np.array([sizes[row[0]] for row in rows], np.int64).reshape(-1, 2)
    reasons = rle.check_kaggle(strings, size[:, 0], size[:, 1])
    reasons |= {i: "no runs" for i, text in enumerate(strings) if not text.strip()}
    faults = [
        Fault(numbers[i], "EncodedPixels", reason, f"runs on a grid of {size[i, 0]} x {size[i, 1]}")
        for i, reason in reasons.items()
    ]
    sound = [i for i in range(len(rows)) if i not in reasons]
    if not sound:
        return faults
    runs = rle.from_kaggle([strings[i] for i in sound], size[sound, 0], size[sound, 1])
    groups: dict[tuple[str, str], int] = {}
    group = np.array([groups.setdefault((rows[i][0], rows[i][2]), len(groups)) for i in sound])
    # All runs on one line, a stretch for each image and class: there a shared pixel is a run that begins too early.
    starts = runs.starts + group[runs.rows] * int((size[:, 0] * size[:, 1]).max())
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate((starts + runs.lengths)[order])
    early = order[1:][starts[order][1:] < reach[:-1]]
    for i in sorted({sound[row] for row in runs.rows[early].tolist()}):
        found = f"shares pixels with another claim of class {rows[i][2]}"
        faults.append(Fault(numbers[i], "EncodedPixels", found, "no overlap within an image and class"))
    return faults


def counted(rows: pd.DataFrame, document: dict[str, Any]) -> str:
    """One line on what is claimed: how many, on how many images, of which classes most."""
    real = rows[rows["EncodedPixels"] != FILLER["EncodedPixels"]]
    names = {category["id"]: category["name"].partition(",")[0] for category in document["categories"]}
    most = ", ".join(f"{names[number]} {count}" for number, count in Counter(real["ClassId"]).most_common(5))
    return f"{len(real)} claims on {real['ImageId'].nunique()} of {rows['ImageId'].nunique()} images ({most or 'none'})"
