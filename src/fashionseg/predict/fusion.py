"""Weighted box fusion (Solovyev, Wang and Gabruseva 2021): fuses the detections of several TTA views of an image."""

from collections.abc import Sequence

import cv2
import numpy as np

FUSION_IOU = 0.55  # the paper's; boxes of a class with a higher IoU are fused

Detections = dict[str, np.ndarray]


def fuse(views: Sequence[Detections]) -> Detections:
    """Fused detections, highest score first: each the mean of the detections of a class that overlap.

    Each view has, for the same image without padding: boxes (n, 4) in the same coordinates, scores (n,), classes (n,),
    soft masks (n, M, M) over their boxes, margins (n,), and attributes (n, A) or none. Means are weighted by score;
    soft masks are resampled to the mean box first. A score is the mean score times min(1, boxes fused / views), as in
    the paper. Adds `agreement` (n,), the share of the views that show it, each view counted once. A single view is
    returned unchanged.
    """
    if len(views) == 1:
        return {**views[0], "agreement": np.ones(len(views[0]["scores"]), np.float32)}
    detections = {name: np.concatenate([view[name] for view in views]) for name in views[0]}
    of_view = np.repeat(np.arange(len(views)), [len(view["scores"]) for view in views])
    clusters = _clusters(detections["boxes"], detections["scores"], detections["classes"])
    fused = {name: np.zeros((len(clusters), *values.shape[1:]), values.dtype) for name, values in detections.items()}
    fused["agreement"] = np.zeros(len(clusters), np.float32)
    for row, members in enumerate(clusters):
        weights = detections["scores"][members] / detections["scores"][members].sum()
        box = weights @ detections["boxes"][members]
        fused["boxes"][row] = box
        fused["classes"][row] = detections["classes"][members[0]]
        fused["agreement"][row] = len(np.unique(of_view[members])) / len(views)
        fused["scores"][row] = detections["scores"][members].mean() * min(len(members), len(views)) / len(views)
        fused["masks"][row] = sum(
            weight * _resampled(detections["masks"][i], detections["boxes"][i], box)
            for weight, i in zip(weights, members, strict=True)
        )
        for name in fused.keys() & {"margins", "attributes"}:
            fused[name][row] = weights @ detections[name][members]
    order = np.argsort(-fused["scores"], kind="stable")
    return {name: values[order] for name, values in fused.items()}


def _clusters(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """Rows to be fused: by falling score, each joins the cluster of its class with the highest IoU, or starts one."""
    clusters: list[list[int]] = []
    means = np.zeros((len(boxes), 4))
    of_class = np.zeros(len(boxes), classes.dtype)
    for row in np.argsort(-scores, kind="stable").tolist():
        count = len(clusters)
        overlaps = np.where(of_class[:count] == classes[row], _iou_with_box(means[:count], boxes[row]), 0)
        place = int(overlaps.argmax()) if count else 0
        if count and overlaps[place] > FUSION_IOU:
            clusters[place].append(row)
        else:
            place = count
            clusters.append([row])
            of_class[place] = classes[row]
        members = clusters[place]
        means[place] = np.average(boxes[members], axis=0, weights=scores[members])
    return clusters


def _iou_with_box(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n,) IoU of each of boxes (n, 4) with one box (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    overlap = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return overlap / np.maximum(areas - overlap, 1e-9)


def _resampled(mask: np.ndarray, box: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A soft mask (M, M) over `box`, resampled over the box `target`: bilinear, 0 outside."""
    side = len(mask)
    sides, target_sides = np.maximum(box[2:] - box[:2], 1e-6), target[2:] - target[:2]
    scale = target_sides / sides
    # The centre of cell j of the target lies at cell (t1 + (j + 0.5) / M * tw - x1) / w * M - 0.5 of the mask.
    shift = (target[:2] - box[:2]) / sides * side + 0.5 * scale - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
