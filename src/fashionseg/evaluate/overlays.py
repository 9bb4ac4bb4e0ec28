"""Overlays of truth and predictions side by side: the best and the worst validation images, confident mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from fashionseg.core import documents, files, pictures
from fashionseg.draw import overlay
from fashionseg.evaluate.matching import SHOWN_SCORE, shown_attributes
from fashionseg.evaluate.mistakes import BACKGROUND_IOU

NAMED_ATTRIBUTES = 2  # of an instance on an overlay; of the others the count


def image_scores(evaluation: COCOeval) -> dict[int, float]:
    """By image id: TP / (TP + FP + FN) of predictions of at least SHOWN_SCORE, mean over COCO's IoU thresholds.

    Crowd regions are no truth, and predictions within them do not count. Images without truth are left out.
    """
    scores = {}
    groups: dict[int, list[dict[str, Any]]] = {}
    for result in evaluation.evalImgs:  # those of all sizes, see `average_precision.evaluate_kind`
        groups.setdefault(result["image_id"], []).append(result)
    for image_id, results in groups.items():
        true = sum(np.count_nonzero(np.array(result["gtIgnore"]) == 0) for result in results)
        shown = [(np.array(result["dtScores"]) >= SHOWN_SCORE) & ~result["dtIgnore"].astype(bool) for result in results]
        matched = sum(((result["dtMatches"] > 0) & s).sum(1) for result, s in zip(results, shown, strict=True))
        false_positives = sum(s.sum(1) for s in shown) - matched
        if true:
            scores[image_id] = float((matched / (true + false_positives)).mean())
    return scores


def draw_overlays(
    document: dict[str, Any],
    predictions: list[dict[str, Any]],
    images: Path,
    folder: Path,
    *,
    scores: dict[int, float],
    wrong: pd.DataFrame,
    count: int,
) -> pd.DataFrame:
    """Writes JPEGs into `folder`, truth at the left, predictions at the right: `count` images of each kind.

    Kinds: best and worst by `scores` (of `image_scores`); wrong: the most confident rows of `wrong` (of
    `mistakes.confident_mistakes`), one an image, that prediction alone. images: the folder of the resized photographs.
    Returns file, kind and caption of each. Raises UserError for a missing photograph.
    """
    records = {image["id"]: image for image in document["images"]}
    names = [category["name"] for category in document["categories"]]
    attributes = {attribute["id"]: attribute["name"] for attribute in document.get("attributes", [])}
    places = documents.places_of(document)
    ordered = sorted(predictions, key=lambda p: (p["image_id"], -p["score"]))  # the order that `wrong` refers to
    truth, found = (documents.by_image(rows, document) for rows in (document["annotations"], ordered))
    sheets = []
    for kind, image_ids in _best_and_worst(scores, count).items():
        sheets += [(kind, image_id, found[image_id], f"{scores[image_id]:.2f} found") for image_id in image_ids]
    for row in wrong.drop_duplicates("image_id").head(count).itertuples():
        sheets.append(("wrong", row.image_id, [ordered[row.prediction]], _mistake_caption(row)))
    written = []
    with files.replacing(folder) as beside:
        beside.mkdir()
        for number, (kind, image_id, shown, caption) in enumerate(track(sheets, "draw"), 1):
            file = images / records[image_id]["file_name"]
            image = pictures.read(file)
            sides = []
            for rows in (truth[image_id], shown):
                rows = [row for row in rows if row.get("score", 1) >= SHOWN_SCORE]
                notes = [_note([attributes[id_] for id_ in shown_attributes(row, SHOWN_SCORE)]) for row in rows]
                instances = overlay.DrawnInstances.of_coco(rows, places, *image.shape[:2], notes)
                sides.append(overlay.draw(image, instances, names))
            name = f"{number:02}_{kind}_{files.shortened(file.stem)}.jpg"
            sheet = overlay.side_by_side(*sides, ("truth", f"prediction, {caption}"))
            Image.fromarray(sheet).save(beside / name, quality=88)
            written.append((name, kind, caption))
    return pd.DataFrame(written, columns=["file", "kind", "caption"])


def _note(attributes: list[str]) -> str:
    named = ", ".join(name.partition(" (")[0] for name in attributes[:NAMED_ATTRIBUTES])
    return f"{named} +{len(attributes) - NAMED_ATTRIBUTES}" if len(attributes) > NAMED_ATTRIBUTES else named


def _best_and_worst(scores: dict[int, float], count: int) -> dict[str, list[int]]:
    """Image ids of the best, best first, and of the worst, worst first; no image is in both."""
    order = sorted(scores, key=lambda image_id: (-scores[image_id], image_id))
    half = (len(order) + 1) // 2
    return {"best": order[:half][:count], "worst": order[half:][::-1][:count]}


def _mistake_caption(row: Any) -> str:
    """The caption of a row of `mistakes.confident_mistakes`."""
    if row.IoU >= BACKGROUND_IOU:
        what = f"IoU {row.IoU:.2f} with a true {row.name}"
    elif row.other_IoU >= BACKGROUND_IOU:
        what = f"IoU {row.other_IoU:.2f} with a true {row.other}"
    else:
        what = "nothing there"
    return f"{row.name} {row.score:.2f}: {what}"
