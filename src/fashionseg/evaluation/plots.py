"""Pictures to look at: predictions beside truth, of the best, the worst and some other validation images."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from fashionseg import draw, io
from fashionseg.evaluation.matching import SHOWN_SCORE


def image_scores(evaluation: COCOeval) -> dict[int, float]:
    """How well each image's truth is found: the share of its instances matched, mean over COCO's IoU thresholds.

    A prediction of SHOWN_SCORE or more that matches nothing counts like a missed instance. Images without truth
    are left out.
    """
    scores = {}
    groups: dict[int, list[dict[str, Any]]] = {}
    for result in evaluation.evalImgs:
        if result and result["aRng"] == evaluation.params.areaRng[0]:
            groups.setdefault(result["image_id"], []).append(result)
    for image_id, results in groups.items():
        true = sum(len(result["gtIds"]) for result in results)
        shown = [np.array(result["dtScores"]) >= SHOWN_SCORE for result in results]
        matched = sum((result["dtMatches"][:, s] > 0).sum(1) for result, s in zip(results, shown, strict=True))
        invented = sum(s.sum() for s in shown) - matched
        if true:
            scores[image_id] = float((matched / (true + invented)).mean())
    return scores


def pictures(
    document: dict[str, Any],
    predictions: list[dict[str, Any]],
    images: Path,
    scores: dict[int, float],
    count: int,
    folder: Path,
) -> None:
    """Writes `count` JPEGs, predictions beside truth: a quarter the best images by `scores`, a quarter the worst, the
    rest evenly spread between. `images` holds the resized photographs; masks are resized to them as runs.
    """
    order = sorted(scores, key=lambda image_id: (-scores[image_id], image_id))
    records = {image["id"]: image for image in document["images"]}
    names = [category["name"] for category in document["categories"]]
    places = {category["id"]: place for place, category in enumerate(document["categories"])}
    with io.replacing(folder) as beside:
        beside.mkdir()
        for number, (kind, image_id) in enumerate(track(_chosen(order, count), "draw"), 1):
            file = images / records[image_id]["file_name"]
            image = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            sides = []
            for rows in (document["annotations"], predictions):
                rows = [r for r in rows if r["image_id"] == image_id and r.get("score", 1) >= SHOWN_SCORE]
                shown = draw.Instances.of_coco(rows, places, *image.shape[:2])
                sides.append(draw.overlay(image, shown, names))
            sheet = draw.side_by_side(*sides, ("truth", f"prediction, {scores[image_id]:.2f} found"))
            name = f"{number:02}_{kind}_{file.stem}.jpg"
            cv2.imwrite(str(beside / name), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def _chosen(order: list[int], count: int) -> list[tuple[str, int]]:
    count = min(count, len(order))
    ends = count // 4
    between = np.linspace(ends, len(order) - ends, count - 2 * ends, endpoint=False).astype(int)
    return [
        *(("best", image_id) for image_id in order[:ends]),
        *(("between", order[place]) for place in between),
        *(("worst", image_id) for image_id in order[len(order) - ends :]),
    ]
