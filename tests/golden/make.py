"""Makes torchvision.npz: small seeded inputs and what torchvision makes of them, under keys `case/name`.

    python -m venv /tmp/refenv
    /tmp/refenv/bin/pip install torch==2.15.0 torchvision==0.29.2
    /tmp/refenv/bin/python tests/golden/make.py

Feature maps and masks are stored as torch has them, channels first, and as bytes to stay small.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import roi_heads
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, batched_nms, boxes, nms, roi_align
from torchvision.ops.poolers import LevelMapper

FILE = Path(__file__).parent / "torchvision.npz"
HEIGHT, WIDTH = 96, 128  # of an image
WEIGHTS = {"rpn": (1.0, 1.0, 1.0, 1.0), "head": (10.0, 10.0, 5.0, 5.0)}


def main() -> None:
    cases = {
        "boxes": box_arithmetic(),
        "anchors": anchors(),
        "nms": suppression(),
        "roi_align": one_level(),
        "pyramid": pyramid(),
        "levels": levels(),
        "match_rpn": match_rpn(),
        "match_heads": match_heads(),
        "project": project(),
        "rpn_losses": rpn_losses(),
        "box_losses": box_losses(),
        "mask_loss": mask_loss(),
        "paste": paste(),
    }
    arrays = {f"{case}/{name}": np.asarray(v) for case, values in cases.items() for name, v in values.items()}
    np.savez_compressed(FILE, **arrays)


def random_boxes(random: np.random.Generator, count: int, least: float = 4, most: float = 60) -> Tensor:
    """Boxes (count, 4) that begin in the image and may end beyond it."""
    corners = random.uniform(0, (WIDTH - least, HEIGHT - least), (count, 2))
    sides = np.exp(random.uniform(np.log(least), np.log(most), (count, 2)))
    return torch.tensor(np.concatenate([corners, corners + sides], axis=1), dtype=torch.float32)


def box_arithmetic() -> dict[str, Tensor]:
    random = np.random.default_rng(0)
    truth, proposals = random_boxes(random, 40), random_boxes(random, 30)
    values = {"truth": truth, "proposals": proposals}
    deltas = torch.tensor(random.normal(0, 1, (30, 4)), dtype=torch.float32)
    deltas[:6, 2:] *= 30  # beyond the clamp, on both sides
    values["deltas"] = deltas
    for name, weights in WEIGHTS.items():
        coder = BoxCoder(weights)
        values[f"encoded_{name}"] = coder.encode_single(truth[:30], proposals)
        values[f"decoded_{name}"] = coder.decode_single(deltas, proposals)
    wild = torch.tensor(random.uniform(-40, 170, (20, 2, 2)), dtype=torch.float32).sort(dim=1)[0].reshape(20, 4)
    values["wild"] = wild
    values["clipped"] = boxes.clip_boxes_to_image(wild, (HEIGHT, WIDTH))
    values["clipped_small"] = boxes.clip_boxes_to_image(wild, (HEIGHT // 2, WIDTH - 31))
    values["iou"] = boxes.box_iou(truth, proposals)
    values["areas"] = boxes.box_area(truth)
    return values


def anchors() -> dict[str, Tensor]:
    sides, strides = [32, 64, 128, 256, 512], [4, 8, 16, 32, 64]
    values = {"sides": torch.tensor(sides), "strides": torch.tensor(strides)}
    for height, width in [(64, 64), (64, 128)]:
        generator = AnchorGenerator(tuple((side,) for side in sides), ((0.5, 1.0, 2.0),) * len(sides))
        image = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
        maps = [torch.zeros(1, 1, height // stride, width // stride) for stride in strides]
        values[f"grid_{height}_{width}"] = generator(image, maps)[0].to(torch.int16)
    odd = [9, 15, 16, 24, 33, 100]  # 9 and 15: corners halfway between whole pixels
    values["odd_sides"] = torch.tensor(odd)
    generator = AnchorGenerator(tuple((side,) for side in odd), ((0.5, 1.0, 2.0),) * len(odd))
    values["cells"] = torch.stack([*generator.cell_anchors])
    return values


def suppression() -> dict[str, Tensor]:
    random = np.random.default_rng(1)
    centres = random_boxes(random, 12, 20, 50).repeat_interleave(10, dim=0)
    crowded = centres + torch.tensor(random.normal(0, 4, (120, 4)), dtype=torch.float32)
    scores = torch.tensor(random.permutation(120) + 1) / 121
    groups = torch.tensor(random.integers(0, 3, 120))
    left = torch.arange(40) * 3.0  # each overlaps its neighbour by 7 / 13
    chain = torch.stack([left, torch.zeros(40), left + 10, torch.full((40,), 10.0)], dim=1)
    chain_scores = torch.linspace(0.9, 0.1, 40)
    exact = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5.001]])  # IoU of exactly a half, and above
    return {
        "boxes": crowded,
        "scores": scores,
        "groups": groups,
        "kept_0.5": nms(crowded, scores, 0.5),
        "kept_0.7": nms(crowded, scores, 0.7),
        "kept_groups": batched_nms(crowded, scores, groups, 0.5),
        "chain": chain,
        "chain_scores": chain_scores,
        "kept_chain": nms(chain, chain_scores, 0.5),
        "exact": exact,
        "kept_exact": nms(exact, torch.tensor([0.9, 0.8, 0.7]), 0.5),
        "kept_exact_above": nms(exact[[0, 2]], torch.tensor([0.9, 0.7]), 0.5),
    }


def bytes_map(random: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(random.integers(0, 256, shape, dtype=np.uint8))


def one_level() -> dict[str, Tensor]:
    random = np.random.default_rng(2)
    features = bytes_map(random, 2, 3, 12, 16)  # stride 8
    inside = random_boxes(random, 4)
    edges = [
        [0, 0, WIDTH, HEIGHT],
        [-20, -30, 40, 50],  # partly outside
        [90, 70, 160, 140],
        [-100, -100, 300, 300],  # huge
        [30, 30, 31, 32],  # less than a cell
        [50, 40, 50, 40],  # nothing
        [WIDTH - 3, HEIGHT - 2, WIDTH, HEIGHT],  # last cell
        [0, 0, 2, 2],
        [200, 20, 260, 60],  # outside
        [-60, -60, -20, -20],
        [-8, -8, 24, 24],  # begins one cell outside, the last place that counts
        [0, 0, 0, 0],  # padding
    ]
    rois = torch.cat([inside, torch.tensor(edges, dtype=torch.float32)]).reshape(2, 8, 4)
    values = {"features": features, "rois": rois}
    for side in (2, 7):
        for aligned in (False, True):
            pooled = roi_align(features.float(), list(rois), side, 1 / 8, sampling_ratio=2, aligned=aligned)
            values[f"pooled_{side}_{'aligned' if aligned else 'plain'}"] = pooled
    values["pooled_3_samples"] = roi_align(features.float(), list(rois), 2, 1 / 8, sampling_ratio=3)
    return values


def pyramid() -> dict[str, Tensor]:
    """P2 to P5 of two images of 384 x 512 pixels; regions of every level."""
    random = np.random.default_rng(3)
    maps = {str(level): bytes_map(random, 2, 1, 384 >> level, 512 >> level) for level in range(2, 6)}
    sides = np.array([5, 60, 111, 113, 160, 223, 225, 300, 380, 447, 449, 600] * 2)
    aspects = np.exp(random.uniform(-0.4, 0.4, len(sides)))
    corners = random.uniform(-20, 200, (len(sides), 2))
    corners = np.concatenate([corners, corners + np.stack([sides * aspects, sides / aspects], 1)], axis=1)
    rois = torch.tensor(corners, dtype=torch.float32).reshape(2, 12, 4)
    pooler = MultiScaleRoIAlign(list(maps), 3, 2)
    pooled = pooler({name: level.float() for name, level in maps.items()}, list(rois), [(384, 512)] * 2)
    return {"rois": rois, "pooled": pooled, **{f"P{name}": level for name, level in maps.items()}}


def levels() -> dict[str, Tensor]:
    sides = [edge * factor for edge in (56, 112, 224, 448, 896) for factor in (0.5, 0.999, 1, 1.001, 1.5)]
    squares = [[3, 7, 3 + side, 7 + side] for side in [0, 1e-3, 1, *sides, 5000]]
    slim = [[0, 0, side / 4, side * 4] for side in sides]
    rois = torch.tensor(squares + slim)
    return {"rois": rois, "level": LevelMapper(2, 5)([rois]) + 2}


def match_rpn() -> dict[str, Tensor]:
    """Anchors of whole pixels, so that several are equally good for a box."""
    random = np.random.default_rng(4)
    sides = (16, 32, 64)
    generator = AnchorGenerator(tuple((side,) for side in sides), ((0.5, 1.0, 2.0),) * 3)
    image = ImageList(torch.zeros(1, 3, HEIGHT, WIDTH), [(HEIGHT, WIDTH)])
    candidates = generator(image, [torch.zeros(1, 1, HEIGHT // s, WIDTH // s) for s in (8, 16, 32)])[0]
    truth = random_boxes(random, 8).round()
    truth[0] = torch.tensor([18, 18, 22, 22])  # no good anchor, but four equally good ones
    truth[1] = torch.tensor([40, 24, 56, 40])  # an anchor
    truth[2] = torch.tensor([42, 25, 56, 40])  # has the same best anchor, which belongs to truth[1]
    matches = Matcher(0.7, 0.3, allow_low_quality_matches=True)(boxes.box_iou(truth, candidates))
    return {"truth": truth, "candidates": candidates, "matches": matches}


def match_heads() -> dict[str, Tensor]:
    random = np.random.default_rng(5)
    truth = random_boxes(random, 7)
    near = truth.repeat_interleave(8, dim=0) + torch.tensor(random.normal(0, 4, (56, 4)), dtype=torch.float32)
    candidates = torch.cat([near, random_boxes(random, 24), truth])
    matches = Matcher(0.5, 0.5)(boxes.box_iou(truth, candidates))
    return {"truth": truth, "candidates": candidates, "matches": matches}


def blobs(random: np.random.Generator, places: list[tuple[int, int]], height: int, width: int) -> Tensor:
    """Masks (n, HEIGHT, WIDTH) of smoothed noise that fill a box of height x width at each place (y, x)."""
    masks = np.zeros((len(places), HEIGHT, WIDTH), np.uint8)
    for mask, (y, x) in zip(masks, places, strict=True):
        coarse = torch.tensor(random.random((1, 1, 7, 7)))
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0, 0].numpy() > 0.45
        mask[y : y + height, x : x + width] = smooth
    return torch.tensor(masks)


def project() -> dict[str, Tensor]:
    """Masks of 56 x 56 pixels, and regions of 28 to 56, where torchvision takes two samples a bin.

    It samples without the half pixel between index and coordinate: its answer to a region moved by -0.5 is the
    answer to the region itself.
    """
    random = np.random.default_rng(6)
    places = [(3, 5), (38, 70), (20, 33)]
    masks = blobs(random, places, 56, 56)
    truth = torch.tensor([[x, y, x + 56, y + 56] for y, x in places], dtype=torch.float32)
    matched = torch.tensor(random.integers(0, 3, 10))
    shift = torch.tensor(random.uniform(-18, 18, (10, 2)), dtype=torch.float32)
    sides = torch.tensor(random.uniform(29, 55, (10, 2)), dtype=torch.float32)
    rois = torch.cat([truth[matched][:, :2] + shift, truth[matched][:, :2] + shift + sides], dim=1)
    rois[0] = truth[matched[0]]
    return {
        "masks": np.packbits(masks.numpy()),
        "shape": masks.shape,
        "truth": truth,
        "matched": matched,
        "rois": rois,
        "targets": roi_heads.project_masks_on_boxes(masks, rois - 0.5, matched, 28),
    }


def rpn_losses() -> dict[str, Tensor]:
    """Two images of 50 anchors: label 1 foreground, 0 background, -1 in neither; every third is not sampled."""
    random = np.random.default_rng(7)
    logits = torch.tensor(random.normal(0, 3, (2, 50)), dtype=torch.float32)
    deltas, target = (torch.tensor(random.normal(0, s, (2, 50, 4)), dtype=torch.float32) for s in (0.2, 0.3))
    labels = torch.tensor(random.integers(-1, 2, (2, 50)))
    labels[:, ::3] = -1
    loss = SimpleNamespace(
        fg_bg_sampler=lambda labels: ([(one == 1).byte() for one in labels], [(one == 0).byte() for one in labels])
    )
    objectness, box_reg = RegionProposalNetwork.compute_loss(
        loss, logits.reshape(-1, 1), deltas.reshape(-1, 4), list(labels.float()), list(target)
    )
    return {
        "logits": logits,
        "deltas": deltas,
        "target": target,
        "labels": labels,
        "objectness": objectness,
        "box_reg": box_reg,
    }


def box_losses() -> dict[str, Tensor]:
    random = np.random.default_rng(8)
    labels = torch.tensor(random.integers(0, 5, (2, 16)))
    labels[1, :9] = 0
    logits = torch.tensor(random.normal(0, 2, (2, 16, 5)), dtype=torch.float32)
    deltas = torch.tensor(random.normal(0, 0.3, (2, 16, 5, 4)), dtype=torch.float32)
    target = torch.tensor(random.normal(0, 0.3, (2, 16, 4)), dtype=torch.float32)
    classifier, box_reg = roi_heads.fastrcnn_loss(
        logits.reshape(32, 5), deltas.reshape(32, 20), list(labels), list(target)
    )
    return {
        "labels": labels,
        "logits": logits,
        "deltas": deltas,
        "target": target,
        "classifier": classifier,
        "box_reg": box_reg,
    }


def mask_loss() -> dict[str, Tensor]:
    """Two images with 4 and 2 foreground regions; logits of three classes, background 0 included."""
    random = np.random.default_rng(9)
    masks = [blobs(random, [(3, 5), (40, 70), (20, 33)], 40, 30), blobs(random, [(30, 60)], 50, 44)]
    classes = [torch.tensor([1, 2, 2]), torch.tensor([1])]
    matched = [torch.tensor([0, 2, 1, 0]), torch.tensor([0, 0])]
    rois = [random_boxes(random, 4, 20, 50), random_boxes(random, 2, 20, 50)]
    logits = torch.tensor(random.normal(0, 2, (6, 3, 14, 14)), dtype=torch.float32)
    targets = [roi_heads.project_masks_on_boxes(m, r, i, 14) for m, r, i in zip(masks, rois, matched, strict=True)]
    return {
        "logits": logits,
        "classes": torch.cat([c[i] for c, i in zip(classes, matched, strict=True)]),
        "targets": torch.cat(targets),
        "loss": roi_heads.maskrcnn_loss(logits, rois, masks, classes, matched),
    }


def paste() -> dict[str, Tensor]:
    """Masks (n, 28, 28) of probabilities, and where they exceed 0.5 once pasted into their boxes of an image."""
    random = np.random.default_rng(10)
    coarse = torch.tensor(random.random((6, 1, 8, 8)), dtype=torch.float32)
    masks = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")
    places = [[10.3, 8.6, 50.2, 60.1], [0, 0, 128, 96], [100.5, 70.5, 128, 96], [-5, 20, 30, 44.4], [60, 60, 61, 62]]
    where = torch.tensor([*places, [30.2, 30.7, 34.9, 90]])
    pasted = roi_heads.paste_masks_in_image(masks, where, (HEIGHT, WIDTH))[:, 0]
    assert ((pasted - 0.5).abs() > 1e-5).all()  # no pixel that rounding could decide
    return {
        "masks": masks[:, 0],
        "boxes": where,
        "pasted": np.packbits(pasted.numpy() > 0.5),
        "shape": pasted.shape,
    }


if __name__ == "__main__":
    main()
