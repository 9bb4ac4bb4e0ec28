"""What is drawn stands where the numbers say, and text stays text."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read

from fashionseg.report import charts
from fashionseg.report.markup import document, tag


def drawn(element):
    return read(document([], [element], ""))


def points(path):
    return np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", path.attributes["d"]), float)


# html.parser, like a browser, makes one line end of all.
TEXT = st.text().map(lambda text: text.replace("\r", "").replace("\0", ""))


@settings(max_examples=100)
@given(TEXT, TEXT, TEXT)
def test_text_stays_text(first, second, value):
    page = drawn(tag("p", first, tag("b", second, title=value), second))
    (paragraph,) = page.all("p")
    assert paragraph.text == first + second + second
    assert paragraph.all("b")[0].attributes["title"] == value


def test_attributes():
    page = drawn(tag("td", None, 3, class_="number", data_value=0.5, hidden=True, id=None, title=False))
    assert page.all("td")[0].attributes == {"class": "number", "data-value": "0.5", "hidden": ""}
    assert page.all("td")[0].text == "3"


@pytest.mark.parametrize("scale", [1e-5, 1, 1e4])
def test_points_are_in_proportion(scale):
    table = pd.DataFrame({"a": [3, 1, 2.5, -1], "b": [0, 0.5, 2, 2]}, index=[1, 2, 4, 7]) * [scale, scale]
    paths = drawn(charts.lines("both", table, "x")).all("path")
    assert len(paths) == 2
    places = np.concatenate([points(path) for path in paths])
    truth = np.array([[x, y] for name in table for x, y in table[name].items()])
    for axis in (0, 1):
        slope, start = np.polyfit(truth[:, axis], places[:, axis], 1)
        assert np.abs(truth[:, axis] * slope + start - places[:, axis]).max() < 0.11  # they are written to 0.1
        assert (slope > 0) == (axis == 0)  # y grows downwards


def test_values_are_told_where_the_pointer_is():
    table = pd.DataFrame({"one": [0.1, np.nan, 0.3], "two": [1, 2, 3]}, index=[1, 2, 3])
    page = drawn(charts.lines("", table, "epoch"))
    told = [[text.text for text in at.all("text")] for at in page.all("g", class_="at")]
    assert told[0] == ["epoch 1", "one 0.100", "two 1.000"]
    assert told[1] == ["epoch 2", "two 2.000"]
    spans = [(float(rect.attributes["x"]), float(rect.attributes["width"])) for rect in page.all("rect")]
    ends = [start + width for start, width in spans]
    assert ends[:-1] == pytest.approx([start for start, _ in spans[1:]], abs=0.11)
    for (start, _), end, (x, _) in zip(spans, ends, points(page.all("path")[1]), strict=True):
        assert start <= x <= end


def test_gaps_stay_open():
    table = pd.DataFrame({"a": [1, 2, np.nan, 2, 1]})
    (path,) = drawn(charts.lines("", table, "x")).all("path")
    assert re.sub(r"[\d. ]", "", path.attributes["d"]) == "MLML"


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan, 1.0], ["", None]])
def test_nothing_to_join(values):
    assert charts.lines("", pd.DataFrame({"a": values}), "x") is None


def test_a_level_line_is_drawn():
    (path,) = drawn(charts.lines("", pd.DataFrame({"a": [2.0, 2.0]}), "x")).all("path")
    assert np.ptp(points(path)[:, 1]) == 0


def test_bars_are_in_proportion():
    page = drawn(charts.bars("", [("a", [1, 3], "4"), ("b", [2, 0], "2"), ("c", [np.nan, 0], "-")], ("x", "y")))
    widths = [[float(i.attributes["style"][6:-1]) for i in row.all("i")] for row in page.all("tr")]
    assert widths == [[25, 75], [50, 0], [0, 0]]
    assert charts.bars("", []) is None


def test_shares_of_a_row():
    counts = pd.DataFrame({"a": [3, 0], "b": [1, 0]}, index=["a", "none"])
    rows = drawn(charts.shares(counts, "")).all("tbody")[0].all("tr")
    assert [[cell.text for cell in row.all("td")] for row in rows] == [["75", "25"], ["", ""]]
    first = rows[0].all("td")
    assert first[1].attributes == {"title": "a → b: 1 of 4", "style": "--share:25%"}
    assert first[0].attributes["class"] == "same"
