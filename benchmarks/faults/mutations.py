"""Files that are wrong in many ways, each read by the stages that read it, in this process.

Each time there is either one sentence that names the file, or a result that is right: right by what other programs or
plain loops make of the same file, or equal to that of the sound file.
"""

import contextlib
import io
import random
import shutil
import stat
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import checks
import cv2
import damage
import numpy as np
import project

from fashionseg import __main__ as commands
from fashionseg import params
from fashionseg.coco import masks
from fashionseg.core import files, rle
from fashionseg.core.errors import reported

BYTES = "any byte"  # in `ways`: `damage.of_bytes`


@dataclass(frozen=True)
class Kind:
    """file: drawn of these; ways: of damage; read: what reads it, called in the project's folder; wrong: what is wrong
    with the result, '' for nothing, told the file as it is; names: what a sentence may name instead of the file."""

    files: list[str]
    ways: tuple
    read: Callable[[str], None]
    wrong: Callable[[str], str]
    names: tuple[str, ...] = ()


def try_all(reference: Path, folder: Path, count: int, seed: int, only: list[str]) -> tuple[Counter, list[str]]:
    """`count` mutations of each kind of file. Outcomes counted by kind, and findings."""
    _workspace(reference, folder)
    outcomes, findings = Counter(), []
    with project.working_in(folder):
        for name, kind in kinds().items():
            if only and name not in only:
                continue
            kind = _checkpoint() if name == "checkpoint" else kind
            drawn = random.Random(f"{seed} {name}")
            for number in range(count):
                outcome, finding = _try_one(kind, drawn)
                outcomes[name, outcome] += 1
                if finding:
                    findings.append(f"{name} {number}: {finding}")
                    print(findings[-1], flush=True)
            print(name, {outcome: n for (of, outcome), n in outcomes.items() if of == name}, flush=True)
    return outcomes, findings


def _try_one(kind: Kind, drawn: random.Random) -> tuple[str, str]:
    """Outcome, and what to look at where it is no good one."""
    name = drawn.choice(kind.files)
    sound = Path(name).read_bytes()
    while (way := drawn.choice(kind.ways)) and (mutation := _damaged(way, sound, drawn))[1] == sound:
        pass
    what, data = mutation
    Path(name).write_bytes(data)
    try:
        said = _said(kind.read, name)
        if said is None:
            wrong = kind.wrong(name)
            return ("silently wrong", f"{name}, {what}: {wrong}") if wrong else ("right", "")
        if said.startswith("error: ") and "\n" not in said:
            named = any(word in said for word in (name, *kind.names))
            return ("a sentence", "") if named else ("a sentence without the file", f"{name}, {what}: {said}")
        return "traceback", f"{name}, {what}: {said}"
    finally:
        Path(name).write_bytes(sound)


def _damaged(way, sound: bytes, drawn: random.Random) -> damage.Damage:
    if way == BYTES:
        return damage.of_bytes(sound, drawn, [Path(other).read_bytes() for other in OTHERS])
    return way(sound, drawn)


OTHERS = ["predictions/val.json", "data/raw/train.csv", "params.yaml", "results/preview/01.jpg", "data/split.csv"]


