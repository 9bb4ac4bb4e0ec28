"""One HTML page of a run, all in one file: scores, curves, classes, mistakes, pictures, claims, data and params.

It reads what the other stages left and computes no score of its own. What is not there is left out.
"""

import base64
import dataclasses
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree.ElementTree import Element

import cv2
import pandas as pd
from pandas.errors import EmptyDataError

from fashionseg.core import files
from fashionseg.report import charts
from fashionseg.report.charts import number
from fashionseg.report.markup import add, document, tag

HERE = Path(__file__).parent
PICTURE_HEIGHT, PICTURE_QUALITY = 512, 72  # 72 pictures of two sides each are some megabytes
SHOWN_PICTURES = 6  # of each kind before one asks for more
MOST_ROWS = 12  # of the confusions that are named
PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "keras-hub",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
    "scikit-learn",
)
# Refuses the network to the page, should anything in it ever ask for it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Run:
    """Where a run's outputs lie (results/, metrics/, data/split.csv), and its params by section."""

    results: Path
    metrics: Path
    split: Path
    params: SimpleNamespace

    def table(self, name: str) -> pd.DataFrame:
        return _table(self.results / name)

    def values(self, folder: Path, name: str) -> dict[str, Any]:
        return files.read_json(folder / name) if (folder / name).exists() else {}

    def curves(self, subset: str) -> pd.DataFrame:
        """What was logged of `train` or `eval`, a column each, by epoch from 1."""
        folder = self.results / "train" / "plots" / "metrics" / subset
        tables = {file.stem: _table(file, "\t") for file in sorted(folder.glob("*.tsv"))}
        columns = {name: table.groupby("step")[name].last() for name, table in tables.items() if name in table}
        table = pd.DataFrame(columns)
        return table.set_axis(table.index + 1)


def build(run: Run) -> str:
    """The page as text; it asks for no other file and no network."""
    sections = [
        ("learning", "Learning", _learning),
        ("scores", "Scores", _scores),
        ("classes", "Classes", _classes),
        ("mistakes", "Mistakes", _mistakes),
        ("pictures", "Pictures", _pictures),
        ("attributes", "Attributes", _attributes),
        ("claims", "Claims", _claims),
        ("data", "Data", _data),
        ("run", "Params and versions", _params),
    ]
    main, links = tag("main"), tag("nav", aria_label="Sections")
    for name, title, of in sections:
        parts = [part for part in of(run) if part is not None]
        if parts:
            add(links, tag("a", title, href=f"#{name}"), " ")
            add(main, tag("section", tag("h2", title, id=name), *parts))
    values = run.params
    what = f"Mask R-CNN, {values.model.backbone}, {values.images.side} px, {values.train.epochs} epochs"
    header = tag("header", tag("h1", "fashionseg"), tag("p", f"{what}; data: {values.data.source}"), links, _cards(run))
    head = [
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("style", (HERE / "style.css").read_text(encoding="utf-8")),
    ]
    dialog = tag("dialog", tag("img", alt=""), aria_label="Picture")
    script = tag("script", (HERE / "script.js").read_text(encoding="utf-8"))
    return document(head, [header, main, dialog, script], f"fashionseg: {what}")


def _cards(run: Run) -> Element:
    scores, tuned = run.values(run.metrics, "evaluate.json"), run.values(run.metrics, "tune.json")
    masks, boxes = scores.get("segm", {}), scores.get("bbox", {})
    cards = [
        ("mask AP", masks.get("AP"), "mean over IoU 0.50:0.95"),
        ("mask AP50", masks.get("AP50"), "at IoU 0.50"),
        ("mask AP75", masks.get("AP75"), "at IoU 0.75"),
        ("box AP", boxes.get("AP"), "mean over IoU 0.50:0.95"),
        ("AP IoU+F1", scores.get("iou_f1", {}).get("AP"), "Fashionpedia's, with attributes"),
        ("attributes", scores.get("attributes", {}).get("macro_f1"), "mean F1 on found instances"),
        ("claims", tuned.get("value"), "competition's metric, validation"),
    ]
    grid = tag("div", class_="cards")
    for place, (name, value, note) in enumerate(cards):
        if value is not None:
            look = "card first" if place == 0 else "card"
            add(grid, tag("div", tag("span", name), tag("b", number(value)), tag("small", note), class_=look))
    if "seconds" in (trained := run.curves("train")):
        seconds, epochs = trained["seconds"].sum(), len(trained)
        speed = trained["images_per_second"].mean() if "images_per_second" in trained else None
        note = f"{epochs} epochs, {number(speed, ',.1f')} images a second"
        add(grid, tag("div", tag("span", "training"), tag("b", _duration(seconds)), tag("small", note), class_="card"))
    return grid


