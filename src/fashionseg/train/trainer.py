"""Trains Mask R-CNN; a killed training goes on where it was, as if nothing had happened."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
from keras import KerasTensor, ops

from fashionseg.console.device import describe
from fashionseg.console.progress import Progress
from fashionseg.core import documents, files, paths
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Batches
from fashionseg.data.samples import LEAST_AREA
from fashionseg.model import backbones, pretrained
from fashionseg.model.config import Model, Network
from fashionseg.model.device import accelerated
from fashionseg.model.mask_rcnn import JIT, MaskRCNN
from fashionseg.train.callbacks import Checkpoint, LiveLog, StopOnNaN, checkpoints_in, restore
from fashionseg.train.config import Train

MOMENTUM = 0.9
DROP = 0.1  # of the learning rate after each of train.drops
LARGE_SIDE = 800  # pixels; from here on a step on a CPU takes half a minute
CLIPNORM = 35.0  # of all gradients together, mmdetection's for Mask R-CNN; a safety that sound batches do not reach
CODE = ("core", "data", "model", "train")  # packages that a training hangs on: those of its deps in dvc.yaml
FILES = ("weights", "backbone")  # of the params `model`: may name a file, or a folder
MADE_BY = "made_by.json"  # beside the checkpoints: what they came from


def train(
    config: SimpleNamespace,
    train_document: str | Path,
    val_document: str | Path,
    images: str | Path,
    models: str | Path,
    results: str | Path,
    checkpoints: str | Path,
) -> None:
    """Writes `models`/mask_rcnn.weights.h5 and .json and DVCLive's history under `results`.

    config holds the params seed, images, model, augment, train and machine; documents are COCO, `images` the folder
    that their file_name counts from. `checkpoints`/<fingerprint> holds the state after each epoch until the training is
    done; other params, data, code, backend or files of weights have another fingerprint and so begin afresh, unless
    train.resume names the folder to go on from. Raises UserError while another training uses `checkpoints`, where there
    are no attributes to learn or is nothing to resume, and where a loss is NaN.
    """
    print(describe(config.model.precision))
    if config.images.side >= LARGE_SIDE and not accelerated() and not config.machine.allow_cpu:
        raise UserError(
            f"images.side is {config.images.side} and there is no GPU here, where a training would take weeks; "
            "`make preset NAME=demo` has a size for CPUs, machine.allow_cpu=true goes on all the same."
        )
    shared = {
        "images": images,
        "side": config.images.side,
        "batch_size": config.train.batch_size,
        "instances": config.train.instances,
        "attributes": config.model.attributes != "none",
        "seed": config.seed,
        "workers": config.machine.workers,
    }
    document = documents.read(train_document)
    labels = {name: document.get(name, []) for name in ("categories", "attributes")}
    if shared["attributes"] and not labels["attributes"]:
        raise UserError(
            f"model.attributes is {config.model.attributes}, but {train_document} has no attributes; set it to none."
        )
    batches = Batches(
        train_document,
        augmentation=config.augment,
        shuffle=True,
        repeat_threshold=config.train.repeat_threshold,
        **shared,
    )
    validation = Batches(val_document, **shared)
    network = Network(
        **vars(config.model) | {name: str(path) for name in FILES if (path := _named(config.model, name))},
        side=config.images.side,
        classes=len(labels["categories"]),
        attribute_count=len(labels["attributes"]),
        rois=config.train.rois,
        seed=config.seed,
    )
    if batches.tiny:
        print(f"{batches.tiny} instances have less than {LEAST_AREA} pixels at this images.side: left out")
    if batches.dropped:
        print(f"{batches.dropped} instances are beyond train.instances = {config.train.instances} an image: left out")
    made_by = _made_by(config, train_document, val_document)
    folder = Path(checkpoints) / _fingerprint(made_by)
    with files.locked(Path(checkpoints) / "lock"):
        _mention_others(folder, made_by)
        if config.train.resume and not checkpoints_in(folder):
            _adopt(paths.of_user(config.train.resume), folder, made_by)
        files.write_json(folder / MADE_BY, made_by, indent=1)
        keras.utils.set_random_seed(config.seed)
        model = _start(network)
        model.use_shapes(batches.shapes)
        fit(model, batches, validation, config.train, folder, Path(results))
        _save(model, {"network": asdict(_rebuilding(network, model)), **labels}, folder, models)
        files.remove(folder)


def _start(network: Network) -> keras.Model:
    """The network before its first step; `weights` may be a file of a whole network or of a backbone, of which what
    begins with a name of `weights_unused` may be left over."""
    if network.weights in backbones.WEIGHTS:
        return MaskRCNN(network)
    model = MaskRCNN(replace(network, weights="random"))
    print(pretrained.load(model, network.weights, network.weights_unused))
    return model


def _rebuilding(network: Network, model: keras.Model) -> Network:
    """The config that rebuilds the network for its weights, without the files it started from."""
    own = network.backbone in backbones.OWN
    return replace(network, weights="random", backbone=network.backbone if own else model.backbone.description)


def fit(
    model: keras.Model,
    batches: Batches,
    validation: Batches,
    settings: Train,
    folder: Path,
    results: Path,
) -> None:
    """Trains until settings.epochs are done, from the checkpoint in `folder` on if there is one."""
    steps = settings.epochs * len(batches)
    schedule = WarmupAndDrops(
        settings.learning_rate, settings.warmup_steps, [round(share * steps) for share in settings.drops]
    )
    model.compile(optimizer=optimizer(model, settings.optimizer, schedule, settings.weight_decay), jit_compile=JIT)
    model.optimizer.build(model.trainable_variables)  # may be another: in float16 Keras wraps it to scale the loss
    done = restore(model, folder, results)
    if done:
        print(f"resuming after epoch {done} of {settings.epochs} from {folder}")
    if done >= settings.epochs:
        return
    progress = Progress(settings.batch_size, len(validation))
    with progress.bar:
        model.fit(
            batches,
            validation_data=validation,
            initial_epoch=done,
            epochs=settings.epochs,
            shuffle=False,  # Keras' order would follow from no seed of ours; the batches have their own
            verbose=0,
            callbacks=[
                batches.follow(),
                StopOnNaN(batches.names_of, validation.names_of),
                LiveLog(results, len(batches) * batches.batch_size, schedule),
                Checkpoint(folder, results),
                progress,
            ],
        )


class WarmupAndDrops(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by step, from 0: `peak` after a linear warm-up, a tenth of it from each of `drop_steps` on."""

    def __init__(self, peak: float, warmup_steps: int, drop_steps: list[int]):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.drop_steps = drop_steps

    def __call__(self, step: KerasTensor) -> KerasTensor:
        step = ops.cast(step, "float32")
        # 1. Linear from peak / warmup_steps in the first step to peak in step `warmup_steps`.
        rate = self.peak * ops.minimum((step + 1.0) / max(1, self.warmup_steps), 1.0)
        # 2. A tenth of it for each drop that has been reached.
        for drop in self.drop_steps:
            rate = ops.where(step >= drop, rate * DROP, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "drop_steps": self.drop_steps}


