"""Damaged files, each read by the stages that read it, in this process. Counted as one of:

refused: one sentence, which names the file
dropped and counted: what is wrong was left out, and dropped.csv counts it
right: the result is what other programs or plain loops (`judges`) make of the same file
"""

import contextlib
import io
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import damage
import judges
import numpy as np
import project

from fashionseg import __main__ as commands
from fashionseg import params
from fashionseg.coco import masks
from fashionseg.core import files, rle
from fashionseg.core.errors import UserError, reported

SOUND = Path("sound")  # copies of what the mutations are compared with
BYTES, TEXT, TABLE, JSON = damage.of_bytes, damage.of_text, damage.of_table, damage.of_document


@dataclass(frozen=True)
class Kind:
    """files: one is drawn; ways: of damage, one is drawn; read: the stages that read it; wrong: what is wrong with
    their result, '' for nothing, told the damaged file; names: what a sentence may name in its place."""

    files: list[str]
    ways: tuple[Callable[[bytes, random.Random], damage.Damage], ...]
    read: Callable[[str], None]
    wrong: Callable[[str], str]
    names: tuple[str, ...] = ()


def faults(work: Path, count: int, seed: int, only: str):
    """Yields (kind of file, outcome, what to look at or '') of `count` mutations of each kind."""
    shutil.rmtree(work / "mutations", ignore_errors=True)
    project.make(work / "mutations", seed, images=30)
    with contextlib.chdir(work / "mutations"):
        if problem := said(_undisturbed, ""):
            raise RuntimeError(problem)
        for name, make in KINDS.items():
            if only in name:
                kind, drawn = make(), random.Random(f"{seed} {name}")
                for number in range(count):
                    outcome, finding = _try(kind, drawn)
                    yield name, outcome, finding and f"{number}: {finding}"


def _undisturbed(_: str) -> None:
    project.stage("source", "download", "split", "convert")
    _predict()
    project.stage("evaluate", "tune", "submit")
    for name in ("data", "results/data"):
        shutil.copytree(name, SOUND / name)
    shutil.copy("params.yaml", SOUND)


def _try(kind: Kind, drawn: random.Random) -> tuple[str, str]:
    """Outcome, and what to look at where it is no good one."""
    name = drawn.choice(kind.files)
    sound = Path(name).read_bytes()
    what, data = drawn.choice(kind.ways)(sound, drawn)
    Path(name).write_bytes(data)
    try:
        sentence = said(kind.read, name)
        if sentence.startswith("error: ") and "\n" not in sentence:
            named = any(word in sentence for word in (name, *kind.names))
            return ("refused", "") if named else ("refused, but the file is not named", f"{name}, {what}: {sentence}")
        if sentence:
            return "traceback", f"{name}, {what}: {sentence}"
        if wrong := kind.wrong(name):
            return "silently wrong", f"{name}, {what}: {wrong}"
        return ("right", "") if judges.dropped() == judges.dropped(SOUND) else ("dropped and counted", "")
    finally:
        Path(name).write_bytes(sound)


