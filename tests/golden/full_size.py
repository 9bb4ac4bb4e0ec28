"""Compares an imported network with torchvision's own at full size, on a photograph, step by step.

    python tests/golden/full_size.py --torch /tmp/refenv/bin/python --image photograph.jpg [--heads v1] [--side 512]

Builds torchvision's maskrcnn_resnet50_fpn (or its second version) for 46 classes with random weights and statistics,
imports its state dict as training does, and prints the largest difference of each step, relative to the largest
number there. Not in CI, as it needs torch; --torch is the python of the environment of make.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CLASSES = 46
DETECTED = ("boxes", "scores", "classes", "masks")
SETTINGS = {"proposals": 1000, "detections": 100, "rois": 512, "score": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="python of an environment with torch and torchvision")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--heads", choices=["v1", "v2"], default="v1")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        theirs(options.worker, options.heads, options.side)
        return
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "image.npy", photograph(options.image, options.side))
        command = [options.torch, __file__, "--worker", folder, "--heads", options.heads, "--side", str(options.side)]
        subprocess.run(command, check=True)
        compare(Path(folder), options.heads, options.side)


def photograph(path: Path, side: int) -> np.ndarray:
    """The middle square. Padding would be flat: there hundreds of anchors score the same but for the last bit, which
    then decides, chaotically, who suppresses whom."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (side, side)))


def theirs(folder: Path, heads: str, side: int) -> None:
    import torch
    from make_network import outputs, randomise, settings
    from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

    torch.manual_seed(0)
    build = {"v1": maskrcnn_resnet50_fpn, "v2": maskrcnn_resnet50_fpn_v2}[heads]
    network = build(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **settings(side, **SETTINGS))
    image = np.load(folder / "image.npy")
    randomise(network, image)
    print(f"torchvision: {sum(p.numel() for p in network.parameters()):,} parameters")
    torch.save(network.state_dict(), folder / "network.pth")
    np.savez(folder / "network.npz", **outputs(network, image))


def compare(folder: Path, heads: str, side: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras import ops

    from fashionseg.model.box_head import ROI_BOX_SIDE
    from fashionseg.model.config import Network
    from fashionseg.model.mask_rcnn import MaskRCNN
    from fashionseg.model.weights import pretrained

    config = Network(
        backbone="resnet50",
        weights="random",
        frozen_stages=0,
        side=side,
        classes=CLASSES,
        fpn_channels=256,
        anchor_side=32,
        proposals=SETTINGS["proposals"],
        detections=SETTINGS["detections"],
        attributes="none",
        attribute_count=0,
        precision="float32",
        rois=SETTINGS["rois"],
        seed=0,
        heads=heads,
        weights_unused=[],
        frozen_norm=True,
        class_agnostic_boxes=False,
        class_agnostic_masks=False,
        box_stages=1,
        anchor_ratios=[0.5, 1.0, 2.0],
    )
    network = MaskRCNN(config)
    print(f"ours: {sum(np.prod(v.shape) for v in network.trainable_variables):,} learnable numbers")
    print(pretrained.load(network, folder / "network.pth"))
    golden = dict(np.load(folder / "network.npz"))
    image = np.load(folder / "image.npy").astype("float32")[None]
    sizes = np.array([[side, side]])
    pyramid, logits, deltas, anchors = network.first_stage(image)
    proposals, scores = network.rpn.propose(logits, deltas, anchors, sizes)
    (features,) = network.roi_heads.align(pyramid)((golden["proposals"][None], ROI_BOX_SIDE))
    class_logits, class_deltas, _ = network.roi_heads.box_head(features)
    found = network.roi_heads.detect(
        pyramid,
        golden["proposals"][None],
        np.ones((1, len(golden["proposals"])), "float32"),
        sizes,
        score_threshold=SETTINGS["score"],
        nms_iou=0.5,
    )
    whole = network.detect(image, sizes, SETTINGS["score"], 0.5)
    rows = {f"P{level + 2}": feature for level, feature in enumerate(pyramid)}
    rows |= {"rpn_logits": ops.concatenate(logits, axis=1), "rpn_deltas": ops.concatenate(deltas, axis=1)}
    rows |= {"class_logits": class_logits, "class_deltas": class_deltas}
    rows |= {name: found[name] for name in DETECTED}
    rows |= {f"{name}, end to end": whole[name] for name in DETECTED}
    print("largest difference, of the largest number; heads on torchvision's proposals unless end to end")
    for name, values in rows.items():
        expected = golden[name.partition(",")[0]]
        values = ops.convert_to_numpy(values)[0].reshape(-1, *expected.shape[1:])[: len(expected)]
        largest = np.abs(expected).max()
        print(f"{name:>20}  {np.abs(values - expected).max() / largest:.1e} of {largest:.4g}")
    # As a set: near the end scores are equal to the last bit, and one that changes places moves all that follow.
    proposals = ops.convert_to_numpy(proposals)[0][ops.convert_to_numpy(scores)[0] > 0]
    nearest = np.abs(golden["proposals"][:, None] - proposals).max(axis=-1).min(axis=1)
    print(f"{len(proposals)} proposals; of torchvision's {len(nearest)} {(nearest < 0.01).sum()} are among them")
    print(f"{int(ops.sum(whole['classes'] > 0))} detections, {len(golden['scores'])} of torchvision's")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
