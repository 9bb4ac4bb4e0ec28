"""Makes network_v1 and network_v2, each .pth and .npz: a small Mask R-CNN of torchvision's (maskrcnn_resnet50_fpn and
its second version), its weights rounded to 16 bits, and what it makes of an image.

    /tmp/refenv/bin/python tests/golden/make_network.py      # the environment of make.py

The ResNet has one narrow block a stage. full_size.py uses the same functions for the networks as they are.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, roi_heads
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import roi_align
from torchvision.ops.misc import FrozenBatchNorm2d

FOLDER = Path(__file__).parent
SIDE, CLASSES, CHANNELS, DENSE = 128, 5, 16, 32
PLANES = (64, 16, 16, 16)  # of the stages; KerasHub's ResNet wants 64 first
TRUTH_SIDE, TRUTH_PLACES = 40, [(10, 12), (60, 20), (44, 70)]  # squares, so that a mask has a cell a pixel
SPREAD = {"cls_logits": 2.0, "cls_score": 2.0, "mask_fcn_logits": 2.0, "bbox_pred": 0.5}
SETTINGS = {"proposals": 60, "detections": 20, "rois": 24, "score": 0.05}


def main() -> None:
    for version in ("v1", "v2"):
        torch.manual_seed(0)
        random = np.random.default_rng(0)
        image = random.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        network = small(version)
        randomise(network, image)
        halves = {name: v.half() if v.is_floating_point() else v for name, v in network.state_dict().items()}
        torch.save(halves, FOLDER / f"network_{version}.pth")
        network.load_state_dict(halves)
        arrays = {"image": image, **outputs(network, image)}
        if version == "v1":  # in the second version batch norm would follow the batch
            arrays |= losses(network, image)
        np.savez_compressed(FOLDER / f"network_{version}.npz", **arrays)


def small(version: str) -> MaskRCNN:
    """Version 1 with frozen batch norm of epsilon 0, as the COCO weights have it."""
    body = ResNet(Bottleneck, [1] * 4, norm_layer=FrozenBatchNorm2d if version == "v1" else nn.BatchNorm2d)
    body.inplanes = 64
    for index, planes in enumerate(PLANES):
        setattr(body, f"layer{index + 1}", body._make_layer(Bottleneck, planes, 1, 2 if index else 1))
    norm = {"norm_layer": None if version == "v1" else nn.BatchNorm2d}
    names, widths = {f"layer{k + 1}": str(k) for k in range(4)}, [4 * planes for planes in PLANES]
    convs = FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 4, [DENSE], **norm)
    network = MaskRCNN(
        BackboneWithFPN(body, names, widths, CHANNELS, **norm),
        rpn_anchor_generator=AnchorGenerator(tuple((16 << k,) for k in range(5)), ((0.5, 1.0, 2.0),) * 5),
        rpn_head=RPNHead(CHANNELS, 3, conv_depth=1 if version == "v1" else 2),
        box_head=TwoMLPHead(CHANNELS * 49, DENSE) if version == "v1" else convs,
        box_predictor=FastRCNNPredictor(DENSE, CLASSES + 1),
        mask_head=MaskRCNNHeads(CHANNELS, [CHANNELS] * 4, 1, **norm),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1),
        **settings(SIDE, **SETTINGS),
    )
    overwrite_eps(network, 0.0)
    return network


def settings(side: int, proposals: int, detections: int, rois: int, score: float) -> dict[str, float]:
    """Arguments of torchvision's MaskRCNN that make it see and select as ours does."""
    tops = {f"rpn_{when}_nms_top_n_{mode}": proposals for when in ("pre", "post") for mode in ("train", "test")}
    return {
        **tops,
        "min_size": side,
        "max_size": side,
        "size_divisible": side,
        "box_score_thresh": score,
        "box_detections_per_img": detections,
        "box_batch_size_per_image": rois,
    }


