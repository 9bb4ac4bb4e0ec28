"""Every stage after the training, and what comes before it, at shares of the competition's size up to 1.

python benchmarks/scale.py [SHARE ...] [--folder FOLDER]     seconds and memory of each, `1/10 1/3 1` say; 0.002 if none

Each runs in a process of its own on a competition that `full_size` draws. `processor` is the time of all its processes,
`peak` the memory of all of them together. The plain way is the usual one with pandas and pycocotools, in the same run;
where it is slow, some instances are measured and the time multiplied. Two things are stand-ins: pictures, which are
headers without pixels, so that `split` compares random hashes and `convert` resizes nothing; and the network. A
hundredth of the pictures is split and converted with pixels, too.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import imagehash
import numpy as np
import pandas as pd
import psutil
import yaml
from PIL import Image

import full_size
from fashionseg.core import pictures
from fashionseg.core.paths import NETWORK
from paste import at_full_size
from rle import convert_bitmaps, resize_bitmaps

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = 0.01  # share of the pictures that are drawn with pixels
PARAMS = {"machine": {"workers": 2}, "split": {"folds": 8}, "images": {"side": 1024}}  # as presets/competition_r50
PLAIN = 0.1  # share up to which the plain way is measured, too
SAMPLE = 100  # instances on which a slow plain way is measured
MEASURED = "measured.csv"
COMMANDS = {name: stage["cmd"] for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()}


def stage(name: str, subset: str = "") -> None:
    """A stage's main with its paths in dvc.yaml."""
    sys.path.insert(0, str(ROOT / "stages"))
    importlib.import_module(name).main(*COMMANDS[name].replace("${item.subset}", subset).split()[3:])


def split() -> None:
    from fashionseg.convert import duplicates

    random = np.random.default_rng(0)
    with patch.object(duplicates, "_hash", lambda path: random.random(duplicates.SIDE**2) < 0.5):
        stage("split")


def convert() -> None:
    with patch("fashionseg.convert.resizing.resizing", lambda source, *others: nullcontext(source)):
        stage("convert")


def read_to_train() -> None:
    """As `trainer.train` before its first step."""
    from fashionseg.core import documents
    from fashionseg.data.batches import Batches

    for subset in ("train", "val"):
        Batches(documents.read(f"data/coco/{subset}.json"), "data/images", 1024, 8, 80, attributes=True)


def predict(subset: str) -> float:
    """The stage with a network that finds what `full_size` draws; returns the seconds that the drawing took."""
    from fashionseg.core import documents
    from fashionseg.data.labels import Labels
    from fashionseg.predict import inference

    truth = documents.read("data/coco/val.json")
    count = len(documents.read(f"data/coco/{subset}.json")["images"])
    found, taken = full_size.detections(truth, count), 0.0

    def detect(batches: dict) -> list:
        nonlocal taken
        began = time.thread_time()  # masks of the batch before are pasted meanwhile
        (batch,) = batches.values()
        of_batch = list(islice(found, len(batch["images"])))
        taken += time.thread_time() - began
        return of_batch

    network = SimpleNamespace(dtype_policy=SimpleNamespace(name="none"))
    views = [SimpleNamespace(detector=SimpleNamespace(network=network))]
    predictor = SimpleNamespace(views=views, sides={1024}, square=False, labels=Labels.of(truth), detect=detect)
    with patch.object(inference, "Predictor", lambda *_: predictor):
        stage("predict", subset)
    return taken


def plain_convert() -> float:
    began = time.process_time()
    table = pd.read_csv("data/raw/train.csv")
    read = time.process_time() - began
    chosen = table.sample(min(SAMPLE, len(table)), random_state=0)
    began = time.process_time()
    convert_bitmaps(list(chosen[["EncodedPixels", "Height", "Width"]].itertuples(index=False)))
    return read + (time.process_time() - began) / len(chosen) * len(table)


def plain_read() -> float:
    from pycocotools.coco import COCO

    began = time.process_time()
    documents = [COCO(f"data/coco/{subset}.json") for subset in ("train", "val")]
    return time.process_time() - began + 0 * len(documents)


def plain_predict() -> float:
    """Pasted into a bitmap of the image, as torchvision does."""
    document = json.loads(Path("data/coco/val.json").read_text())
    found = list(full_size.detections(document, 4))
    began = time.process_time()
    for image, of_image in zip(document["images"], found, strict=False):
        boxes = of_image["boxes"] * np.tile([image["width"], image["height"]], 2)
        for mask, box in zip(of_image["masks"].astype(np.float32), boxes, strict=True):
            at_full_size(mask[None], box[None], image["height"], image["width"])
    return (time.process_time() - began) / len(found) * len(document["images"])


def plain_evaluate() -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    began = time.process_time()
    truth = COCO("data/coco/val.json")
    results = truth.loadRes("predictions/val.json")
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return time.process_time() - began


def plain_submit() -> float:
    """Masks on the grid by resized bitmaps."""
    predictions = json.loads(Path("predictions/test.json").read_text())
    chosen = np.random.default_rng(0).choice(len(predictions), min(SAMPLE, len(predictions)), replace=False)
    began = time.process_time()
    resize_bitmaps([predictions[place]["segmentation"] for place in chosen])
    return (time.process_time() - began) / len(chosen) * len(predictions)


def plain_split_photographs() -> float:
    began = time.process_time()
    for path in Path("data/raw/train").iterdir():
        with Image.open(path) as image:
            imagehash.phash(image, 16)
    return time.process_time() - began


