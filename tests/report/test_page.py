"""The page holds what the stages wrote, needs nothing else, and is whole with whatever is missing."""

import base64
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

from fashionseg.report import page

SECTIONS = ["learning", "scores", "classes", "mistakes", "pictures", "attributes", "claims", "data", "run"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def headings(tree) -> list[str]:
    return [heading.attributes["id"] for heading in tree.all("h2")]


def cells(table) -> list[list[str]]:
    return [[cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in table.all("tr")]


def test_everything_is_there_and_linked(run):
    tree = read(page.build(run))
    assert headings(tree) == SECTIONS
    assert [link.attributes["href"] for link in tree.all("a")] == [f"#{name}" for name in SECTIONS]
    ids = [node.attributes["id"] for node in tree.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched(run):
    text = page.build(run)
    tree = read(text)
    assert not re.search(r"https?:|url\(|@import|\bfetch\b|XMLHttp", re.sub(r"base64,[\w+/=]*", "", text))
    for node in tree.all():
        assert node.tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "srcset", "action"):
            assert node.attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not [name for name in node.attributes if name.startswith("on")]
    (policy,) = tree.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none';")


def test_names_stay_names(run):
    tree = read(page.build(run))
    assert len(tree.all("script")) == 1
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
        "claims": "0.450",
        "training": "3 min",
    }


def test_every_pair_of_the_confusion_is_counted(run):
    (grid,) = read(page.build(run)).all("table", class_="shares")
    pairs = pd.read_csv(run.results / "evaluate/confusion.csv", keep_default_na=False)
    told = [cell.attributes["title"] for cell in grid.all("td") if "title" in cell.attributes]
    counts = {title.rpartition(": ")[0]: int(re.search(r"(\d+) of", title)[1]) for title in told}
    assert counts == (pairs["truth"] + " → " + pairs["predicted"]).value_counts().to_dict()
    assert cells(grid)[0][-1] == "(missed)"
    assert cells(grid)[-1][0] == "(invented)"


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
        ("results/claims.json", ""),
        ("results", "learning classes mistakes pictures attributes"),
        ("metrics", ""),
        ("split.csv", ""),
    ],
)
def test_what_is_missing_is_left_out(run, gone, lost):
    path = run.split.parent / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert headings(read(page.build(run))) == [name for name in SECTIONS if name not in lost.split()]


def test_tables_of_tune_are_shown(run):
    tree = read(page.build(run))
    lines = tree.all("path", class_="series")
    shown = [["formula", "way", "value", "gain", "error"], ["precision", "<rule>", "0.4500", "0.0500", "0.0100"]]
    assert shown in [cells(table) for table in tree.all("table")]
    (run.results / "tune" / "thresholds.csv").unlink()
    assert len(read(page.build(run)).all("path", class_="series")) == len(lines) - 2
    for file in ("calibration", "importance", "ways"):
        (run.results / "tune" / f"{file}.csv").unlink()
    assert len(read(page.build(run)).all("path", class_="series")) == len(lines) - 3


def test_of_nothing_the_params_are_left(tmp_path, run):
    empty = page.Run(tmp_path / "no", tmp_path / "no", tmp_path / "no", run.params)
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
        assert tree.all(class_="card")[0].all("span")[0].text == "claims"


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
    """Sorts up and down, unknown values last; shows a picture large; logs no error; no wider than a phone."""
    probe = """
    const said = [];
    window.addEventListener("error", (event) => said.push(event.message));
    document.addEventListener("securitypolicyviolation", (event) => said.push(event.violatedDirective));
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
    """
    text = page.build(run)
    file = tmp_path / "page.html"
    file.write_text(text.replace("</body>", f"<script>window.onload = () => {{{probe}}}</script></body>"))
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    size = ("--window-size=500,900", "--virtual-time-budget=5000")
    done = subprocess.run([browser, *options, *size, file.as_uri()], capture_output=True, text=True, timeout=300)
    (said,) = read(done.stdout).all(id="said")
    names = ["<script>alert('x')</script>", "it's & co", "NA", "never there", 'shirt, "blouse"']
    assert json.loads(said.text) == [
        "descending 0.500|0.400|0.000|0.000|-",
        "ascending 0.000|0.000|0.400|0.500|-",
        "ascending " + "|".join(names),
        "descending " + "|".join(reversed(names)),
        "true 3: 0.00 found true",
        True,
    ]