def _learning(run: Run) -> Iterable[Element | None]:
    trained, judged = run.curves("train"), run.curves("eval")
    both = {name: table["loss"] for name, table in (("training", trained), ("validation", judged)) if "loss" in table}
    parts = judged.drop(columns="loss", errors="ignore")
    rate = trained[["learning_rate"]] if "learning_rate" in trained else pd.DataFrame()
    yield _charts(
        charts.lines("Loss", pd.DataFrame(both), "epoch"),
        charts.lines("Validation losses by part", parts, "epoch"),
        charts.lines("Learning rate at the end of the epoch", rate, "epoch", ".2g"),
    )


def _scores(run: Run) -> Iterable[Element | None]:
    kinds = {"segm": "masks", "bbox": "boxes", "iou_f1": "masks and attributes"}
    rows = {kinds[k]: v for k, v in run.values(run.metrics, "evaluate.json").items() if k in kinds}
    if rows:
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("of").reset_index()
        columns = [("of", "of", None), *((name, name, 3) for name in table.columns[1:])]
        yield tag("p", "COCO's definitions; s, m and l are instances of up to 32², up to 96² and more pixels.")
        if kinds["iou_f1"] in rows:
            yield tag(
                "p",
                "With attributes as in Fashionpedia: a class that has some weighs ten times one that has none; "
                "AP_plain is the plain mean.",
            )
        yield charts.sheet("Scores", table, columns)
    curves, groups = run.table("evaluate/precision_recall.csv"), run.table("evaluate/ap_by_supercategory.csv")
    sizes = run.table("evaluate/ap_by_size.csv")
    yield _charts(
        charts.lines("Precision over recall, masks", curves.set_index("recall"), "recall") if len(curves) else None,
        charts.bars("Mask AP by supercategory", _bar_rows(groups, "supercategory", "AP")),
        charts.bars("Mask AP by size of the instance, pixels", _bar_rows(sizes, "side", "AP")),
    )


def _classes(run: Run) -> Iterable[Element | None]:
    table = run.table("evaluate/ap_by_class.csv")
    if table.empty:
        return
    known = run.table("data/classes.csv")
    if len(known) and "id" in table:
        known = known.set_index("class_id")
        table["name"] = table["id"].map(known["name"]).fillna(table["name"])
        table["train"] = table["id"].map(known["train_instances"])
    columns = [
        ("name", "class", None),
        ("AP", "mask AP", 3),
        ("AP50", "mask AP50", 3),
        ("box_AP", "box AP", 3),
        ("AP_IoU_F1", "AP IoU+F1", 3),
        ("truth", "truth", 0),
        ("predictions", "predictions", 0),
        ("train", "trained on", 0),
        ("supercategory", "supercategory", None),
    ]
    yield tag("p", "Instances and average precision on the validation pictures; a click on a heading sorts.")
    yield charts.sheet("Classes", table, columns, "class-table")


def _mistakes(run: Run) -> Iterable[Element | None]:
    errors, pairs = run.table("evaluate/errors.csv"), run.table("evaluate/confusion.csv").astype(str)
    rows = [
        (row["error"], [row["dAP"]], f"{number(row['dAP'])} · {row['count']:,}") for row in errors.to_dict("records")
    ]
    wrong = pairs[pairs["truth"] != pairs["predicted"]].value_counts().head(MOST_ROWS) if len(pairs) else {}
    named = [(_sentence(*pair), [count], f"{count:,}") for pair, count in wrong.items()]
    yield _charts(
        charts.bars(
            "What AP50 would gain without one kind of error",
            rows,
            note="Gain, and how often it happens. Source: TIDE, Bolya et al. 2020.",
        ),
        charts.bars("Most frequent mistakes", named, note="Of predictions of score 0.5 or more, at IoU 0.5."),
    )
    if len(pairs):
        yield tag("h3", "Confusion")
        yield tag(
            "p",
            "Of each class (row) the per cent that are found, taken for another or missed; below, what was invented.",
        )
        yield charts.shares(_crossed(pairs), "truth ↓ prediction →")