def said(read: Callable[[str], None], name: str) -> str:
    """The sentence with which a call ends, or its traceback; '' where it ends well."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), reported():
            read(name)
    except SystemExit as ended:
        return str(ended.code)
    except BaseException:
        return traceback.format_exc(limit=-4)
    return ""


def _predict() -> None:
    """Predictions in place of those of a short training, which find nothing: the truth, a fifth in a wrong class; on
    the test pictures that of others, resized."""
    drawn, truth = random.Random(0), judges.load("data/coco/val.json")
    test, found = judges.load("data/coco/test.json")["images"], {"val": [], "test": []}
    labels = [category["id"] for category in truth["categories"]]
    scores = {"agreement": 1.0, "stability": 0.5, "mask": masks.pack(np.ones((28, 28), np.float32))}
    for number, one in enumerate(truth["annotations"]):
        mask, image = rle.from_coco([one["segmentation"]]), test[number % len(test)]
        resized = mask.resize(image["height"], image["width"])
        height, width = one["segmentation"]["size"]
        mask = mask.resize(height // 8, width // 8).resize(height, width)  # not quite the truth
        for subset, image_id, runs in (("val", one["image_id"], mask), ("test", image["id"], resized)):
            if runs.areas()[0]:
                drawn_scores = {name: round(drawn.uniform(0.1, 1), 4) for name in ("score", "margin", "mask_score")}
                right = drawn.random() < 0.8
                where = {"segmentation": runs.to_coco()[0], "bbox": runs.boxes()[0].tolist()}
                attributes = {
                    "attribute_ids": one["attribute_ids"],
                    "attribute_scores": [0.9] * len(one["attribute_ids"]),
                }
                what = {"image_id": image_id, "category_id": one["category_id"] if right else drawn.choice(labels)}
                found[subset].append(what | where | attributes | scores | drawn_scores)
    for subset, predictions in found.items():
        files.write_json(f"predictions/{subset}.json", predictions)


def _of_predictions(name: str) -> None:
    project.stage(*(("evaluate", "tune") if name.endswith("val.json") else ("submit",)))


def _check(name: str) -> None:
    """`make check`, for which faults are an answer."""
    with contextlib.redirect_stdout(judges.printed):
        judges.printed.truncate(judges.printed.seek(0))
        with contextlib.suppress(UserError):
            commands.check(name, "data/coco/test.json", "data/coco/sample_submission.csv")


# What reads a section of params.yaml and is quick; `begin` is a training up to its first batch.
READERS = {
    **{name: ("split",) for name in ("seed", "split")},
    **{name: ("convert",) for name in ("machine", "images")},
    **{name: ("begin",) for name in ("model", "train")},
    **{"data": ("source",), "augment": ("preview",), "evaluate": ("evaluate",)},
    **{"tune": ("tune",), "submission": ("tune", "submit")},
}
LONG = 10**6  # a number from here on does what it says, for hours or with more memory than there is


def _of_params(_: str) -> None:
    """Reads all, then runs what reads the section that changed."""
    sound, found = (vars(params.load(*params.SECTIONS, path=path)) for path in (SOUND / "params.yaml", "params.yaml"))
    for section, readers in READERS.items():
        values = vars(found[section]).values() if hasattr(found[section], "__dict__") else []
        if found[section] != sound[section] and not any(isinstance(value, int) and value >= LONG for value in values):
            for name in readers:
                _begin() if name == "begin" else project.stage(name)


class Begun(Exception):
    """A training has come to where it was to come."""


def _begin() -> None:
    """The stage train up to its first batch, its first step not taken."""
    from fashionseg.train import loop

    def first(epochs, *_):
        epochs.batches[0]
        raise Begun

    with contextlib.suppress(Begun), mock.patch.object(loop.Epochs, "_train", first):
        project.stage("train")


def _checkpoints() -> Kind:
    """Checkpoint and best weights of a small model, with a history, restored into that model."""
    import keras

    from fashionseg.train import provenance
    from fashionseg.train.checkpoint import Checkpoints, State

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dropout(0.5)])
    model.compile(optimizer="adam", loss="mse")
    model.fit(np.ones((4, 8)), np.ones((4, 8)), verbose=0)
    folder, history = Path("checkpoints/some"), Path("results/train/loss.tsv")
    files.write_text(history, "step\tloss\n0\t1.5\n")
    checkpoints, state = Checkpoints(folder, "results/train"), State(epoch=1, best_epoch=1, best_ap=0.5)
    checkpoints.save_best(model, state)
    checkpoints.save(model, state)
    files.write_json(folder / provenance.MADE_BY, {"values": {"seed": 1}, "files": {"train.json": "d4"}})
    restored = []

    def read(_: str) -> None:
        for variable in model.variables:
            variable.assign(np.zeros(variable.shape))
        found = checkpoints.restore(model)
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        restored[:] = [vars(found), judges.digests(variables), history.read_bytes()]
        checkpoints.load_best(model, found)
        restored.append(judges.digests(model.weights))
        provenance.mention_others(Path("checkpoints/another"), {"values": {}, "files": {}})

    said(read, "")
    saved, kept = list(restored), sorted(str(path) for path in folder.rglob("*.*") if path.is_file())
    return Kind(kept, (BYTES,), read, lambda _: "" if restored == saved else "not what was saved", (str(folder),))


def _pictures() -> list[str]:
    train, test = (sorted(Path("competition", name).iterdir()) for name in ("train", "test"))
    return list(map(str, train[:6] + test[:2]))


def _convert(_: str) -> None:
    project.stage("split", "convert")


RAW = "data/raw/train.csv", "data/raw/label_descriptions.json"
OWN = (
    "competition/train.csv",
    "competition/label_descriptions.json",
)  # the user's, which are named in place of DVC's copy
PREDICTIONS = ["predictions/val.json", "predictions/test.json"]
OF_PARAMS = (BYTES, TEXT, *[damage.of_params] * 4)
KINDS = {
    "picture": lambda: Kind(_pictures(), (BYTES,), _convert, judges.pictures),
    "train.csv": lambda: Kind([RAW[0]], (BYTES, TEXT, TABLE, TABLE, TABLE), _convert, judges.annotations, OWN[:1]),
    # rows may name what the labels no longer have
    "label file": lambda: Kind([RAW[1]], (BYTES, TEXT, JSON, JSON), _convert, judges.annotations, OWN),
    "params.yaml": lambda: Kind(
        ["params.yaml"], OF_PARAMS, _of_params, judges.params, ("data.path", "model.", "augment.")
    ),
    "predictions": lambda: Kind(PREDICTIONS, (BYTES, TEXT, JSON, JSON), _of_predictions, judges.predictions),
    "submission": lambda: Kind(["submissions/submission.csv"], (BYTES, TEXT, TABLE, TABLE), _check, judges.submission),
    "checkpoint": _checkpoints,
}
