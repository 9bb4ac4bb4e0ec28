"""The declared plots stand where the numbers say, on the page and when DVC compares two runs."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import vl_convert
from dvc_render import VegaRenderer
from outputs import ROOT
from ruamel.yaml import YAML

from fashionseg.core.errors import UserError
from fashionseg.report import plots


def declared(folder, **properties):
    """The only plot of a dvc.yaml in `folder`."""
    file = folder / "dvc.yaml"
    template = str(ROOT / "plots" / properties.pop("template"))
    with file.open("w") as text:
        YAML().dump({"plots": [{"it": {"template": template, **properties}}]}, text)
    return plots.read_all(file)


def marks(spec, role):
    """aria-label and path of each mark of a kind, as drawn by Vega without a browser."""
    svg = vl_convert.vegalite_to_svg(spec, show_warnings=False)
    found = []
    for element in re.findall(r"<path [^>]*>", svg):
        if f'aria-roledescription="{role}"' in element:
            values = dict(re.findall(r'([\w-]+)="([^"]*)"', element))
            found.append((values["aria-label"], values["d"]))
    return found


def lengths(found, direction):
    """Of bars, in pixels; direction: h across, v up."""
    return np.array([abs(float(re.search(rf"{direction}(-?[\d.]+)", path)[1])) for _, path in found])


def test_all_that_is_declared_is_drawn(run):
    shown = plots.read_all(run.declared)
    entries = YAML(typ="safe").load(run.declared)["plots"]
    assert list(shown) == [name for entry in entries if isinstance(entry, dict) for name in entry]
    for name, plot in shown.items():
        assert plot.spec["description"] == plot.title
        assert re.search('aria-roledescription="(bar|line mark|rect)', vl_convert.vegalite_to_svg(plot.spec)), name


def test_points_are_those_of_the_tables(run):
    spec = plots.read_all(run.declared)["Loss"].spec
    values = {"train": [2.5, 1.25, 1], "eval": [2.5, 1.25, 1]}
    assert spec["data"]["values"] == [
        {"step": step, "loss": value, "rev": name} for name in values for step, value in enumerate(values[name])
    ]
    spec = plots.read_all(run.declared)["Score by threshold"].spec
    table = pd.read_csv(run.results / "tune/thresholds.csv")
    for name in ("precision", "jaccard"):
        points = [(row["threshold"], row["value"]) for row in spec["data"]["values"] if row["rev"] == name]
        assert np.allclose(points, table[["threshold", name]])


@pytest.mark.parametrize("scale", [1e-5, 1, 1e4])
def test_lines_are_in_proportion(tmp_path, scale):
    table = pd.DataFrame({"x": [1, 2, 4, 7], "a": [3, 1, 2.5, -1], "b": [0, 0.5, 2, 2]}) * [1, scale, scale]
    table.to_csv(tmp_path / "t.csv", index=False)
    drawn = marks(declared(tmp_path, template="lines.json", x="x", y={"t.csv": ["a", "b"]})["it"].spec, "line mark")
    places = np.array([re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path) for _, path in drawn], float)
    assert places.shape == (2, 4, 2)
    for axis, truth in enumerate(([*table["x"]] * 2, [*table["a"], *table["b"]])):
        found = places[..., axis].ravel()
        slope, start = np.polyfit(truth, found, 1)
        assert np.abs(np.multiply(truth, slope) + start - found).max() < 0.1
        assert (slope > 0) == (axis == 0)  # y grows downwards


def test_gaps_stay_open(tmp_path):
    (tmp_path / "t.csv").write_text("x,a\n1,1\n2,2\n3,\n4,2\n5,1\n")
    ((_, path),) = marks(declared(tmp_path, template="lines.json", x="x", y={"t.csv": "a"})["it"].spec, "line mark")
    assert re.sub(r"[-\d.,]", "", path) == "MLML"


def test_bars_begin_at_zero_the_longest_first(tmp_path):
    (tmp_path / "t.csv").write_text("name,a,b\nx,2,1\ny,8,0\nNA,4,3\n")
    spec = declared(tmp_path, template="bars.json", x="name", y={"t.csv": ["a", "b"]})["it"].spec
    found = marks(spec, "bar")
    order = sorted(found, key=lambda bar: float(re.match(r"M[\d.]+,([\d.]+)", bar[1])[1]))
    assert [re.search(r"name: (\w+).*rev: (\w)", label).groups() for label, _ in order] == [
        ("y", "a"),
        ("y", "b"),
        ("NA", "a"),
        ("NA", "b"),
        ("x", "a"),
        ("x", "b"),
    ]
    width = lengths(order, "h")
    assert np.allclose(width / width[0] * 8, [8, 0, 4, 3, 2, 1])


def test_a_histogram_keeps_the_order_of_its_table(tmp_path):
    (tmp_path / "t.csv").write_text("side,n\nsmall,5\n128,20\nall,10\n")
    found = marks(declared(tmp_path, template="histogram.json", x="side", y={"t.csv": "n"})["it"].spec, "bar")
    places = [float(re.match(r"M([\d.]+)", path)[1]) for _, path in found]
    assert places == sorted(places)
    height = lengths(found, "v")
    assert np.allclose(height / height[1] * 20, [5, 20, 10])


def test_shares_of_a_row(tmp_path):
    (tmp_path / "t.csv").write_text("truth,predicted,count\na,a,3\na,b,1\nb,b,2\n")
    spec = declared(tmp_path, template="confusion.json", x="predicted", y={"t.csv": "truth"})["it"].spec
    svg = vl_convert.vegalite_to_svg(spec)
    cells = re.findall(r'aria-label="predicted: (\w); truth: (\w); share: ([\d.]+)" role="graphics-symbol"', svg)
    assert cells == [("a", "a", "0.75"), ("b", "a", "0.25"), ("b", "b", "1")]
    assert re.findall(r">(\d+)</text>", svg) == ["75", "25", "100"]


def test_two_runs_as_dvc_hands_them_over():
    """DVC reads every value as text."""
    rows = [("old", "x", "2"), ("old", "y", "4"), ("new", "x", "8"), ("new", "y", "1")]
    values = [{"rev": rev, "name": name, "AP": value} for rev, name, value in rows]
    renderer = VegaRenderer(values, "", template=str(ROOT / "plots/bars.json"), x="name", y="AP")
    found = marks(renderer.get_filled_template(), "bar")
    width = lengths(found, "h")
    assert np.allclose(width / width[0] * 2, [2, 4, 8, 1])
    assert len({re.match(r"M[\d.]+,([\d.]+)", path)[1] for _, path in found}) == 4  # no bar hides another


@pytest.mark.parametrize("text", ["", "x,a\n", "x,a\n1,\n2,\n", "x,b\n1,2\n"])
def test_without_values_there_is_no_plot(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert declared(tmp_path, template="lines.json", x="x", y={"t.csv": "a", "missing.csv": "a"}) == {}


def test_one_epoch_is_a_point(tmp_path):
    (tmp_path / "t.tsv").write_text("step\tloss\n0\t1.5\n")
    spec = declared(tmp_path, template="lines.json", x="step", y={"t.tsv": "loss"})["it"].spec
    assert len(marks(spec, "point")) == 1


@pytest.mark.parametrize("wrong", [{"x": {"t.csv": "x"}}, {"y": "a"}, {"template": "nowhere.json"}])
def test_a_plot_that_cannot_be_filled_is_named(tmp_path, wrong):
    (tmp_path / "t.csv").write_text("x,a\n1,2\n")
    with pytest.raises(UserError, match="plot 'it' needs x"):
        declared(tmp_path, **{"template": "lines.json", "x": "x", "y": {"t.csv": "a"}, **wrong})


def test_without_a_template_runs_are_not_laid_over_each_other(tmp_path):
    """DVC draws lines of its own then."""
    (tmp_path / "t.csv").write_text("x,a\n1,2\n")
    (tmp_path / "dvc.yaml").write_text("plots:\n- it: {x: x, y: {t.csv: a}}\n")
    assert list(plots.read_all(tmp_path / "dvc.yaml")) == ["it"]
    assert plots.over_runs(tmp_path / "dvc.yaml", {"run": plots.read_table}) == []


def test_data_is_plain_json(run):
    for plot in plots.read_all(run.declared).values():
        json.dumps(plot.spec, allow_nan=False)
