"""A run's outputs as the stages write them, of rectangles, with names that would break a careless page."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from fashionseg import params
from fashionseg.convert import coco
from fashionseg.core import files
from fashionseg.evaluate import overlays
from fashionseg.evaluate.scores import compute_scores
from fashionseg.report.page import Outputs

ROOT = Path(__file__).parents[2]
SIDE = 96
NAMES = ['shirt, "blouse"', "<script>alert('x')</script>", "NA", "it's & co", "never there", "never seen"]


def instance(image_id, category_id, box, **more):
    x, y, w, h = box
    bitmap = np.zeros((SIDE, SIDE), np.uint8, order="F")
    bitmap[y : y + h, x : x + w] = 1
    counts = coco_mask.encode(bitmap)["counts"].decode()
    shape = {"segmentation": {"size": [SIDE, SIDE], "counts": counts}, "bbox": list(box), "area": w * h, "iscrowd": 0}
    return {"image_id": image_id, "category_id": category_id, "attribute_ids": [2], **shape, **more}


def documents():
    """Three pictures: found; taken for another class; missed, and a class invented that nowhere occurs."""
    images = [{"id": i, "file_name": f"train/{i}.jpg", "height": SIDE, "width": SIDE} for i in (1, 2, 3)]
    truth = [
        instance(1, 0, (5, 5, 40, 40)),
        instance(1, 1, (50, 50, 40, 40)),
        instance(2, 2, (5, 5, 60, 60)),
        instance(3, 3, (5, 5, 60, 80), attribute_ids=[]),
    ]
    document = {
        "images": images,
        "annotations": [{**annotation, "id": i} for i, annotation in enumerate(truth, 1)],
        "categories": [{"id": i, "name": name, "supercategory": f"<{i % 2}>"} for i, name in enumerate(NAMES)],
        "attributes": [{"id": 2, "name": "<b>bold</b>", "supercategory": "style & cut"}],
    }
    found = [
        instance(1, 0, (5, 5, 40, 40), score=0.9),
        instance(1, 1, (50, 50, 40, 27), score=0.8),
        instance(2, 0, (5, 5, 60, 50), score=0.97),
        instance(2, 3, (70, 70, 20, 20), score=0.6),
        instance(3, 4, (70, 5, 20, 20), score=0.55),
    ]
    return document, found


def write(folder: Path, document, found) -> Outputs:
    """What convert, train, evaluate and tune leave, and how it is drawn."""
    results, metrics = folder / "results", folder / "metrics"
    (folder / "train").mkdir(parents=True)
    for image in document["images"]:
        cv2.imwrite(str(folder / image["file_name"]), np.full((SIDE, SIDE, 3), 40 * image["id"], np.uint8))
    values, tables, evaluations = compute_scores(document, found, 0.5)
    for name, table in tables.items():
        files.write_csv(results / f"evaluate/{name}.csv", table)
    scores = overlays.image_scores(evaluations["segm"])
    chosen = {"scores": scores, "wrong": tables["wrong"], "count": 24}
    drawn = overlays.draw_overlays(document, found, folder, results / "evaluate/pictures", **chosen)
    files.write_csv(results / "evaluate/pictures.csv", drawn)
    files.write_json(metrics / "evaluate.json", values)
    files.write_csv(results / "data/classes.csv", coco.class_table({"train": document, "val": document}))
    files.write_csv(results / "data/sizes.csv", coco.size_table({"train": document, "val": document}))
    if document["attributes"]:  # three pictures have no frequent ones
        groups = {"supercategory": ["style & cut"], "attributes": [1], "F1": [0.75]}
        files.write_csv(results / "evaluate/attribute_groups.csv", pd.DataFrame(groups))
    dropped = {"reason": ["a mask of <nothing>"], "count": [3], "first": ["train.csv:7"]}
    files.write_csv(results / "data/dropped.csv", pd.DataFrame(dropped))
    logs = {"loss": [2.5, 1.25, 1], "mask": [1, 0.5, 0.25], "seconds": [60, 61, 62], "learning_rate": [1e-4] * 3}
    logs |= {"AP": [0.1, 0.3, 0.2], "AP50": [0.2, 0.5, 0.4]}
    for subset in ("train", "eval", "steps"):
        for name, logged in logs.items():
            table = "".join(f"{step}\t{value}\n" for step, value in enumerate(logged))
            files.write_text(results / f"train/plots/metrics/{subset}/{name}.tsv", f"step\t{name}\n{table}")
    steps = np.arange(1, 10) / 10
    tune = {
        "strategies": {
            "formula": ["precision"],
            "strategy": ["<rule>"],
            "value": [0.45],
            "gain": [0.05],
            "error": [0.01],
        },
        "thresholds": {"threshold": steps, "precision": steps / 2, "jaccard": steps / 3},
        "masks": {"threshold": steps, "value": steps},
        "calibration": {"expected": steps, "value": steps, "instances": range(9)},
        "importance": {"feature": ["score", "area"], "importance": [0.75, 0.25]},
    }
    for name, columns in tune.items():
        files.write_csv(results / f"tune/{name}.csv", pd.DataFrame(columns))
    files.write_json(
        results / "postprocessing.json", {"formula": "precision", "strategy": "<rule>", "max_per_image": None}
    )
    files.write_json(metrics / "tune.json", {"value": 0.45, "score": 0.05})
    files.write_text(folder / "split.csv", "image_id,subset\na,train\nb,train\nc,val\n")
    sections = params.load(*(name for name in params.SECTIONS if name != "machine"), path=ROOT / "params.yaml")
    shutil.copytree(ROOT / "plots", folder / "plots")
    return Outputs(folder / "plots/dvc.yaml", results, metrics, folder / "split.csv", sections)