def _pictures(run: Run) -> Iterable[Element | None]:
    table = run.table("evaluate/pictures.csv")
    titles = {
        "best": (
            "Best found",
            "By the share of instances found, invented ones among the missed; mean over IoU 0.50:0.95.",
        ),
        "worst": ("Worst found", "By the same share."),
        "wrong": (
            "Most confident mistakes",
            "The picture's most confident prediction that overlaps no instance of its class by IoU 0.5, shown alone.",
        ),
    }
    for kind, (title, note) in titles.items() if len(table) else ():
        figures = [
            figure
            for row in table[table["kind"] == kind].itertuples()
            if (figure := _picture(run.results / "evaluate" / "pictures" / row.file, row.caption)) is not None
        ]
        if figures:
            yield tag("h3", title)
            yield tag("p", "Truth at the left, prediction at the right. " + note)
            yield tag("div", *figures[:SHOWN_PICTURES], class_="pictures")
        if more := figures[SHOWN_PICTURES:]:
            yield tag("details", tag("summary", f"{len(more)} more"), tag("div", *more, class_="pictures"))


def _attributes(run: Run) -> Iterable[Element | None]:
    groups, table = run.table("evaluate/attribute_groups.csv"), run.table("evaluate/attributes.csv")
    aggregates = run.table("evaluate/iou_f1.csv")
    rows = _bar_rows(groups, "supercategory", "F1")
    yield _charts(charts.bars("Mean F1 of frequent attributes on found instances", rows)) if rows else None
    if len(aggregates):
        yield tag("h3", "Average precision with attributes")
        columns = [("name", "mean over", None), *((name, name, 3) for name in aggregates.columns[1:])]
        yield charts.sheet("Average precision with attributes", aggregates, columns)
    if len(table):
        columns = [("name", "attribute", None), ("supercategory", "supercategory", None), ("truth", "truth", 0)]
        columns += [("matched", "found", 0), *((name, name, 3) for name in ("precision", "recall", "F1"))]
        all_of_them = charts.sheet("Attributes", table, columns)
        yield tag("details", tag("summary", f"All {len(table)} attributes"), all_of_them)


def _claims(run: Run) -> Iterable[Element | None]:
    rule, values = run.values(run.results, "claims.json"), run.values(run.metrics, "tune.json")
    plain = {key: value for key, value in rule.items() if isinstance(value, str | int | float)}
    plain |= {"value on new images": values["value"]} if "value" in values else {}
    parts = [tag("div", tag("h3", "Rule"), _list(plain), class_="panel")] if plain else []
    ways, thresholds, masks, calibration, importance = (
        run.table(f"tune/{name}.csv") for name in ("ways", "thresholds", "masks", "calibration", "importance")
    )
    if len(thresholds):
        wide = thresholds.set_index("threshold")
        parts.append(charts.lines("Competition's metric over score threshold", wide, "score threshold"))
    if len(masks):
        wide = masks.set_index("threshold")
        parts.append(charts.lines("IoU thresholds that masks of found instances exceed", wide, "mask threshold"))
    if len(calibration):
        wide = calibration.set_index("expected")[["value"]]
        parts.append(charts.lines("What the selector's claims were worth", wide, "what it expected"))
    parts.append(charts.bars("What the selector looks at", _bar_rows(importance, "feature", "importance")))
    tables = []
    if len(ways):
        columns = [("formula", "formula", None), ("way", "way", None)]
        columns += [(name, name, 4) for name in ways.columns if name not in ("formula", "way")]
        title = "Ways to claim, on images not used to choose"
        tables = [tag("h3", title), charts.sheet(title, ways, columns)]
    if any(part is not None for part in parts) or tables:
        yield tag("p", "What of the predictions the submission claims, chosen on the validation pictures.")
        yield _charts(*parts)
        yield from tables


