"""Mask R-CNN R50-FPN beside torchvision's: seconds an image for inference and for a training step, in one run.

    python benchmarks/reference.py --torch /path/to/python [--side 512] [--batch 1] [--proposals 1000] [--rois 512]
    python benchmarks/reference.py --scaling        # ours alone: seconds an image by batch, proposals, side

--torch is the python of an environment of its own with torch and torchvision; without it only ours is timed. Both
networks have random weights, the same frozen layers, the same picture with 8 instances, and take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROUNDS = 5
CLASSES, INSTANCES, DETECTIONS = 46, 8, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="python of an environment with torch and torchvision")
    parser.add_argument("--scaling", action="store_true")
    for name, value in (("side", 512), ("batch", 1), ("proposals", 1000), ("rois", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tasks", nargs="+", default=["inference", "training"], choices=["inference", "training"])
    parser.add_argument("--worker", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
    elif options.scaling:
        scaling(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    pythons = {"ours": sys.executable, **({"theirs": options.torch} if options.torch else {})}
    for task in options.tasks:
        seconds = measure(pythons, {**vars(options), "tasks": [task]})
        for place, clock in enumerate(("wall", "processor")):
            middle = {name: statistics.median(pair[place] for pair in pairs) for name, pairs in seconds.items()}
            line = f"{task}, {options.side} px, batch {options.batch}, {clock} seconds an image: "
            line += ", ".join(f"{name} {value:.3f}" for name, value in middle.items())
            if options.torch:
                line += f", ratio {middle['ours'] / middle['theirs']:.2f}"
            print(line, flush=True)


def scaling(options: argparse.Namespace) -> None:
    base = {"batch": 1, "proposals": 1000, "side": 512}
    changes = [{}, *({"batch": n} for n in (2, 4)), *({"proposals": n} for n in (256, 2000))]
    changes += [{"side": n} for n in (320, 768)]
    print(f"{'batch':>6}{'proposals':>11}{'side':>6}" + "".join(f"{task:>11}" for task in options.tasks))
    for change in changes:
        shape = {**base, **change}
        line = f"{shape['batch']:>6}{shape['proposals']:>11}{shape['side']:>6}"
        for task in options.tasks:
            pairs = measure({"ours": sys.executable}, {**vars(options), **shape, "tasks": [task]})["ours"]
            line += f"{statistics.median(wall for wall, _ in pairs):>11.3f}"
        print(line, flush=True)


def measure(pythons: dict[str, str], options: dict) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds an image of each, ROUNDS times, turn by turn after a round that is not counted."""
    workers = {}
    for name, python in pythons.items():
        flags = [f"--{key}={options[key]}" for key in ("side", "batch", "proposals", "rois")]
        command = [python, __file__, f"--worker={name}", "--tasks", *options["tasks"], *flags]
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for round_ in range(ROUNDS + 1):
        for name, worker in workers.items():
            print("go", file=worker.stdin, flush=True)
            value = json.loads(worker.stdout.readline())
            if round_:
                seconds[name].append(value)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds


def work(options: argparse.Namespace) -> None:
    once = {"ours": ours, "theirs": theirs}[options.worker](options, options.tasks[0])
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        once()
        spent = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps([value / options.batch for value in spent]), flush=True)


def picture(side: int):
    """An image (S, S, 3) float32 0..255 and INSTANCES boxes (n, 4), classes (n,) from 1."""
    import numpy as np

    random = np.random.default_rng(0)
    corners = random.uniform(0, side * 0.6, (INSTANCES, 2))
    boxes = np.concatenate([corners, corners + random.uniform(side * 0.1, side * 0.4, (INSTANCES, 2))], axis=1)
    image = random.uniform(0, 255, (side, side, 3)).astype(np.float32)
    return image, boxes.astype(np.float32), random.integers(1, CLASSES + 1, INSTANCES).astype(np.int32)


def ours(options: argparse.Namespace, task: str):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    from fashionseg.model.mask_rcnn import JIT, Detector, MaskRCNN

    keras.utils.set_random_seed(0)
    network = MaskRCNN(
        backbone="resnet50",
        weights="random",
        frozen_stages=1,
        side=options.side,
        classes=CLASSES,
        fpn_channels=256,
        anchor_side=32,
        proposals=options.proposals,
        detections=DETECTIONS,
        attributes="none",
        attribute_count=0,
        precision="float32",
        rois=options.rois,
        seed=0,
    )
    image, boxes, classes = picture(options.side)
    batch = {
        "images": np.repeat(image[None], options.batch, 0),
        "sizes": np.full((options.batch, 2), options.side, np.int32),
        "boxes": np.repeat(boxes[None], options.batch, 0),
        "classes": np.repeat(classes[None], options.batch, 0),
        "masks": np.ones((options.batch, INSTANCES, 56, 56), np.uint8),
    }
    if task == "training":
        network.compile(keras.optimizers.SGD(1e-4, 0.9), jit_compile=JIT)
        return lambda: network.train_on_batch(batch)
    detector = Detector(network, 0.0, 0.5)  # every pair counts, as untrained networks are unsure
    detector.compile(jit_compile=JIT)
    seen = {name: batch[name] for name in ("images", "sizes")}
    return lambda: detector.predict_on_batch(seen)


def theirs(options: argparse.Namespace, task: str):
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=options.side,
        max_size=options.side,
        rpn_pre_nms_top_n_train=options.proposals,
        rpn_post_nms_top_n_train=options.proposals,
        rpn_pre_nms_top_n_test=options.proposals,
        rpn_post_nms_top_n_test=options.proposals,
        box_batch_size_per_image=options.rois,
        box_score_thresh=0.0,
        box_detections_per_img=DETECTIONS,
    )
    for name, parameter in network.backbone.body.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    for module in network.backbone.body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False).eval()
            module.train = lambda mode=True, module=module: module  # stored statistics, as ours
    image, boxes, classes = picture(options.side)
    images = [torch.tensor(image).permute(2, 0, 1) / 255] * options.batch
    if task == "inference":
        network.eval()

        def detect():
            with torch.inference_mode():
                network(images)

        return detect
    masks = torch.zeros(INSTANCES, options.side, options.side, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    truth = {"boxes": torch.tensor(boxes), "labels": torch.tensor(classes).long(), "masks": masks}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-4, 0.9)

    def step():
        loss = sum(network(images, [dict(truth) for _ in images]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
