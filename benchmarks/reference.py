"""Mask R-CNN R50-FPN beside torchvision's: seconds an image for inference and for a training step, in one run.

    python benchmarks/reference.py --torch /path/to/python [--side 512] [--batch 1] [--proposals 1000] [--rois 512]
    KERAS_BACKEND=jax python benchmarks/reference.py --torch python --batch 8 --precision bfloat16      # on a GPU
    python benchmarks/reference.py --scaling        # ours alone: seconds an image by batch, proposals, side

--torch is the python of an environment with torch and torchvision; without it only ours is timed. Both networks have
random weights, the same frozen layers, the same picture with 8 instances, which lies on the device before the clock
starts, and take turns; at inference every proposal shows one class, as many as trained networks show. bfloat16 is
mixed_bfloat16 here, autocast there. On a GPU torchvision's convolutions are channels_last, and whatever of
cudnn.benchmark and torch.compile makes it faster is switched on. Peak memory is the GPU's as allocated, else the
process'.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

ROUNDS = 5
MIN_SECONDS = 1.0  # of a round: what is faster is done again
WARM = 5  # steps until torch has settled, and as many to compare its settings
CLASSES, INSTANCES, DETECTIONS = 46, 8, 100
SCORE_THRESHOLD = 0.05  # torchvision's
# Of background, one class and the others: untrained networks would find all classes alike, and so nothing or too much.
CLASS_LOGITS = [3.0, 2.2, *[-6.0] * (CLASSES - 1)]
QUANTITIES = ("wall seconds an image", "processor seconds an image", "peak gigabytes")


class Side(NamedTuple):
    """One of the two: what it runs on, what it does, how to wait for that, its peak memory in bytes."""

    about: str
    once: Callable[[], object]
    wait: Callable[[], object]
    peak: Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="python of an environment with torch and torchvision")
    parser.add_argument("--scaling", action="store_true")
    for name, value in (("side", 512), ("batch", 1), ("proposals", 1000), ("rois", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
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
        rounds = measure(pythons, {**vars(options), "tasks": [task]})
        for place, quantity in enumerate(QUANTITIES):
            middle = {name: statistics.median(values[place] for values in rounds[name]) for name in rounds}
            line = f"{task}, {options.side} px, batch {options.batch}, {quantity}: "
            line += ", ".join(f"{name} {value:#.4g}" for name, value in middle.items())
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
            rounds = measure({"ours": sys.executable}, {**vars(options), **shape, "tasks": [task]})["ours"]
            line += f"{statistics.median(wall for wall, *_ in rounds):>11.3f}"
        print(line, flush=True)


def measure(pythons: dict[str, str], options: dict) -> dict[str, list[tuple[float, float, float]]]:
    """QUANTITIES of each, ROUNDS times, turn by turn after a round that is not counted."""
    workers = {}
    for name, python in pythons.items():
        flags = [f"--{key}={options[key]}" for key in ("side", "batch", "proposals", "rois", "precision")]
        command = [python, __file__, f"--worker={name}", "--tasks", *options["tasks"], *flags]
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in workers}
    for round_ in range(ROUNDS + 1):
        for name, worker in workers.items():
            print("go", file=worker.stdin, flush=True)
            value = json.loads(worker.stdout.readline())
            if round_:
                rounds[name].append(value)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return rounds


def work(options: argparse.Namespace) -> None:
    side = {"ours": ours, "theirs": theirs}[options.worker](options, options.tasks[0])
    for line, _ in enumerate(sys.stdin):
        wall, processor, steps = time.perf_counter(), time.process_time(), 0
        while not steps or time.perf_counter() - wall < MIN_SECONDS:
            side.once()
            steps += 1
        side.wait()
        spent = time.perf_counter() - wall, time.process_time() - processor
        if not line:
            print(f"{options.worker}: {side.about}", file=sys.stderr)
        seconds = [value / steps / options.batch for value in spent]
        print(json.dumps([*seconds, side.peak() / 1e9]), flush=True)


def resident() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def picture(side: int):
    """An image (S, S, 3) float32 0..255 and INSTANCES boxes (n, 4), classes (n,) from 1."""
    import numpy as np

    random = np.random.default_rng(0)
    corners = random.uniform(0, side * 0.6, (INSTANCES, 2))
    boxes = np.concatenate([corners, corners + random.uniform(side * 0.1, side * 0.4, (INSTANCES, 2))], axis=1)
    image = random.uniform(0, 255, (side, side, 3)).astype(np.float32)
    return image, boxes.astype(np.float32), random.integers(1, CLASSES + 1, INSTANCES).astype(np.int32)


def r50_fpn(options: argparse.Namespace, precision: str):
    """Our network of options.side, options.proposals and options.rois, shaped as torchvision's."""
    from fashionseg.model.config import Network
    from fashionseg.model.mask_rcnn import MaskRCNN

    return MaskRCNN(
        Network(
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
            precision=precision,
            rois=options.rois,
            seed=0,
            heads="v1",
            weights_unused=[],
            frozen_norm=True,
            class_agnostic_boxes=False,
            class_agnostic_masks=False,
            box_stages=1,
            anchor_ratios=[0.5, 1.0, 2.0],
        )
    )


