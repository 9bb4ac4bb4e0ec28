"""One HTML page of a run, all in one file: scores, plots, classes, mistakes, pictures, post-processing, data, params.

It reads what the other stages left and computes no score of its own; `run.html` puts it in order. What is not there
is left out.
"""

import base64
import dataclasses
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from fashionseg.core import files, pictures
from fashionseg.report import plots
from fashionseg.report.plots import read_table

PICTURE_HEIGHT, PICTURE_QUALITY = 512, 72  # 72 pictures of two sides each are some megabytes
SHOWN = 6  # pictures of each kind before one asks for more; of the training no more
MOST_ROWS = 12  # of the confusions that are named
PACKAGES = "keras tensorflow tensorflow-cpu jax keras-hub numpy opencv-python-headless pycocotools scikit-learn"


@dataclass(frozen=True)
class Outputs:
    """Where a run's plots are declared (dvc.yaml) and its outputs lie, and its params by section."""

    declared: Path
    results: Path
    metrics: Path
    split: Path
    params: SimpleNamespace

    def table(self, name: str) -> pd.DataFrame:
        return read_table(self.results / name)

    def logged(self, name: str) -> pd.Series:
        """What was logged of the training under this name, a value an epoch."""
        table = self.table(f"train/plots/metrics/train/{name}.tsv")
        return table[name] if name in table else pd.Series(dtype=float)


@dataclass(frozen=True)
class Picture:
    source: str  # a data URL
    width: int
    height: int
    name: str
    caption: str


def build(run: Outputs) -> str:
    """The page as text; it asks for no other file and no network. Raises UserError as `plots.read_all` does."""
    values = run.params
    return (
        environment()
        .get_template("run.html")
        .render(
            first=SHOWN,
            what=f"Mask R-CNN, {values.model.backbone}, {values.images.side} px, {values.train.epochs} epochs; "
            f"data: {values.data.source}",
            cards=_cards(run),
            library=plots.library(),
            plots=plots.read_all(run.declared),
            scores=_scores(run),
            classes=_classes(run),
            mistakes=_mistakes(run),
            pictures=_pictures(run),
            preview=[_of_file(file, "") for file in sorted((run.results / "preview").glob("*.jpg"))[:SHOWN]],
            aggregates=run.table("evaluate/iou_f1.csv").rename(columns={"name": "mean over"}),
            attributes=_attributes(run.table("evaluate/attributes.csv")),
            rule=_rule(run),
            strategies=run.table("tune/strategies.csv").rename(columns={"value": "cross-validated score"}),
            facts=_facts(run),
            dropped=run.table("data/dropped.csv").rename(columns={"count": "times"}),
            params=_params(run.params),
        )
    )


