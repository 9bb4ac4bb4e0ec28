"""The page holds what the stages wrote, needs nothing else, and is whole with whatever is missing."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from outputs import NAMES, documents, write
from PIL import Image
from reading import read

from fashionseg.report import page, plots

SECTIONS = ["learning", "scores", "classes", "mistakes", "pictures", "attributes", "post-processing", "data", "run"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def headings(tree) -> list[str]:
    return [heading.attributes["id"] for heading in tree.all("h2")]


def cells(table) -> list[list[str]]:
    return [[cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in table.all("tr")]


def drawn(tree) -> dict[str, dict]:
    """Vega-Lite of each chart by its caption."""
    figures = tree.all("figure", class_="chart")
    return {figure.all("figcaption")[0].children[0]: json.loads(figure.all("script")[0].text) for figure in figures}


def test_everything_is_there_and_linked(run):
    tree = read(page.build(run))
    assert headings(tree) == SECTIONS
    assert [link.attributes["href"] for link in tree.all("a")] == [f"#{name}" for name in SECTIONS]
    ids = [node.attributes["id"] for node in tree.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched(run):
    text = page.build(run)
    tree = read(text)
    own = re.sub(r"base64,[\w+/=]*", "", text.replace(plots.library(), ""))
    assert not re.search(r"https?:|url\(|@import|\bfetch\b|XMLHttp", own)
    for node in tree.all():
        assert node.tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "srcset", "action"):
            assert node.attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not [name for name in node.attributes if name.startswith("on")]
    (policy,) = tree.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none';")


def test_names_stay_names(run):
    tree = read(page.build(run))
    assert [node.attributes["type"] for node in tree.all("script")[-2:]] == ["module"] * 2
    assert {node.attributes["type"] for node in tree.all("script")[:-2]} == {"application/json"}
    values = drawn(tree)["Instances by class, training and validation"]["data"]["values"]
    assert [row["name"] for row in values if row["rev"] == "val_instances"] == NAMES
    assert not tree.all("main")[0].all("b")  # an attribute is called <b>bold</b>
    assert "<b>bold</b>" in tree.text
    assert "a mask of <nothing>" in tree.text
    (table,) = tree.all(id="class-table")
    assert [row[0] for row in cells(table)[1:]] == NAMES[:5]


def test_the_class_table_is_that_of_evaluate(run, scores):
    expected = pd.read_csv(run.results / "evaluate/ap_by_class.csv", keep_default_na=False, na_values=[""])
    table = read(page.build(run)).all(id="class-table")[0]
    head, *rows = cells(table)
    assert len(rows) == len(expected) == 5
    for column, name in (("mask AP", "AP"), ("box AP", "box_AP"), ("truth", "truth"), ("predictions", "predictions")):
        at = head.index(column)
        values = [float(row.all("td")[at - 1].attributes["data-value"]) for row in table.all("tr")[1:]]
        assert values == pytest.approx(expected[name].tolist(), nan_ok=True)
        digits = 3 if "AP" in name else 0
        assert [row[at] for row in rows] == [f"{v:.{digits}f}" if v == v else "-" for v in expected[name]]
        if name == "AP":
            assert np.nanmean(values) == pytest.approx(scores["segm"]["AP"], abs=1e-4)


def test_the_headline_is_that_of_the_metrics(run, scores):
    cards = {card.all("span")[0].text: card.all("b")[0].text for card in read(page.build(run)).all(class_="card")}
    assert cards == {
        "mask AP": f"{scores['segm']['AP']:.3f}",
        "mask AP50": f"{scores['segm']['AP50']:.3f}",
        "mask AP75": f"{scores['segm']['AP75']:.3f}",
        "box AP": f"{scores['bbox']['AP']:.3f}",
        "AP IoU+F1": f"{scores['iou_f1']['AP']:.3f}",
        "score": "0.450",
        "training": "3 min",
    }


def test_all_plots_are_shown_once(run):
    tree = read(page.build(run))
    assert set(drawn(tree)) == {plot.title for plot in plots.read_all(run.declared).values()}
    assert len(tree.all(class_="chart")) == len(plots.read_all(run.declared))
    assert "more" not in headings(tree)  # each has its place


def test_a_plot_of_ones_own_is_shown_too(run):
    with run.declared.open("a") as file:
        file.write("- My own:\n    x: feature\n    y: {../results/tune/importance.csv: importance}\n")
    tree = read(page.build(run))
    assert headings(tree)[-2:] == ["more", "run"]
    assert drawn(tree.all("section")[-2]).keys() == {"My own"}


def test_the_most_frequent_mistakes_are_named(run):
    confusion = run.results / "evaluate/confusion.csv"
    confusion.write_text("truth,predicted,count\nhat,hat,9\nhat,(missed),2\nhat,scarf,3\n(invented),hat,1\n")
    (table,) = read(page.build(run)).all("div", **{"aria-label": "Most frequent mistakes"})
    assert cells(table)[1:] == [["hat taken for scarf", "3"], ["hat missed", "2"], ["hat invented", "1"]]


def test_classes_named_by_numbers_are_not_mistaken_for_others(run):
    confusion = run.results / "evaluate/confusion.csv"
    confusion.write_text("truth,predicted,count\n1,1,9\n1,(missed),2\n1,2,3\n")
    (table,) = read(page.build(run)).all("div", **{"aria-label": "Most frequent mistakes"})
    assert cells(table)[1:] == [["1 taken for 2", "3"], ["1 missed", "2"]]


def test_pictures_are_those_of_evaluate(run):
    figures = read(page.build(run)).all(class_="pictures")
    shown = [(image.attributes["alt"], image.attributes) for part in figures for image in part.all("img")]
    assert [alt for alt, _ in shown] == [
        "1: 0.60 found",
        "2: 0.00 found",
        "3: 0.00 found",
        "2: shirt 0.97: IoU 0.83 with a true NA",
        "3: never there 0.55: nothing there",
    ]
    for _, attributes in shown:
        image = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        assert image.format == "JPEG"
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        assert image.height == page.PICTURE_HEIGHT


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        ("results/train", "learning"),
        ("results/evaluate/ap_by_class.csv", "classes"),
        ("results/evaluate/pictures.csv", "pictures"),
        ("results/evaluate/pictures", "pictures"),
        ("results/evaluate", "classes mistakes pictures attributes"),
        ("results/data/classes.csv", ""),
        ("results/postprocessing.json", ""),
        ("results", "learning classes mistakes pictures attributes"),
        ("metrics", ""),
        ("split.csv", ""),
    ],
)
def test_what_is_missing_is_left_out(run, gone, lost):
    path = run.split.parent / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert headings(read(page.build(run))) == [name for name in SECTIONS if name not in lost.split()]


def test_the_rules_are_shown_with_their_scores(run):
    shown = [
        ["formula", "strategy", "cross-validated score", "gain", "error"],
        ["precision", "<rule>", "0.4500", "0.0500", "0.0100"],
    ]
    assert shown in [cells(table) for table in read(page.build(run)).all("table")]


def test_of_nothing_the_params_are_left(tmp_path, run):
    shutil.copytree(run.declared.parent, tmp_path / "no/plots")
    no = tmp_path / "no"
    empty = page.Outputs(no / "plots/dvc.yaml", no, no, no / "split.csv", run.params)
    assert headings(read(page.build(empty))) == ["run"]


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("found", [True, False])
def test_without_truth_predictions_or_attributes(tmp_path, truth, found):
    document, results = documents()
    document = {**document, "annotations": document["annotations"] * truth, "attributes": []}
    rows = [*document["annotations"], *results]
    for row in rows:
        row["attribute_ids"] = []
    tree = read(page.build(write(tmp_path / "run", document, results * found)))
    assert "attributes" not in headings(tree)
    assert "scores" in headings(tree)
    if not truth:
        assert tree.all(class_="card")[0].all("span")[0].text == "score"


def test_params_and_versions(run):
    tree = read(page.build(run))
    listed = dict(zip((node.text for node in tree.all("dt")), (node.text for node in tree.all("dd")), strict=True))
    assert listed["seed"] == "2020"
    assert listed["backbone"] == run.params.model.backbone
    assert listed["learning_rate"] == f"{run.params.train.learning_rate:g}"
    assert listed["validation pictures"] == "1"
    assert "keras" in listed


def test_the_same_run_is_the_same_page(run):
    assert page.build(run) == page.build(run)


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason=f"none of {', '.join(BROWSERS)} is installed")
def test_in_a_browser(run, tmp_path):
    """Draws all plots, tells a bar's values; sorts up and down, unknown values last; shows a picture large; logs no
    error; no wider than a phone."""
    probe = """
    const said = [];
    window.addEventListener("error", (event) => said.push(event.message));
    window.addEventListener("unhandledrejection", (event) => said.push(String(event.reason)));
    document.addEventListener("securitypolicyviolation", (event) => said.push(event.violatedDirective));
    const plots = [...document.querySelectorAll(".plot")];
    const check = () => {
      if (plots.some((plot) => !plot.querySelector("svg [aria-roledescription]"))) return setTimeout(check, 50);
      const bars = plots.find((plot) => plot.getAttribute("aria-label").includes("AP50"));
      const bar = [...bars.querySelectorAll("[aria-roledescription=bar]")].at(-1);
      bar.dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
      said.push(document.querySelector("#vg-tooltip-element").innerText.replace(/\\s+/g, " "));
      said.push(plots.every((plot) => plot.querySelector("svg").clientWidth <= document.body.clientWidth));
      const table = document.querySelector("#class-table");
      const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
      const click = (place) => table.tHead.rows[0].cells[place].querySelector("button").click();
      for (const place of [1, 1, 0, 0]) {
        click(place);
        said.push(table.querySelector("[aria-sort]").getAttribute("aria-sort") + " " + column(place).join("|"));
      }
      document.querySelectorAll(".pictures button")[1].click();
      document.querySelector("dialog").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
      const dialog = document.querySelector("dialog");
      said.push(dialog.open + " " + dialog.firstElementChild.alt + " " + (dialog.firstElementChild.naturalWidth > 0));
      said.push(document.documentElement.scrollWidth <= window.innerWidth);
      const result = document.createElement("pre");
      result.id = "said";
      result.textContent = JSON.stringify(said);
      document.body.append(result);
    };
    check();
    """
    file = tmp_path / "page.html"
    before, _, after = page.build(run).rpartition("</body>")
    file.write_text(f"{before}<script>{probe}</script></body>{after}")
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    size = ("--window-size=500,900", "--virtual-time-budget=5000")
    done = subprocess.run([browser, *options, *size, file.as_uri()], capture_output=True, text=True, timeout=300)
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout)[1]
    names = ["<script>alert('x')</script>", "it's & co", "NA", "never there", 'shirt, "blouse"']
    assert json.loads(html.unescape(said)) == [
        "count 1 dAP 0 error missed",
        True,
        "descending 0.500|0.400|0.000|0.000|-",
        "ascending 0.000|0.000|0.400|0.500|-",
        "ascending " + "|".join(names),
        "descending " + "|".join(reversed(names)),
        "true 3: 0.00 found true",
        True,
    ]


def test_a_picture_one_pixel_wide_stays_one_pixel_wide():
    height = 4 * page.PICTURE_HEIGHT
    found = page.picture(np.zeros((height, 1, 3), np.uint8), "a", "b")
    assert (found.width, found.height) == (1, page.PICTURE_HEIGHT)