def ours(options: argparse.Namespace, task: str) -> Side:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves room for theirs
    from fashionseg.core import backend

    backend.choose("tensorflow")
    import keras
    import numpy as np

    from fashionseg.model.compilation import compile_steps
    from fashionseg.model.mask_rcnn import Detector

    network = r50_fpn(options, {"float32": "float32", "bfloat16": "mixed_bfloat16"}[options.precision])
    image, boxes, classes = picture(options.side)
    batch = {
        "images": np.repeat(image[None], options.batch, 0),
        "sizes": np.full((options.batch, 2), options.side, np.int32),
        "boxes": np.repeat(boxes[None], options.batch, 0),
        "classes": np.repeat(classes[None], options.batch, 0),
        "masks": np.ones((options.batch, INSTANCES, 56, 56), np.uint8),
    }
    batch = {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}

    def peak():
        if keras.backend.backend() == "jax":
            import jax

            return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", resident())
        return resident()

    # Both give numbers, not promises: there is nothing to wait for.
    about = f"{keras.backend.backend()} on {keras.distribution.list_devices()[0]}, {options.precision}"
    if task == "training":
        compile_steps(network, optimizer=keras.optimizers.SGD(1e-4, 0.9))
        return Side(about, lambda: network.train_on_batch(batch), lambda: None, peak)
    network.roi_heads.box_head.class_logits.bias.assign(CLASS_LOGITS)
    detector = Detector(network, SCORE_THRESHOLD, 0.5)
    compile_steps(detector)
    seen = {name: batch[name] for name in ("images", "sizes")}
    return Side(about, lambda: detector.predict_on_batch(seen), lambda: None, peak)


def theirs(options: argparse.Namespace, task: str) -> Side:
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
        box_score_thresh=SCORE_THRESHOLD,
        box_detections_per_img=DETECTIONS,
    )
    for name, parameter in network.backbone.body.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
    for module in network.backbone.body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False).eval()
            module.train = lambda mode=True, module=module: module  # stored statistics, as ours
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16")
    image, boxes, classes = picture(options.side)
    images = [torch.tensor(image, device=device).permute(2, 0, 1) / 255] * options.batch
    masks = torch.zeros(INSTANCES, options.side, options.side, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    truth = {"boxes": torch.tensor(boxes), "labels": torch.tensor(classes).long(), "masks": masks}
    truth = {name: values.to(device) for name, values in truth.items()}
    network.train(task == "training")
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-4, 0.9)

    def detect():
        with torch.inference_mode(), autocast:
            network(images)

    def step():
        with autocast:
            loss = sum(network(images, [dict(truth) for _ in images]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if task == "inference":
        network.roi_heads.box_predictor.cls_score.bias.data = torch.tensor(CLASS_LOGITS, device=device)
    once = step if task == "training" else detect
    about = f"torch {torch.__version__} on {device}, {options.precision}"
    if device == "cpu":
        return Side(about, once, lambda: None, resident)
    network.to(memory_format=torch.channels_last)
    forward = torch.compile(network.backbone.forward, dynamic=False)
    switches = {
        "cudnn.benchmark": (torch.backends.cudnn, "benchmark", True),
        "torch.compile of the backbone": (network.backbone, "forward", forward),
    }
    used = [name for name, switch in switches.items() if faster(once, torch.cuda.synchronize, *switch)]
    torch.cuda.reset_peak_memory_stats()
    about = f"{about}, channels_last, {', '.join(used) or 'nothing else'}"
    return Side(about, once, torch.cuda.synchronize, torch.cuda.max_memory_allocated)


def faster(once: Callable[[], object], wait: Callable[[], object], owner: object, name: str, value: object) -> bool:
    """Whether `once` works, and in less time, with the attribute so; if not, it gets its old value back."""
    seconds, before = [], getattr(owner, name)
    for setting in (before, value):
        setattr(owner, name, setting)
        try:
            for _ in range(WARM):
                once()
            wait()
            begin = time.perf_counter()
            for _ in range(WARM):
                once()
            wait()
        except Exception as error:  # a compiler lets through whatever it meets
            print(f"theirs: {name} does not work here: {error}", file=sys.stderr)
            break
        seconds.append(time.perf_counter() - begin)
    better = len(seconds) == 2 and seconds[1] < seconds[0]
    setattr(owner, name, value if better else before)
    return better


if __name__ == "__main__":
    main()