def environment() -> Environment:
    """Where the templates lie; what they put in is escaped."""
    found = Environment(
        loader=PackageLoader("fashionseg.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["number"] = number
    return found


def number(value: float | None, digits: int = 3) -> str:
    """For people: `-` for what is not known; digits: decimals of what is no count."""
    return "-" if pd.isna(value) else f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _values(file: Path) -> dict[str, Any]:
    return files.read_json(file) if file.exists() else {}


def _cards(run: Outputs) -> list[tuple[str, str, str]]:
    """Name, value and note of what is read first."""
    scores, tuned = _values(run.metrics / "evaluate.json"), _values(run.metrics / "tune.json")
    masks, boxes = scores.get("segm", {}), scores.get("bbox", {})
    cards = [
        ("mask AP", masks.get("AP"), "mean over IoU 0.50:0.95"),
        ("mask AP50", masks.get("AP50"), "at IoU 0.50"),
        ("mask AP75", masks.get("AP75"), "at IoU 0.75"),
        ("box AP", boxes.get("AP"), "mean over IoU 0.50:0.95"),
        ("AP IoU+F1", scores.get("iou_f1", {}).get("AP"), "Fashionpedia's, with attributes"),
        ("attributes", scores.get("attributes", {}).get("macro_f1"), "mean F1 on found instances"),
        ("score", tuned.get("value"), "competition's, cross-validated"),
    ]
    cards = [(name, number(value), note) for name, value, note in cards if value is not None]
    if len(seconds := run.logged("seconds")):
        speed = number(run.logged("images_per_second").mean(), 1)
        cards.append(("training", _duration(seconds.sum()), f"{len(seconds)} epochs, {speed} images a second"))
    return cards


def _scores(run: Outputs) -> pd.DataFrame:
    kinds = {"segm": "masks", "bbox": "boxes", "iou_f1": "masks and attributes"}
    rows = {kinds[k]: v for k, v in _values(run.metrics / "evaluate.json").items() if k in kinds}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis("of").reset_index()


def _classes(run: Outputs) -> pd.DataFrame:
    table, known = run.table("evaluate/ap_by_class.csv"), run.table("data/classes.csv")
    if len(known) and "id" in table:
        known = known.set_index("class_id")
        table["name"] = table["id"].map(known["name"]).fillna(table["name"])
        table["train"] = table["id"].map(known["train_instances"]).astype("Int64")
    names = {"name": "class", "AP": "mask AP", "AP50": "mask AP50", "box_AP": "box AP", "AP_IoU_F1": "AP IoU+F1"}
    names |= {"truth": "truth", "predictions": "predictions", "train": "trained on", "supercategory": "supercategory"}
    return _named(table, names)


def _mistakes(run: Outputs) -> pd.DataFrame:
    """The pairs of the confusion table that are most frequent, as sentences."""
    pairs = run.table("evaluate/confusion.csv")
    if pairs.empty:
        return pairs
    wrong = pairs[pairs["truth"].astype(str) != pairs["predicted"].astype(str)].nlargest(MOST_ROWS, "count")
    mistakes = [_sentence(str(row.truth), str(row.predicted)) for row in wrong.itertuples()]
    return _named(wrong.assign(mistake=mistakes), {"mistake": "mistake", "count": "times"})


def _pictures(run: Outputs) -> dict[str, list[Picture]]:
    """By kind: best, worst, wrong."""
    table = run.table("evaluate/pictures.csv")
    shown: dict[str, list[Picture]] = {}
    for row in table.itertuples():
        file = run.results / "evaluate/pictures" / row.file
        if file.exists():
            shown.setdefault(row.kind, []).append(_of_file(file, row.caption))
    return shown


def _attributes(table: pd.DataFrame) -> pd.DataFrame:
    names = {"name": "attribute", "supercategory": "supercategory", "truth": "truth", "matched": "found"}
    return _named(table, names | {name: name for name in ("precision", "recall", "F1")})


def _rule(run: Outputs) -> dict[str, str]:
    rule, tuned = _values(run.results / "postprocessing.json"), _values(run.metrics / "tune.json")
    plain = {key: value for key, value in rule.items() if isinstance(value, str | int | float)}
    return _shown(plain | ({"cross-validated score": tuned["value"]} if "value" in tuned else {}))


def _facts(run: Outputs) -> dict[str, str]:
    classes, dropped, split = run.table("data/classes.csv"), run.table("data/dropped.csv"), read_table(run.split)
    facts = {}
    if len(split):
        counts = split["subset"].value_counts()
        facts = {"training pictures": counts.get("train", 0), "validation pictures": counts.get("val", 0)}
    if len(classes):
        train, val = classes["train_instances"], classes["val_instances"]
        facts |= {"training instances": train.sum(), "validation instances": val.sum()}
        facts |= {"classes": len(classes), "with instances": (classes["instances"] > 0).sum()}
        facts |= {"in validation alone": ((train == 0) & (val > 0)).sum()}
    if len(dropped):
        facts["rows left out"] = dropped["count"].sum()
    return {name: f"{count:,}" for name, count in facts.items()}


def _params(params: SimpleNamespace) -> dict[str, dict[str, str]]:
    """What is shown of params.yaml by section, single keys first, and the versions at the end."""
    sections = {k: dataclasses.asdict(v) for k, v in vars(params).items() if dataclasses.is_dataclass(v)}
    single = {key: value for key, value in vars(params).items() if key not in sections}
    versions = {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES.split()}
    versions = {name: version for name, version in versions.items() if version}
    panels = ({"params.yaml": single} if single else {}) | sections | {"Versions": versions}
    return {name: _shown(values) for name, values in panels.items()}


def _shown(values: dict[str, Any]) -> dict[str, str]:
    return {
        key: f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)
        for key, value in values.items()
    }


def picture(image: np.ndarray, name: str, caption: str) -> Picture:
    """Of an RGB image (H, W, 3) uint8, no higher than PICTURE_HEIGHT."""
    scale = PICTURE_HEIGHT / image.shape[0]
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), PICTURE_HEIGHT
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].tobytes()
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return Picture(source, image.shape[1], image.shape[0], name, caption)


def _of_file(file: Path, caption: str) -> Picture:
    return picture(pictures.read(file), file.stem.split("_", 2)[-1], caption)


def _named(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Those of the columns that are there, under new names."""
    return table[[name for name in names if name in table]].rename(columns=names)


def _sentence(truth: str, predicted: str) -> str:
    """Of a pair in the confusion table, where what stands in brackets is no class."""
    if truth.startswith("("):
        return f"{predicted} {truth[1:-1]}"
    return f"{truth} {predicted[1:-1]}" if predicted.startswith("(") else f"{truth} taken for {predicted}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
