"""Experiments side by side on one HTML page: what differs, scores, curves laid over each other, the same pictures.

A run is an experiment, tag or commit, read from DVC's cache as it was then, or the workspace. Nothing is run, and what
a run lacks is left out.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.scm import RevError
from dvc_data.index import DataIndexDirError

from fashionseg.core import documents, files, pictures
from fashionseg.core.errors import UserError
from fashionseg.draw import overlay
from fashionseg.report import page, plots

WORKSPACE = "workspace"
PREDICTIONS = "predictions/val.json"
PICTURES = 5
SHOWN_SCORE = 0.5  # score threshold of the instances that are drawn
NO_PART = ("machine", "seed")  # of params: runs that differ in nothing else are of one recipe
SCORES = {
    "mask AP": ("evaluate", "segm", "AP"),
    "mask AP frequent": ("evaluate", "segm", "AP_frequent"),
    "mask AP50": ("evaluate", "segm", "AP50"),
    "box AP": ("evaluate", "bbox", "AP"),
    "AP IoU+F1": ("evaluate", "iou_f1", "AP"),
    "score": ("tune", "value"),
}


@dataclass
class Run:
    """One run. params by "section.key", those that made its scores, as dvc.lock has them; scores by the names of
    SCORES, with "minutes" of training, none where stages of it are yet to run."""

    name: str
    fs: DVCFileSystem
    params: dict[str, str] = field(init=False)
    scores: dict[str, float] = field(init=False)

    def __post_init__(self):
        if not (tree := self._mapping("params.yaml")):
            raise UserError(f"params.yaml of {self.name} is missing or not valid; mend it, or leave {self.name} out.")
        lock = self._mapping("dvc.lock").get("stages")
        lock = lock if isinstance(lock, dict) else {}
        values, recorded, metrics = _flat(tree), {}, {}
        for stage in ("tune", "evaluate"):  # in this order, so that params are those of `evaluate`
            above = _above(lock, stage)
            if _whole(above):
                metrics[stage] = self.json(f"metrics/{stage}.json") or {}
                for made in above:
                    recorded |= _flat(made.get("params", {}).get("params.yaml", {}))
            else:
                print(f"{self.name}: {stage} has not run on what the stages before it made; its scores are left out")
        changed = {key: value for key, value in recorded.items() if key in values and not _same(values[key], value)}
        for key, value in changed.items():
            print(f"{self.name}: {key} is {values[key]} in params.yaml, its scores are of {value}")
        self.params = {key: str(value) for key, value in (values | changed).items()}
        self.scores = {name: value for name, path in SCORES.items() if (value := _at(metrics, path)) is not None}
        seconds = self.table("results/train/plots/metrics/train/seconds.tsv")
        if len(seconds):
            self.scores["minutes"] = float(seconds["seconds"].sum()) / 60

    def _mapping(self, path: str) -> dict[str, Any]:
        """A YAML file of the run; {} where it is missing or none."""
        try:
            tree = yaml.safe_load(self.fs.read_text(path))
        except (FileNotFoundError, yaml.YAMLError):
            tree = None
        return tree if isinstance(tree, dict) else {}

    def json(self, path: str) -> Any:
        file = self.file(path)
        try:
            return files.read_json(file) if file else None
        except UserError:
            raise UserError(f"{path} of {self.name} is not valid JSON; mend it, or leave {self.name} out.") from None

    def table(self, path: str) -> pd.DataFrame:
        file = self.file(path)
        return plots.read_table(file) if file else pd.DataFrame()

    def file(self, path: str) -> Path | None:
        """A copy of a file of the run; None where the run has none or DVC's cache no longer holds it."""
        target = Path(self._folder.name, path)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.fs.get_file(path, str(target))
            except (FileNotFoundError, DataIndexDirError):
                target.unlink(missing_ok=True)
                return None
        return target

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory:
        return tempfile.TemporaryDirectory()

    @property
    def recipe(self) -> tuple:
        return tuple(item for item in self.params.items() if item[0].partition(".")[0] not in NO_PART)


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Values by "section.key"; tree: sections, or single keys as dvc.lock names them."""
    parts = {name: values if isinstance(values, dict) else {"": values} for name, values in tree.items()}
    return {f"{name}.{key}".rstrip("."): value for name, part in parts.items() for key, value in part.items()}


def _above(lock: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """What dvc.lock holds of a stage and of all that make what it reads."""
    found, names = [], [stage] if stage in lock else []
    for name in names:  # the list grows
        found.append(lock[name])
        read = [Path(dep["path"]) for dep in lock[name].get("deps", [])]
        for other, entry in lock.items():
            outs = [Path(out["path"]) for out in entry.get("outs", [])]
            if other not in names and any(path.is_relative_to(out) for path in read for out in outs):
                names.append(other)
    return found


def _whole(stages: Sequence[dict[str, Any]]) -> bool:
    """Whether each of these stages read what the others made last."""
    made = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", [])}
    read = [(dep["path"], dep.get("md5")) for stage in stages for dep in stage.get("deps", [])]
    return all(made.get(path, md5) == md5 for path, md5 in read)


def _same(one: Any, other: Any) -> bool:
    """Whether two values of params are equal; 1e-4 is text to one reader of YAML and a number to the other."""
    try:
        return one == other or float(one) == float(other)
    except (TypeError, ValueError):
        return False


def collect(names: Sequence[str] = ()) -> list[Run]:
    """The runs of these names, else the workspace and all experiments of the last commit; without those that have no
    scores. Raises UserError for a name that is nothing."""
    try:
        with Repo() as repo:
            found = {name: revision for pairs in repo.experiments.ls().values() for name, revision in pairs}
            root = repo.root_dir
    except NotDvcRepoError:
        raise UserError("there is no DVC project here; go to the folder of dvc.yaml.") from None
    except LockError:
        raise UserError("another DVC command is at work in this folder; try again in a moment.") from None
    except DvcException as error:  # no git, no commit, a broken dvc.yaml or dvc.lock
        raise UserError(f"DVC cannot read this project ({error}); `dvc status` tells more.") from None
    runs = []
    for name in names or (WORKSPACE, *found):
        try:
            runs.append(Run(name, DVCFileSystem(root, rev=None if name == WORKSPACE else found.get(name, name))))
        except RevError:
            raise UserError(f"{name} is no experiment, tag or commit; `dvc exp show` lists the experiments.") from None
        except DvcException as error:
            raise UserError(f"{name}: DVC cannot read it ({error}); `dvc status` tells more.") from None
    for run in runs:
        if names and not run.scores:
            print(f"{run.name}: left out, it has no scores in metrics/")
    runs = [run for run in runs if run.scores]
    for run in runs:
        if not run.file(PREDICTIONS):
            print(f"{run.name}: curves and pictures are not in DVC's cache; `dvc pull` or `dvc exp pull` brings them")
    return runs


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run: its name, the params in which runs differ, and its scores."""
    keys = [key for key in _all(run.params for run in runs) if len({run.params.get(key) for run in runs}) > 1]
    rows = [{"run": r.name, **{key: r.params.get(key, "-") for key in keys}, **r.scores} for r in runs]
    return pd.DataFrame(rows)


