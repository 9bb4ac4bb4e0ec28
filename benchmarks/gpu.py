"""What a GPU makes of the network, in some six minutes: one JSON with speed, memory, equality and where the time goes.

    KERAS_BACKEND=jax python benchmarks/gpu.py OUT --torch python3 --run FOLDER [--sides 512 1024] [--batch 8]

speed: training steps in mixed_bfloat16 beside torchvision's with autocast and channels_last (`reference.py`): images a
second, ratio, peak memory. trace: milliseconds a step by kind of kernel. equality, with --run, a folder with models/,
data/coco/val.json and data/images of a finished run: its validation predictions in float32 on CPU and GPU, and in
mixed_bfloat16 on the GPU, compared instance by instance and by segm AP.
"""

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import reference

STEPS = 10  # of a trace
MATCH = 1e-4  # the largest difference in float32, of scores and of boxes in shares of the picture's longer side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--torch", help="python of an environment with torch and torchvision")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--sides", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--worker", choices=["trace", "predict"], help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="bfloat16", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return {"trace": trace, "predict": predict}[options.worker](options)
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for side in options.sides:
        found[f"speed {side}"] = speed(options, side)
        save(options.out, found)
        found[f"trace {side}"] = json.loads(worker(options, "trace", "--sides", str(side)))
        save(options.out, found)
    if options.run:
        found["equality"] = equality(options)
        save(options.out, found)


def save(out: Path, found: dict) -> None:
    (out / "gpu.json").write_text(json.dumps(found, indent=1))
    name, values = list(found.items())[-1]
    print(f"[{time.strftime('%X')}] {name}: {json.dumps(values)}", flush=True)


def worker(options: argparse.Namespace, name: str, *flags: str, **environment: str) -> str:
    """The last line that a process of its own prints, so that each begins with an empty GPU."""
    shape = ["--batch", str(options.batch), "--rois", str(options.rois)]
    command = [sys.executable, __file__, str(options.out), f"--worker={name}", *shape, *flags]
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def speed(options: argparse.Namespace, side: int) -> dict:
    pythons = {"ours": sys.executable, **({"theirs": options.torch} if options.torch else {})}
    shape = {"side": side, "batch": options.batch, "proposals": 1000, "rois": options.rois, "precision": "bfloat16"}
    rounds = reference.measure(pythons, {**shape, "tasks": ["training"]})
    values = {}
    for name, measured in rounds.items():
        rates = sorted(1 / wall for wall, *_ in measured)
        values[name] = {
            "images_per_second": round(statistics.median(rates), 2),
            "least": round(rates[0], 2),
            "most": round(rates[-1], 2),
            "peak_gb": round(max(peak for *_, peak in measured), 2),
        }
    if options.torch:
        ratio = values["ours"]["images_per_second"] / values["theirs"]["images_per_second"]
        values["ratio"] = round(ratio, 2)
    return values


def trace(options: argparse.Namespace) -> None:
    """Milliseconds a training step that the device is busy, by kind of kernel, the longest first."""
    import jax

    options.side, options.proposals = options.sides[0], 1000
    ours = reference.ours(options, "training")
    for _ in range(3):
        ours.once()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            for _ in range(STEPS):
                ours.once()
        wall = (time.perf_counter() - begin) / STEPS * 1e3
        (file,) = Path(folder).rglob("perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))
    events = events["traceEvents"] if isinstance(events, dict) else events
    threads = {(e["pid"], e.get("tid")): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and "Stream" in threads.get((event["pid"], event["tid"]), ""):
            spent[re.sub(r"[._]\d+", "", event["name"])[:60]] += event["dur"] / 1e3 / STEPS
    rows = {name: round(value, 2) for name, value in spent.most_common(25)}
    print(json.dumps({"step_ms": round(wall, 1), "busy_ms": round(sum(spent.values()), 1), "kernels_ms": rows}))


def equality(options: argparse.Namespace) -> dict:
    where = {
        "cpu float32": ("float32", {"JAX_PLATFORMS": "cpu"}),
        "gpu float32": ("float32", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
        "gpu bfloat16": ("mixed_bfloat16", {}),
    }
    answers = {}
    for name, (precision, environment) in where.items():
        line = worker(options, "predict", "--run", str(options.run), "--precision", precision, **environment)
        answers[name] = json.loads(line)
    cpu, gpu = (answers[name]["predictions"] for name in ("cpu float32", "gpu float32"))
    return {
        "segm AP": {name: answer["AP"] for name, answer in answers.items()},
        "predictions": {name: len(answer["predictions"]) for name, answer in answers.items()},
        "same within 1e-4": same(cpu, gpu),
        "seconds": {name: answer["seconds"] for name, answer in answers.items()},
    }


def same(one: list, other: list) -> float:
    """The share of `one`, rows of image, class, score and box in shares of the picture, that `other` has, too."""
    by_key: dict[tuple, list] = {}
    for image, category, *values in other:
        by_key.setdefault((image, category), []).append(values)
    hits = 0
    for image, category, *values in one:
        candidates = by_key.get((image, category), [])
        for place, candidate in enumerate(candidates):
            if max(abs(a - b) for a, b in zip(values, candidate, strict=True)) < MATCH:
                del candidates[place]
                hits += 1
                break
    return round(hits / max(1, len(one)), 4)


def predict(options: argparse.Namespace) -> None:
    import contextlib

    from fashionseg.coco import average_precision
    from fashionseg.predict import inference
    from fashionseg.predict.config import Predict

    settings = Predict(
        batch_size=4,
        score=0.05,
        nms_iou=0.5,
        mask_scores=True,
        mask_threshold=0.5,
        attribute_score=0.05,
        flip=False,
        scales=[1.0],
        models=[],
    )
    document = json.loads((options.run / "data/coco/val.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        description = json.loads((options.run / "models/mask_rcnn.json").read_text())
        description["network"]["precision"] = options.precision
        Path(folder, "mask_rcnn.json").write_text(json.dumps(description))
        Path(folder, "mask_rcnn.weights.h5").symlink_to((options.run / "models/mask_rcnn.weights.h5").resolve())
        begin = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            target = Path(folder, "predictions.json")
            inference.predict(
                document, lambda side: options.run / "data/images", [Path(folder)], settings, target, workers=0
            )
        seconds = time.perf_counter() - begin
        found = json.loads(target.read_text())
    sides = {image["id"]: max(image["height"], image["width"]) for image in document["images"]}
    evaluation = average_precision.evaluate_kind(document, found, "segm")
    rows = [
        [p["image_id"], p["category_id"], p["score"], *(round(v / sides[p["image_id"]], 6) for v in p["bbox"])]
        for p in found
    ]
    print(json.dumps({"AP": round(float(evaluation.stats[0]), 4), "seconds": round(seconds, 1), "predictions": rows}))


if __name__ == "__main__":
    main()