@torch.no_grad()
def randomise(network: MaskRCNN, image: np.ndarray) -> None:
    """Random weights with which each layer's answers to an image spread by SPREAD, or 1; and statistics of batch norm,
    some of them tiny as in trained networks."""

    def rescale(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if module.centred:
            module.bias.sub_(output.mean(dim=0))
            output = output - output.mean(dim=0)
        factor = module.spread / output.std()
        for parameter in module.parameters():
            parameter.mul_(factor)
        module.hook.remove()  # the RPN's layers see several maps, one after the other
        return output * factor

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.weight.normal_()
            if module.bias is not None:
                module.bias.normal_()
            module.spread = SPREAD.get(name.rpartition(".")[2], 1.0)
            module.centred = name.endswith("cls_score")  # or one class would win everywhere
            module.hook = module.register_forward_hook(rescale)
        elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_var.copy_(10 ** (torch.rand_like(module.running_var) * 5 - 4.5))
            module.weight.copy_(module.running_var.sqrt() * (0.5 + torch.rand_like(module.weight)))
            module.weight.mul_(0.3 if name.endswith("bn3") else 1.0)
            module.bias.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
    outputs(network, image)


@torch.no_grad()
def outputs(network: MaskRCNN, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of an image (S, S, 3) uint8 RGB, step by step, channels last."""
    network.eval()
    images, _ = network.transform([tensor(image)])
    assert images.image_sizes == [image.shape[:2]]
    features = network.backbone(images.tensors)
    logits, deltas = network.rpn.head(list(features.values()))
    proposals, _ = network.rpn(images, features)
    pooled = network.roi_heads.box_roi_pool(features, proposals, images.image_sizes)
    class_logits, class_deltas = network.roi_heads.box_predictor(network.roi_heads.box_head(pooled))
    found = network.roi_heads(features, proposals, images.image_sizes)[0][0]
    rows = {"proposals": proposals[0], "class_logits": class_logits, "class_deltas": class_deltas}
    rows |= {"boxes": found["boxes"], "scores": found["scores"], "classes": found["labels"]}
    maps = dict(zip(("P2", "P3", "P4", "P5", "P6"), (f[0].permute(1, 2, 0) for f in features.values()), strict=True))
    for name, levels, width in (("rpn_logits", logits, 1), ("rpn_deltas", deltas, 4)):
        rows[name] = torch.cat([level[0].permute(1, 2, 0).reshape(-1, width) for level in levels])
    rows["masks"] = found["masks"][:, 0]
    return {name: value.numpy() for name, value in {**maps, **rows}.items()}


class Sampler:
    """Takes the candidates of the largest numbers, at most a share of them matched, in place of random ones."""

    def __init__(self, uniform: np.ndarray, count: int, share: float):
        self.uniform, self.count, self.share = torch.tensor(uniform), count, share

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        (labels,) = labels
        # Ours has a fixed number of proposals, so that the truth, which comes last, begins later than here.
        gap = len(self.uniform) - len(labels)
        proposals = len(labels) - len(TRUTH_PLACES)
        uniform = torch.cat([self.uniform[:proposals], self.uniform[proposals + gap :]])

        def best(where: Tensor, count: int) -> Tensor:
            chosen = torch.zeros_like(labels, dtype=torch.bool)
            places = where.nonzero()[:, 0]
            chosen[places[uniform[places].argsort(descending=True)[:count]]] = True
            return chosen

        positive = best(labels >= 1, int(self.count * self.share))
        return [positive], [best(labels == 0, self.count - int(positive.sum()))]


def losses(network: MaskRCNN, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of torchvision's training, with samples that are given and masks sampled half a pixel off, as ours are."""
    random = np.random.default_rng(1)
    anchors = sum(3 * (SIDE >> k) ** 2 for k in range(2, 7))
    uniform = {
        "rpn": random.random(anchors, np.float32),
        "rois": random.random(SETTINGS["proposals"] + len(TRUTH_PLACES), np.float32),
    }
    network.rpn.fg_bg_sampler = Sampler(uniform["rpn"], 256, 0.5)
    network.roi_heads.fg_bg_sampler = Sampler(uniform["rois"], SETTINGS["rois"], 0.25)
    boxes = torch.tensor([[x, y, x + TRUTH_SIDE, y + TRUTH_SIDE] for x, y in TRUTH_PLACES], dtype=torch.float32)
    labels = torch.tensor([1, 3, 5])
    cells = torch.tensor(random.random((3, 1, 8, 8), np.float32))
    cells = nn.functional.interpolate(cells, (TRUTH_SIDE, TRUTH_SIDE), mode="bilinear")[:, 0] > 0.5
    masks = torch.zeros((3, SIDE, SIDE), dtype=torch.uint8)
    for mask, cell, (x, y) in zip(masks, cells, TRUTH_PLACES, strict=True):
        mask[y : y + TRUTH_SIDE, x : x + TRUTH_SIDE] = cell

    def project(masks: Tensor, rois: Tensor, matched: Tensor, side: int) -> Tensor:
        places = torch.cat([matched[:, None].float(), rois], dim=1)
        return roi_align(masks[:, None].float(), places, side, 1.0, sampling_ratio=2, aligned=True)[:, 0]

    roi_heads.project_masks_on_boxes = project
    network.train()
    found = network([tensor(image)], [{"boxes": boxes, "labels": labels, "masks": masks}])
    names = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")
    theirs = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
    return {
        "truth": boxes.numpy(),
        "truth_classes": labels.numpy(),
        "truth_masks": cells.numpy(),
        **{f"uniform_{name}": values for name, values in uniform.items()},
        **{f"loss_{name}": found[key].detach().numpy() for name, key in zip(names, theirs, strict=True)},
    }


def tensor(image: np.ndarray) -> Tensor:
    return torch.tensor(image.astype(np.float32)).permute(2, 0, 1) / 255


if __name__ == "__main__":
    main()