def recipes(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a recipe, the params but for the seed: runs, and mean and standard deviation of each score; empty where
    no recipe has two runs."""
    groups: dict[tuple, list[Run]] = {}
    # The workspace is the last experiment once more: what has the same params and scores counts once.
    once = {(*run.params.items(), *run.scores.items()): run for run in runs}
    for run in once.values():
        groups.setdefault(run.recipe, []).append(run)
    if len(groups) == len(once):
        return pd.DataFrame()
    keys = [key for key in _all(map(dict, groups)) if len({dict(recipe).get(key) for recipe in groups}) > 1]
    rows = []
    for recipe, members in groups.items():
        scores = pd.DataFrame([member.scores for member in members])
        mean, spread = scores.mean(), scores.std()
        values = [cell for name in scores for cell in ((name, mean[name]), (f"± {name}", spread[name]))]
        params = {key: dict(recipe).get(key, "-") for key in keys}
        rows.append({"runs": ", ".join(member.name for member in members), **params, "n": len(members), **dict(values)})
    return pd.DataFrame(rows)


def build(runs: Sequence[Run], declared: Path) -> str:
    """The page as text; declared: the dvc.yaml of the plots, of which the lines are drawn, one a run."""
    sources = {run.name: run.table for run in runs}
    return (
        page.environment()
        .get_template("compare.html")
        .render(
            what=f"{len(runs)} runs",
            cards=[],
            runs=table(runs),
            recipes=recipes(runs),
            classes=_classes(runs),
            library=plots.library(),
            plots=plots.over_runs(declared, sources),
            pictures=_pictures(runs),
        )
    )


def _classes(runs: Sequence[Run]) -> pd.DataFrame:
    """Mask AP of each class by run."""
    columns = {}
    for run in runs:
        of_run = run.table("results/evaluate/ap_by_class.csv")
        if len(of_run):
            columns[run.name] = of_run.set_index("name")["AP"]
    return pd.DataFrame(columns).rename_axis("class").reset_index() if columns else pd.DataFrame()


def _pictures(runs: Sequence[Run]) -> list[tuple[str, list[page.Picture]]]:
    """Validation pictures that all runs have, from few instances to many: name, then truth and what each run finds."""
    truths = {run.name: documents.apart(run.json("data/coco/val.json") or {}) for run in runs}
    runs = [run for run in runs if truths[run.name] and run.file(PREDICTIONS)]
    if not runs:
        return []
    truth = truths[runs[0].name]
    common = set.intersection(*({i["file_name"] for i in truths[run.name]["images"]} for run in runs))
    counts = pd.Series([a["image_id"] for a in truth["annotations"]], dtype=int).value_counts()
    images = [image for image in truth["images"] if image["file_name"] in common]
    images.sort(key=lambda image: (counts.get(image["id"], 0), image["id"]))
    count = min(PICTURES, len(images))
    chosen = [images[(2 * place + 1) * len(images) // (2 * count)] for place in range(count)]
    chosen = [image for image in chosen if all(run.file(_path(image)) for run in runs)]
    rows = {image["file_name"]: [_drawn(runs[0], truth, image, truth["annotations"], "truth")] for image in chosen}
    for run in runs:
        ids = {image["file_name"]: image for image in truths[run.name]["images"]}
        found = [result for result in run.json(PREDICTIONS) if result["score"] >= SHOWN_SCORE]
        for name, row in rows.items():
            row.append(_drawn(run, truths[run.name], ids[name], found, run.name))
    return list(rows.items())


def _drawn(run: Run, document: dict, image: dict, annotations: list[dict], caption: str) -> page.Picture:
    picture = pictures.read(run.file(_path(image)), remedy="delete it, and this page leaves it out")
    names = [category["name"] for category in document["categories"]]
    own = [annotation for annotation in annotations if annotation["image_id"] == image["id"]]
    instances = overlay.DrawnInstances.of_coco(own, documents.places_of(document), *picture.shape[:2])
    return page.picture(overlay.draw(picture, instances, names), Path(image["file_name"]).stem, caption)


def _path(image: dict[str, Any]) -> str:
    return f"data/images/{image['file_name']}"


def _at(values: Any, path: Sequence[str]) -> float | None:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _all(mappings) -> list[str]:
    """The keys of all, in their order."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