def plain_convert_photographs() -> float:
    began = time.process_time()
    for path in Path("data/raw").glob("t*/*.jpg"):
        with Image.open(path) as image:
            size = pictures.fit(image.height, image.width, 1024)
            image.convert("RGB").resize(size[::-1], Image.Resampling.BOX).save("plain.jpg", quality=95)
    return time.process_time() - began


OF_TABLES = {  # stage or part of one: what is run, the plain way
    "split, tables": (split, None),
    "convert, tables": (convert, plain_convert),
    "documents read to train": (read_to_train, plain_read),
    "predict val, paste and write": (lambda: predict("val"), plain_predict),
    "predict test, paste and write": (lambda: predict("test"), None),
    "evaluate": (lambda: stage("evaluate"), plain_evaluate),
    "tune": (lambda: stage("tune"), None),
    "submit": (lambda: stage("submit"), plain_submit),
    "report": (lambda: stage("report"), None),
}
OF_PHOTOGRAPHS = {
    "split": (lambda: stage("split"), plain_split_photographs),
    "convert": (lambda: stage("convert"), plain_convert_photographs),
}


def prepare(work: Path, share: float, photographs: bool) -> None:
    """A folder as `dvc repro` has it after download."""
    if (work / "data/raw/train.csv").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    full_size.draw(work / "data/raw", share, photographs)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in PARAMS.items():
        tree[section] |= values
    (work / "params.yaml").write_text(yaml.safe_dump(tree))
    (work / "plots").symlink_to(ROOT / "plots")
    (work / "models").mkdir()
    for name in NETWORK:  # predict tells by them whether it goes on
        (work / "models" / name).touch()


def grey_pictures() -> None:
    """What `convert` would write of the pictures that predict and evaluate look at."""
    for subset in ("val", "test"):
        for image in json.loads(Path(f"data/coco/{subset}.json").read_text())["images"]:
            path = Path("data/images", image["file_name"])
            path.parent.mkdir(parents=True, exist_ok=True)
            size = pictures.fit(image["height"], image["width"], 1024)
            cv2.imwrite(str(path), np.full((*size, 3), 127, np.uint8))


def in_a_process(function: str, work: Path) -> dict[str, float]:
    """Runs a row's function, named `name/0`, or its plain way, `name/1`; what it returned, seconds of the clock and of
    the processors, and gigabytes."""
    began, peak = time.perf_counter(), 0
    with (work / "log.txt").open("w+") as log:
        command = [sys.executable, __file__, "--run", function]
        child = psutil.Popen(command, cwd=work, stdout=log, stderr=subprocess.STDOUT)
        while True:
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _memory(child))
            time.sleep(0.1)
        text = (work / "log.txt").read_text()
        if status:
            sys.exit(f"{function} failed in {work}:\n{text}")
    processor = usage.ru_utime + usage.ru_stime
    returned = json.loads(text.splitlines()[-1])
    return {"returned": returned, "wall": time.perf_counter() - began, "processor": processor, "peak": peak / 1e9}


def _memory(process: psutil.Process) -> int:
    """Bytes that a process and those below it hold."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def measure(work: Path, share: float, photographs: bool) -> None:
    """Prints a line a row and adds them to measured.csv; those that are there are not measured again."""
    prepare(work, share, photographs)
    table = work.parent / MEASURED
    known = pd.read_csv(table) if table.exists() else pd.DataFrame({"name": [], "share": []})
    for name, (_, plain) in (OF_PHOTOGRAPHS if photographs else OF_TABLES).items():
        if ((known["name"] == name) & (photographs | (known["share"] == share))).any():
            continue
        ours = in_a_process(f"{name}/0", work)
        if name == "convert, tables":
            in_a_process("grey pictures/0", work)
        processor = ours["processor"] - (ours["returned"] or 0)
        row = {"name": name, "share": share, "wall": ours["wall"], "processor": processor, "peak": ours["peak"]}
        if plain and share <= PLAIN:
            theirs = in_a_process(f"{name}/1", work)
            row |= {"plain": theirs["returned"], "plain_peak": theirs["peak"]}
        print({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        known = pd.concat([known, pd.DataFrame([row])])
        known.to_csv(table, index=False)


def table(measured: pd.DataFrame) -> str:
    """In Markdown: of each row and share processor seconds, seconds of the clock and gigabytes; the exponent with which
    the processor seconds grow from the least share to the largest; the plain way's processor seconds at the least."""
    lines = []
    for name, rows in measured.sort_values("share").groupby("name", sort=False):
        cells = [f"{row.processor:.0f} s ({row.wall:.0f} s), {row.peak:.1f} GB" for row in rows.itertuples()]
        first, last = rows.iloc[0], rows.iloc[-1]
        ratios = last[["processor", "share"]] / first[["processor", "share"]]
        grows = f"{np.log(ratios.processor) / np.log(ratios.share):.2f}" if len(rows) > 1 else "-"
        plain = "-" if pd.isna(first.plain) else f"{first.plain:.0f} s, {first.plain_peak:.1f} GB"
        lines.append(f"| {name} | {' | '.join(cells)} | {grows} | {plain} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shares", nargs="*", type=Fraction, default=[Fraction(1, 500)])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, which = options.run.split("/")
        functions = {**OF_TABLES, **OF_PHOTOGRAPHS, "grey pictures": (grey_pictures, None)}
        print("\n" + json.dumps(functions[name][int(which)]()))
        return
    with tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder:
        measure(Path(folder, "photographs"), min(PHOTOGRAPHS, float(min(options.shares))), photographs=True)
        for share in sorted(options.shares):
            measure(Path(folder, str(share).replace("/", "_")), float(share), photographs=False)
        print(table(pd.read_csv(Path(folder, MEASURED))))


if __name__ == "__main__":
    main()
