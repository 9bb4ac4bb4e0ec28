"""The plots that dvc.yaml declares, filled by DVC's renderer: the page shows what `dvc plots show` shows.

What DVC does with revisions happens here with the lines or bars of one run: each has a colour of its own.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import yaml
from dvc_render import VegaRenderer
from dvc_render.exceptions import DvcRenderError
from pandas.errors import EmptyDataError

from fashionseg.core.errors import UserError

PLOT_SIDE = 300  # what DVC's renderer fills in, pixels
HEIGHT = 220  # on the page, of a plot that does not grow with its rows
LINES = "lines"  # the template of plots whose runs can be laid over each other
SERIES = "rev"  # the column by which DVC's templates choose a colour


@dataclass(frozen=True)
class Plot:
    title: str
    spec: dict[str, Any]  # Vega-Lite with its data, as wide as the element it is put in


def read_all(path: Path) -> dict[str, Plot]:
    """The plots of a dvc.yaml by name, without those of which no table is there.

    As in DVC files are relative to its folder, templates to the working directory. Folders of pictures are passed over.
    Raises UserError for a plot without x, a column, and y, columns by file.
    """
    plots = {}
    for name, properties in _declared(path):
        with _named(path, name):
            sources = _sources(properties)
            series = zip(_series(sources), [(path.parent / file, field) for file, field in sources], strict=True)
            tables = [(label, read_table(file), field) for label, (file, field) in series]
            plot = _filled(name, properties, tables, properties.get("title", name))
        plots |= {name: plot} if plot else {}
    return plots


def over_runs(path: Path, runs: dict[str, Callable[[str], pd.DataFrame]]) -> list[Plot]:
    """The lines of a dvc.yaml's plots, each with one line a run; runs: what reads a table of the project, by name."""
    plots = []
    for name, properties in _declared(path):
        with _named(path, name):
            if Path(properties.get("template", "")).stem != LINES:  # without one DVC draws lines of its own
                continue
            sources = _sources(properties)
            for label, (file, field) in zip(_series(sources), sources, strict=True):
                inside = os.path.normpath(path.parent / file)
                tables = [(run, read(inside), field) for run, read in runs.items()]
                title = properties.get("title", name) + f": {label}" * (len(sources) > 1)
                plots.append(_filled(name, properties, tables, title))
    return [plot for plot in plots if plot]


@functools.cache
def library() -> str:
    """Vega-Lite, Vega and vega-embed as one JavaScript module."""
    return vl_convert.javascript_bundle()


def read_table(file: Path) -> pd.DataFrame:
    """A CSV or TSV file with rows, else an empty table without columns; a class may be called NA."""
    try:
        table = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", keep_default_na=False, na_values=[""])
    except (FileNotFoundError, EmptyDataError):
        return pd.DataFrame()
    return table if len(table) else pd.DataFrame()


def _declared(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("plots", []):
        yield from entry.items() if isinstance(entry, dict) else ()


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (DvcRenderError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: plot '{name}' needs x (a column), y (columns by file) and a template, if it names one: {error!r}."
        ) from None


def _sources(properties: dict[str, Any]) -> list[tuple[str, str]]:
    """(file, field) of each line."""
    fields = {file: [of] if isinstance(of, str) else of for file, of in properties["y"].items()}
    return [(file, field) for file, of_file in fields.items() for field in of_file]


def _filled(
    name: str, properties: dict[str, Any], tables: list[tuple[str, pd.DataFrame, str]], title: str
) -> Plot | None:
    """tables: name of the line, its table and its field."""
    x, y = properties["x"], tables[0][2] if len({field for *_, field in tables}) == 1 else "value"
    tables = [
        table.assign(**{SERIES: label, y: table[field]}) for label, table, field in tables if {x, field} <= set(table)
    ]
    if all(table[y].isna().all() for table in tables):
        return None
    texts = [table.to_json(orient="records", double_precision=8) for table in tables]  # with null for NaN
    rows = [row for text in texts for row in json.loads(text)]
    filled = VegaRenderer(rows, name, **({"x_label": x, "y_label": y} | properties | {"y": y}))
    # The page's own caption breaks into lines where it is narrow.
    spec = filled.get_filled_template() | {"title": None, "description": title}
    if spec.get("width") == PLOT_SIDE:
        spec["width"] = "container"
    if spec.get("height") == PLOT_SIDE:
        spec["height"] = HEIGHT
    if len(tables) == 1:
        spec["config"] = {"legend": {"disable": True}}
    return Plot(title, spec)


def _series(sources: list[tuple[str, str]]) -> list[str]:
    """A name for each (file, field): the field, or what differs in the paths of fields that are called alike."""
    fields = [field for _, field in sources]
    if len(set(fields)) == len(fields):
        return fields
    parts = [Path(file).parts for file, _ in sources]
    return ["/".join(part for part, *others in zip(own, *parts, strict=False) if len({*others}) > 1) for own in parts]
