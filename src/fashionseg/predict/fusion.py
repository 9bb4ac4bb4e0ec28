"""Weighted box fusion (Solovyev, Wang and Gabruseva 2021): the detections of several views as one set of instances."""

from collections.abc import Sequence

import cv2
import numpy as np

MATCH_IOU = 0.55  # the paper's

Detections = dict[str, np.ndarray]


def fuse(views: Sequence[Detections]) -> Detections:
    """Instances that the views show, best first, each the mean of what overlaps by more than MATCH_IOU in its class.

    A view holds, of the same image and without padding, boxes (n, 4) in a common frame, scores (n,), classes (n,),
    masks (n, M, M) over their boxes, margins (n,) and maybe attributes (n, A). Means are weighted by score; masks are
    brought to the mean box first. A score is the mean times the share of views that agree, the paper's, which counts
    boxes; `agreement` (n,), which is added, counts each view once. One view comes back as it is.
    """
    if len(views) == 1:
        return {**views[0], "agreement": np.ones(len(views[0]["scores"]), np.float32)}
    found = {name: np.concatenate([view[name] for view in views]) for name in views[0]}
    of_view = np.repeat(np.arange(len(views)), [len(view["scores"]) for view in views])
    clusters = _clusters(found["boxes"], found["scores"], found["classes"])
    fused = {name: np.zeros((len(clusters), *values.shape[1:]), values.dtype) for name, values in found.items()}
    fused["agreement"] = np.zeros(len(clusters), np.float32)
    for row, members in enumerate(clusters):
        weights = found["scores"][members] / found["scores"][members].sum()
        box = weights @ found["boxes"][members]
        fused["boxes"][row] = box
        fused["classes"][row] = found["classes"][members[0]]
        fused["agreement"][row] = len(np.unique(of_view[members])) / len(views)
        fused["scores"][row] = found["scores"][members].mean() * min(len(members), len(views)) / len(views)
        fused["masks"][row] = sum(
            weight * _moved(found["masks"][i], found["boxes"][i], box)
            for weight, i in zip(weights, members, strict=True)
        )
        for name in fused.keys() & {"margins", "attributes"}:
            fused[name][row] = weights @ found[name][members]
    order = np.argsort(-fused["scores"], kind="stable")
    return {name: values[order] for name, values in fused.items()}


def _clusters(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """Rows that show the same instance: each joins the cluster whose mean box it overlaps most, or begins one."""
    clusters: list[list[int]] = []
    means = np.zeros((len(boxes), 4))
    of_class = np.zeros(len(boxes), classes.dtype)
    for row in np.argsort(-scores, kind="stable").tolist():
        count = len(clusters)
        overlaps = np.where(of_class[:count] == classes[row], _iou(means[:count], boxes[row]), 0)
        place = int(overlaps.argmax()) if count else 0
        if count and overlaps[place] > MATCH_IOU:
            clusters[place].append(row)
        else:
            place = count
            clusters.append([row])
            of_class[place] = classes[row]
        members = clusters[place]
        means[place] = np.average(boxes[members], axis=0, weights=scores[members])
    return clusters


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    overlap = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return overlap / np.maximum(areas - overlap, 1e-9)


def _moved(mask: np.ndarray, box: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A mask (M, M) over `box`, seen over the box `target`: bilinear, nothing outside."""
    side = len(mask)
    sides, target_sides = np.maximum(box[2:] - box[:2], 1e-6), target[2:] - target[:2]
    scale = target_sides / sides
    # The centre of cell j of the target lies at cell (t1 + (j + 0.5) / M * tw - x1) / w * M - 0.5 of the mask.
    shift = (target[:2] - box[:2]) / sides * side + 0.5 * scale - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