def _said(read: Callable[[str], None], name: str) -> str | None:
    """The sentence with which a call ends, or its traceback; None where it ends well."""
    try:
        with quiet(), reported():
            read(name)
    except SystemExit as ended:
        return str(ended.code)
    except BaseException:
        return traceback.format_exc(limit=-4)
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what stages print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _workspace(reference: Path, folder: Path) -> None:
    """A copy of the project after its run whose predictions are better than three epochs give."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reference, folder, ignore=shutil.ignore_patterns(".dvc", "src"))
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    with project.working_in(folder), quiet():
        val = files.read_json("data/coco/val.json")
        files.write_json("predictions/val.json", _likely(val, val["annotations"]))
        files.write_json("predictions/test.json", _likely(files.read_json("data/coco/test.json"), val["annotations"]))
        for name in ("evaluate", "tune", "submit"):
            stage(name)
        shutil.copytree("data", "sound/data")
        shutil.copy("params.yaml", "sound/params.yaml")
        for made in ("results", "metrics", "submissions", "predictions"):
            shutil.copytree(made, f"sound/{made}")


def _likely(document: dict, truth: list[dict]) -> list[dict]:
    """Predictions: for each image six of the true masks, some of another class."""
    drawn = np.random.default_rng(0)
    labels = [category["id"] for category in document["categories"]]
    found = []
    for image in document["images"]:
        own = [one for one in truth if one["segmentation"]["size"] == [image["height"], image["width"]]] or truth
        for place in drawn.choice(len(own), min(6, len(own)), replace=False):
            one = own[place]
            mask = rle.from_coco([one["segmentation"]]).resize(image["height"], image["width"])
            x, y, w, h = mask.boxes()[0].tolist()
            if not w * h:
                continue
            soft = cv2.resize(mask.decode(0)[y : y + h, x : x + w].astype(np.float32), (28, 28))
            scores = drawn.uniform(0.1, 1, 5).round(4).tolist()
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": one["category_id"] if drawn.random() < 0.8 else int(drawn.choice(labels)),
                    "score": scores[0],
                    "segmentation": mask.to_coco()[0],
                    "bbox": [x, y, w, h],
                    "margin": scores[1],
                    "agreement": 1.0,
                    "mask": masks.pack(soft),
                    "mask_score": scores[2],
                    "stability": scores[3],
                    "attribute_ids": one["attribute_ids"],
                    "attribute_scores": [scores[4]] * len(one["attribute_ids"]),
                }
            )
    return found


def stage(name: str) -> None:
    """Runs a stage as dvc.yaml has it."""
    project.stage(name.partition("@")[0])(*project.commands(Path())[name][2:])


def stages(*names: str) -> Callable[[str], None]:
    def read(_: str) -> None:
        for name in names:
            stage(name)

    return read


def kinds() -> dict[str, Kind | None]:
    text, table = (damage.of_text, BYTES), (damage.of_table,) * 3
    document = (damage.of_document,) * 3
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree("data/.images.unfinished")
    pictures = [str(path) for path in sorted(Path("competition/train").iterdir())[:6]]
    pictures += [str(path) for path in sorted(Path("competition/test").iterdir())[:2]]
    return {
        "picture": Kind(pictures, (BYTES,), stages("split", "convert"), checks.pictures),
        "train.csv": Kind(
            ["data/raw/train.csv"], (*text, *table), stages("split", "convert"), checks.annotations, ("train.csv",)
        ),
        "label_descriptions.json": Kind(
            ["data/raw/label_descriptions.json"],
            (*text, *document),
            stages("split", "convert"),
            checks.annotations,
            ("train.csv",),  # whose rows may name what the labels no longer have
        ),
        "sample_submission.csv": Kind(
            ["data/raw/sample_submission.csv"], (*text, *table), stages("split", "convert"), checks.sample
        ),
        "params.yaml": Kind(["params.yaml"], (damage.of_params,) * 4 + text, _with_params, checks.params),
        "predictions": Kind(["predictions/val.json"], (*text, *document), stages("evaluate", "tune"), checks.scores),
        "test predictions": Kind(["predictions/test.json"], (*text, *document), stages("submit"), checks.submission),
        "postprocessing.json": Kind(
            ["results/postprocessing.json"], (*text, *document), stages("submit"), checks.submission
        ),
        "submission": Kind(["submissions/submission.csv"], (*text, *table), _check, checks.checked),
        "COCO documents": Kind(
            [f"data/coco/{name}.json" for name in ("val", "train")], (*text, *document), _train_tune, checks.documents
        ),
        "checkpoint": None,  # a training makes it
        "weights": Kind(
            ["models/mask_rcnn.weights.h5"], (BYTES,), _load, checks.network
        ),
        "mask_rcnn.json": Kind(["models/mask_rcnn.json"], (*text, *document), _load, checks.network),
    }


def _check(name: str) -> None:
    """`make check`, where faults are an answer."""
    checks.printed = io.StringIO()
    with contextlib.redirect_stdout(checks.printed):
        commands.check(name, "data/coco/test.json", "data/coco/sample_submission.csv")


def _load(_: str) -> None:
    """The trained network, as predict loads it."""
    from fashionseg.predict import inference

    checks.network_of["network"], checks.network_of["labels"] = inference.load(Path("models"))


def _train_tune(name: str) -> None:
    stages(*(["preview", "tune"] if name.endswith("train.json") else ["evaluate", "tune"]))(name)


# What reads a section of params.yaml and is quick; `begin` is a training up to its first batch.
READERS = {
    "seed": ("split", "tune", "begin"),
    "machine": ("convert", "tune"),
    "data": ("source",),
    "split": ("split",),
    "images": ("convert", "begin"),
    "model": ("begin",),
    "augment": ("preview", "begin"),
    "train": ("preview", "begin"),
    "predict": ("predict@test",),
    "evaluate": ("evaluate",),
    "tune": ("tune",),
    "submission": ("tune", "submit"),
    "sending": (),
}
LONG = 10**6  # a number from here on does what it says, for hours or with more memory than there is


def _with_params(name: str) -> None:
    """Reads all, then runs what reads the section that changed."""
    sound = vars(params.load(*params.SECTIONS, path="sound/params.yaml"))
    found = vars(params.load(*params.SECTIONS))
    for section in params.SECTIONS:
        if found[section] == sound[section]:
            continue
        values = vars(found[section]).values() if hasattr(found[section], "__dict__") else []
        if any(isinstance(value, int) and value >= LONG for value in values):
            continue
        for reader in READERS[section]:
            _begin() if reader == "begin" else stage(reader)


class Begun(Exception):
    """A training has come to what was to be tried."""


def _begin() -> None:
    """The stage train, up to its first batch."""
    from fashionseg.train import trainer
    from fashionseg.train.optimizer import optimizer
    from fashionseg.train.schedule import schedule

    def fit(model, batches, validation, scorer, settings, *_):
        rate = schedule(settings, settings.epochs * len(batches))
        model.compile(optimizer=optimizer(model, settings, rate, settings.epochs * len(batches)))
        model.optimizer.build(model.trainable_variables)
        batches[0]
        validation[0]
        raise Begun

    with mock.patch.object(trainer, "fit", fit), contextlib.suppress(Begun):
        stage("train")


def _checkpoint() -> Kind:
    """A checkpoint as a training leaves it that is killed at its end; restored into the model of that training."""
    from fashionseg.train import provenance, trainer
    from fashionseg.train.callbacks import LiveLog
    from fashionseg.train.checkpoint import Checkpoints

    model = _trained(trainer)
    folder = next(path for path in Path("checkpoints").iterdir() if path.is_dir())
    (newest,) = folder.glob("epoch-*")
    (best,) = folder.glob("best-*")
    variables, weights = _arrays(newest / "state.npz"), _arrays(best)
    state, history = files.read_json(newest / "state.json"), _contents(newest / "results")
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))

    def read(_: str) -> None:
        checks.restored.clear()
        checkpoints = Checkpoints(folder, "results/train")
        found = checkpoints.restore(model)
        restored = [np.asarray(v) for v in (*model.variables, *model.optimizer.variables, *model.metrics_variables)]
        checks.restored["state.json"] = vars(found), state
        checks.restored["state.npz"] = list(map(checks.digest, restored)), variables
        checks.restored["results"] = _contents(Path("results/train")), history
        LiveLog("results/train", 1, None, found, 1, 1)
        checkpoints.load_best(model, found)
        checks.restored["best weights"] = [checks.digest(np.asarray(v)) for v in model.weights], weights
        provenance.mention_others(Path("checkpoints/another"), {"values": {}, "files": {}})

    kept = [str(path) for path in (newest / "state.npz", newest / "state.json", best, folder / provenance.MADE_BY)]
    kept += [str(path) for path in (newest / "results").rglob("*.*") if path.is_file()][:4]
    return Kind(kept, (BYTES,), read, checks.checkpoint, (str(newest), str(folder)))


def _trained(trainer):
    """The model of a training of one epoch whose checkpoints are still there."""
    models = []

    def save(model, *_):
        models.append(model)
        raise Begun

    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace(f"  epochs: {project.EPOCHS}", "  epochs: 1"))
    with mock.patch.object(trainer, "_save", save), contextlib.suppress(Begun), quiet():
        stage("train")
    Path("params.yaml").write_text(text)
    return models[0]


def _arrays(path: Path) -> list[str]:
    with np.load(path) as saved:
        return [checks.digest(saved[name]) for name in saved.files]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