def _data(run: Run) -> Iterable[Element | None]:
    classes, sizes, dropped = (run.table(f"data/{name}.csv") for name in ("classes", "sizes", "dropped"))
    split = _table(run.split)
    facts = {}
    if len(split):
        counts = split["subset"].value_counts()
        facts = {
            f"{name} pictures": f"{counts.get(key, 0):,}"
            for key, name in (("train", "training"), ("val", "validation"))
        }
    if len(classes):
        facts |= {
            "training instances": f"{classes['train_instances'].sum():,}",
            "validation instances": f"{classes['val_instances'].sum():,}",
            "classes with instances": f"{(classes['instances'] > 0).sum()} of {len(classes)}",
            "in validation alone": f"{((classes['train_instances'] == 0) & (classes['val_instances'] > 0)).sum()}",
        }
    if len(dropped):
        facts["rows left out"] = f"{dropped['count'].sum():,}"
    subsets = ("training", "validation")
    there = classes[classes["instances"] > 0].sort_values("instances", ascending=False) if len(classes) else classes
    rows = [
        (str(row.name).partition(",")[0], [row.train_instances, row.val_instances], f"{row.instances:,}")
        for row in there.itertuples(index=False)
    ]
    if len(sizes):
        sizes = sizes.loc[: sizes["instances"].to_numpy().nonzero()[0].max(initial=0)]
    spans = [
        (f"up to {row.side:g}", [row.train, row.val], f"{row.instances:,}") for row in sizes.itertuples(index=False)
    ]
    yield _charts(
        tag("div", tag("h3", "In numbers"), _list(facts), class_="panel") if facts else None,
        charts.bars("Instance sizes", spans, subsets, "Square root of the area over the long side of the picture."),
        charts.bars("Instances by class", rows, subsets),
    )
    if len(dropped):
        yield tag("h3", "Left out")
        columns = [("reason", "reason", None), ("count", "times", 0), ("first", "first", None)]
        yield charts.sheet("Left out", dropped, columns)


def _params(run: Run) -> Iterable[Element | None]:
    panels, single = [], {}
    for name, section in vars(run.params).items():
        if dataclasses.is_dataclass(section):
            panels.append(tag("div", tag("h3", name), _list(dataclasses.asdict(section)), class_="panel"))
        else:
            single[name] = section
    if single:
        panels.insert(0, tag("div", tag("h3", "params.yaml"), _list(single), class_="panel"))
    versions = {"Python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    versions = {name: version for name, version in versions.items() if version}
    yield _charts(*panels, tag("div", tag("h3", "Versions"), _list(versions), class_="panel"))


def _charts(*parts: Element | None) -> Element | None:
    parts = [part for part in parts if part is not None]
    return tag("div", *parts, class_="charts") if parts else None


def _bar_rows(table: pd.DataFrame, name: str, value: str) -> list[tuple[str, list[float], str]]:
    return [(str(row[name]), [row[value]], number(row[value])) for _, row in table.iterrows()]


def _list(values: dict[str, Any]) -> Element:
    listed = tag("dl")
    for key, value in values.items():
        shown = f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)
        add(listed, tag("dt", key), tag("dd", shown))
    return listed


def _picture(file: Path, caption: str) -> Element | None:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        return None
    scale = PICTURE_HEIGHT / image.shape[0]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].tobytes()
    name = file.stem.split("_", 2)[-1]
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    height, width = image.shape[:2]
    shown = tag("img", src=source, alt=f"{name}: {caption}", width=width, height=height)
    return tag("figure", tag("button", shown, type="button"), tag("figcaption", caption, tag("small", name)))


def _sentence(truth: str, predicted: str) -> str:
    """Of a pair in the confusion table, where what stands in brackets is no class."""
    if truth.startswith("("):
        return f"{predicted} {truth[1:-1]}"
    return f"{truth} {predicted[1:-1]}" if predicted.startswith("(") else f"{truth} taken for {predicted}"


def _crossed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Counts of truth by prediction, alike in order; what stands in brackets at the end."""
    counts = pd.crosstab(pairs["truth"], pairs["predicted"])
    names = sorted({*counts.index, *counts.columns}, key=lambda name: (name.startswith("("), name))
    return counts.reindex(
        index=[name for name in names if name in counts.index or not name.startswith("(")],
        columns=[name for name in names if name in counts.columns or not name.startswith("(")],
        fill_value=0,
    )


def _table(file: Path, separator: str = ",") -> pd.DataFrame:
    """A file with rows, else an empty table without columns; a class may be called NA."""
    try:
        table = pd.read_csv(file, sep=separator, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, EmptyDataError):
        return pd.DataFrame()
    return table if len(table) else pd.DataFrame()


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