def optimizer(
    model: keras.Model, name: str, schedule: keras.optimizers.schedules.LearningRateSchedule, weight_decay: float
) -> keras.optimizers.Optimizer:
    """SGD with momentum (`sgd`) or AdamW (`adamw`), to be built for the model; weight_decay spares biases and norms.

    weight_decay is torch's of the same optimizer. For SGD torch adds weight_decay * weight to the gradient, where
    momentum repeats it 1 / (1 - MOMENTUM) times in all. Keras takes lr * weight_decay * weight off the weight once, so
    its number is that many times larger. AdamW is defined that way (Loshchilov and Hutter 2019), here and in torch.
    """
    if name == "sgd":
        chosen = keras.optimizers.SGD(
            schedule, momentum=MOMENTUM, weight_decay=weight_decay / (1 - MOMENTUM), global_clipnorm=CLIPNORM
        )
    else:
        chosen = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=CLIPNORM)
    chosen.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) == 1])
    return chosen


def _made_by(config: SimpleNamespace, *inputs: str | Path) -> dict[str, dict[str, Any]]:
    """All that a training's result hangs on: the values of params and the backend, and digests of files, which are the
    documents, the code and what params name."""
    sections = {name: asdict(getattr(config, name)) for name in ("images", "model", "augment", "train")}
    del sections["train"]["resume"]
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    root = Path(__file__).parents[1]
    code = {str(file.relative_to(root)): [file] for name in CODE for file in sorted((root / name).rglob("*.py"))}
    named = {path: sorted(path.rglob("*")) or [path] for name in FILES for path in [_named(config.model, name)] if path}
    contents = {**{document: [Path(document)] for document in inputs}, **code, **named}
    return {
        "values": {"seed": config.seed, "backend": keras.backend.backend(), **values},
        "files": {str(name): _digest(found) for name, found in contents.items()},
    }


def _named(model: Model, name: str) -> Path | None:
    """The file or folder that a param of FILES names, if it does."""
    path = paths.of_user(getattr(model, name))
    return path if path.exists() else None


def _digest(found: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in found:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _fingerprint(made_by: dict[str, dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]


def _mention_others(folder: Path, made_by: dict[str, dict[str, Any]]) -> None:
    """Says what other trainings, of which some may yet go on, keep beside this one's folder, and how they differ."""
    others = [path for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder]
    if others:
        size = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file())
        print(f"unfinished trainings keep {size / 1e9:.2f} GB; delete them, or go on from one with train.resume:")
    for path in others:
        print(f"  {path}, differs in {_changed(path, made_by)}")


def _changed(folder: Path, made_by: dict[str, dict[str, Any]]) -> str:
    """What a training's folder was made by and `made_by` do not have in common."""
    if not (folder / MADE_BY).exists():
        return "what is not known"
    before = files.read_json(folder / MADE_BY)
    old, new = before["values"], made_by["values"]
    found = [f"{name} ({old.get(name)}, now {new.get(name)})" for name in new if old.get(name) != new[name]]
    return ", ".join(found + sorted({name for name, _ in before["files"].items() ^ made_by["files"].items()}))


def _adopt(source: Path, folder: Path, made_by: dict[str, dict[str, Any]]) -> None:
    """Makes the newest checkpoint of another training this one's."""
    if not (found := checkpoints_in(source)):
        raise UserError(f"train.resume is {source}, which holds no checkpoint; name a folder of checkpoints/, or null.")
    print(f"going on from {found[-1]}, which differs in {_changed(source, made_by)}")
    with files.replacing(folder / found[-1].name) as beside:
        shutil.copytree(found[-1], beside)


def _save(model: keras.Model, description: dict[str, Any], folder: Path, models: str | Path) -> None:
    """Weights without the optimizer, and what rebuilds the model and names its classes."""
    model.optimizer = None
    weights = folder / "mask_rcnn.weights.h5"  # Keras insists on the ending; the checkpoints are cleared away anyway
    model.save_weights(weights)
    with files.replacing(Path(models) / weights.name) as beside:
        shutil.move(weights, beside)
    files.write_json(Path(models) / "mask_rcnn.json", description, indent=1)
