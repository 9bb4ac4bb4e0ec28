"""Charts in HTML and SVG that take their colours from the page, so that they are right in the light and in the dark.

Lines tell their values where the pointer is, without a script. Bars and grids are tables, which a screen reader reads.
"""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from fashionseg.report.markup import add, tag

WIDTH, HEIGHT = 380, 230  # of a chart in its own units, about the pixels it is shown at
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 38
LINE_HEIGHT = 15
SERIES = 6  # colours that style.css has for lines


def number(value: float | None, form: str = ",.3f") -> str:
    """For people: `-` for what is not known."""
    return "-" if value is None or pd.isna(value) else format(value, form)


def lines(title: str, table: pd.DataFrame, x_label: str, form: str = ",.3f") -> Element | None:
    """A figure with one line a column over the index; None without two points to join. Gaps stay open."""
    table = table.apply(pd.to_numeric, errors="coerce").dropna(axis=1, how="all").iloc[:, :SERIES]
    if table.notna().any(axis=1).sum() < 2:
        return None
    x, values = table.index.to_numpy(float), table.to_numpy(float)
    x_ticks, y_ticks = _ticks(x), _ticks(values)
    across = _scale(x.min(), x.max(), LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    last = ", ".join(f"{name} ends at {number(column.dropna().iloc[-1], form)}" for name, column in table.items())
    svg = tag("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}: {last}")
    for value in y_ticks:
        y = f"{up(value):.1f}"
        add(svg, tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        add(svg, tag("text", f"{value:g}", x=LEFT - 6, y=y, dy="0.35em", class_="end"))
    for value in x_ticks[(x_ticks >= x.min()) & (x_ticks <= x.max())]:
        add(svg, tag("text", f"{value:g}", x=f"{across(value):.1f}", y=HEIGHT - BOTTOM + 16, class_="middle"))
    add(svg, tag("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, class_="middle"))
    for place in range(values.shape[1]):
        known = ~np.isnan(values[:, place])
        moves = ["L" if k and before else "M" for k, before in zip(known[1:], known[:-1], strict=True)]
        path = "".join(
            f"{move}{across(at):.1f} {up(value):.1f}"
            for move, at, value, k in zip(["M", *moves], x, values[:, place], known, strict=True)
            if k
        )
        add(svg, tag("path", d=path, class_=f"series s{place}"))
    middles = (across(x[1:]) + across(x[:-1])) / 2
    edges = [LEFT, *middles, WIDTH - RIGHT] if x[0] <= x[-1] else [WIDTH - RIGHT, *middles, LEFT]
    for place, row in enumerate(values):
        rows = [
            (f"s{i}", f"{name} {number(value, form)}")
            for i, (name, value) in enumerate(zip(table.columns, row, strict=True))
            if not np.isnan(value)
        ]
        reach = sorted(edges[place : place + 2])
        add(svg, _told(across(x[place]), reach, [("", f"{x_label} {x[place]:g}"), *rows]))
    legend = tag("figcaption", tag("strong", title))
    if len(table.columns) > 1:
        for place, name in enumerate(table.columns):
            add(legend, " ", tag("span", tag("i", class_=f"s{place}"), str(name), class_="key"))
    return tag("figure", legend, svg, class_="chart")


def bars(
    title: str, rows: Iterable[tuple[str, Sequence[float], str]], keys: Sequence[str] = (), note: str | None = None
) -> Element | None:
    """A figure of horizontal bars, one a (label, lengths of its parts, text); None without any. keys name the parts."""
    rows = [(label, [0 if pd.isna(part) else part for part in parts], text) for label, parts, text in rows]
    if not rows:
        return None
    longest = max(sum(parts) for _, parts, _ in rows) or 1
    body = tag("tbody")
    for label, parts, text in rows:
        drawn = [
            tag("i", class_=f"s{place}", style=f"width:{100 * part / longest:.2f}%") for place, part in enumerate(parts)
        ]
        bar = tag("td", tag("span", *drawn, class_="bar"), aria_hidden="true")
        add(body, tag("tr", tag("th", label, scope="row"), bar, tag("td", text, class_="number")))
    legend = tag("figcaption", tag("strong", title))
    for place, key in enumerate(keys):
        add(legend, " ", tag("span", tag("i", class_=f"s{place}"), key, class_="key"))
    if note:
        add(legend, tag("p", note))
    return tag("figure", legend, tag("table", body, class_="bars"), class_="chart")


def shares(counts: pd.DataFrame, corner: str) -> Element:
    """A grid of a table of counts: each cell is shaded by its share of the row and says it in per cent."""
    head = tag("tr", tag("th", corner))
    for name in counts.columns:
        add(head, tag("th", tag("span", str(name)), scope="col"))
    body = tag("tbody")
    for name, row in counts.iterrows():
        line, total = tag("tr", tag("th", str(name), scope="row")), int(row.sum())
        for other, count in row.items():
            share = count / total if total else 0
            told = f"{name} → {other}: {count} of {total}" if count else None
            shade = f"--share:{100 * share:.0f}%" if count else None
            same = {"class_": "same"} if name == other else {}
            add(line, tag("td", f"{100 * share:.0f}" if count else None, title=told, style=shade, **same))
        add(body, line)
    return tag("div", tag("table", tag("thead", head), body, class_="shares"), class_="wide", tabindex=0)


def _ticks(values: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)


def _scale(low: float, high: float, start: float, end: float):
    return lambda value: start + (value - low) * (end - start) / (high - low if high > low else 1)


def _told(x: float, reach: Sequence[float], rows: Sequence[tuple[str, str]]) -> Element:
    """What is seen while the pointer is within reach of a point: an upright line, and the values beside it."""
    left = x > (LEFT + WIDTH) / 2
    told = tag("g", class_="told")
    add(told, tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=HEIGHT - BOTTOM))
    for place, (series, text) in enumerate(rows):
        at = {"x": f"{x + (-8 if left else 8):.1f}", "y": TOP + LINE_HEIGHT * (place + 1) - 3}
        add(told, tag("text", text, **at, class_=f"{series} {'end' if left else 'start'}"))
    size = {"x": f"{reach[0]:.1f}", "width": f"{reach[1] - reach[0]:.1f}", "y": TOP, "height": HEIGHT - TOP - BOTTOM}
    return tag("g", tag("rect", **size), told, class_="at")
