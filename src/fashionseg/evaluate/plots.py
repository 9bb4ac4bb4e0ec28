"""Pictures to look at: truth beside predictions, of the validation images best and worst found or taken for others."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from fashionseg.core import files
from fashionseg.core import pictures as reader
from fashionseg.draw import overlay
from fashionseg.evaluate.matching import SHOWN_SCORE, shown_attributes
from fashionseg.evaluate.mistakes import BACKGROUND_IOU

NAMED = 2  # attributes of an instance that are named on a picture; of the others the number


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
    wrong: pd.DataFrame,
    count: int,
    folder: Path,
) -> pd.DataFrame:
    """Writes JPEGs, truth beside prediction: `count` of the images that are best found by `scores`, of the worst, and
    of those with the most confident of the predictions `wrong` (of `mistakes.confident`), which is shown alone.

    `images` holds the resized photographs; masks are resized to them as runs. Returns file, kind (best, worst, wrong)
    and caption of each.
    """
    records = {image["id"]: image for image in document["images"]}
    names = [category["name"] for category in document["categories"]]
    attributes = {attribute["id"]: attribute["name"] for attribute in document.get("attributes", [])}
    places = {category["id"]: place for place, category in enumerate(document["categories"])}
    ordered = sorted(predictions, key=lambda p: (p["image_id"], -p["score"]))  # as `wrong` counts them
    chosen = []
    for kind, image_ids in _chosen(scores, count).items():
        chosen += [(kind, image_id, ordered, f"{scores[image_id]:.2f} found") for image_id in image_ids]
    for row in wrong.drop_duplicates("image_id").head(count).itertuples():
        chosen.append(("wrong", row.image_id, [ordered[row.prediction]], _mistake(row)))
    written = []
    with files.replacing(folder) as beside:
        beside.mkdir()
        for number, (kind, image_id, found, caption) in enumerate(track(chosen, "draw"), 1):
            file = images / records[image_id]["file_name"]
            image = reader.read(file)
            sides = []
            for rows in (document["annotations"], found):
                rows = [r for r in rows if r["image_id"] == image_id and r.get("score", 1) >= SHOWN_SCORE]
                notes = [_note([attributes[id_] for id_ in shown_attributes(row, SHOWN_SCORE)]) for row in rows]
                shown = overlay.Instances.of_coco(rows, places, *image.shape[:2], notes)
                sides.append(overlay.overlay(image, shown, names))
            name = f"{number:02}_{kind}_{file.stem}.jpg"
            sheet = overlay.side_by_side(*sides, ("truth", f"prediction, {caption}"))
            cv2.imwrite(str(beside / name), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
            written.append((name, kind, caption))
    return pd.DataFrame(written, columns=["file", "kind", "caption"])


def _note(attributes: list[str]) -> str:
    named = ", ".join(name.partition(" (")[0] for name in attributes[:NAMED])
    return f"{named} +{len(attributes) - NAMED}" if len(attributes) > NAMED else named


def _chosen(scores: dict[int, float], count: int) -> dict[str, list[int]]:
    """Image ids of the best, best first, and of the worst, worst first; of few images the halves."""
    order = sorted(scores, key=lambda image_id: (-scores[image_id], image_id))
    half = (len(order) + 1) // 2
    return {"best": order[:half][:count], "worst": order[half:][::-1][:count]}


def _mistake(row: Any) -> str:
    """What a row of `mistakes.confident` is, and what is there instead."""
    if row.IoU >= BACKGROUND_IOU:
        what = f"IoU {row.IoU:.2f} with a true {row.name}"
    elif row.other_IoU >= BACKGROUND_IOU:
        what = f"IoU {row.other_IoU:.2f} with a true {row.other}"
    else:
        what = "nothing there"
    return f"{row.name} {row.score:.2f}: {what}"
