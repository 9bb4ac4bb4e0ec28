"""Trains Mask R-CNN; a killed training goes on where it was, as if nothing had happened."""

import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras

from fashionseg.console.device import describe
from fashionseg.core import documents, files, paths, stage
from fashionseg.core.errors import UserError
from fashionseg.data.batches import Batches
from fashionseg.data.samples import MIN_AREA
from fashionseg.model import backbones
from fashionseg.model.config import Network
from fashionseg.model.device import accelerated, data_parallel
from fashionseg.model.mask_rcnn import MaskRCNN
from fashionseg.model.weights import pretrained, saved
from fashionseg.train import hosts, provenance, tracker
from fashionseg.train.checkpoint import checkpoints_in
from fashionseg.train.loop import fit
from fashionseg.train.validation import AveragePrecision, subset

LARGE_SIDE = 800  # pixels; from here on a step on a CPU takes half a minute


@hosts.together()
def train(
    config: SimpleNamespace,
    train_document: str | Path,
    val_document: str | Path,
    images: str | Path,
    *,
    raw: str | Path,
    models: str | Path,
    results: str | Path,
    checkpoints: str | Path,
) -> None:
    """Writes `models`/mask_rcnn.weights.h5 and .json and DVCLive's history under `results`.

    config holds the params seed, images, model, augment, train and machine; documents are COCO, `images` the folder
    that their file_name counts from, `raw` where `pictures.originals` finds those at full size.
    `checkpoints`/<fingerprint> holds the newest checkpoint until DVC has recorded the outs and another training begins;
    other params, data, code, backend or files of weights have another fingerprint and so begin afresh, unless
    train.resume names the folder to go on from. As one of several processes (`hosts`) it does its share, and only the
    first one writes. Raises UserError while the same training runs elsewhere, where there are no attributes to learn or
    is nothing to resume, where a loss is NaN, and at SIGTERM or Ctrl-C.
    """
    parallel = data_parallel(config.train.batch_size)
    print(describe(config.model.precision, parallel.num_model_replicas if parallel else 1, hosts.count()))
    if config.images.side >= LARGE_SIDE and not accelerated() and not config.machine.allow_cpu:
        raise UserError(
            f"images.side is {config.images.side} and there is no GPU here, where a training would take weeks; "
            "`make preset NAME=demo` has a size for CPUs, machine.allow_cpu=true goes on all the same."
        )
    document = documents.read(train_document)
    truth = subset(documents.read(val_document), config.train.validate_images, config.seed)
    labels = {name: document.get(name, []) for name in ("categories", "attributes")}
    if config.model.attributes != "none" and not labels["attributes"]:
        raise UserError(
            f"model.attributes is {config.model.attributes}, but {train_document} has no attributes; set it to none."
        )
    if paths.of_user(config.model.weights).resolve() in (Path(models).resolve(), (paths.project() / models).resolve()):
        raise UserError(
            f"model.weights is {config.model.weights}, which DVC empties before a training; `dvc checkout train` "
            f"brings it back: copy the folder, as by `cp -r {models} weights/mine`, and name the copy."
        )
    network = _network(config, labels)
    made_by = provenance.made_by(config, images, train_document, val_document)
    folder = Path(checkpoints) / provenance.fingerprint(made_by)
    first = hosts.index() == 0
    with (
        files.locked(folder / provenance.LOCK) if first else nullcontext(),
        parallel.scope() if parallel else nullcontext(),
    ):
        if first:
            provenance.forget_recorded(folder)
            provenance.mention_others(folder, made_by)
            if config.train.resume and not checkpoints_in(folder):
                measured_by = [str(images), str(val_document), "seed", "train.validate_images", "train.validate_epochs"]
                provenance.adopt(paths.of_user(config.train.resume), folder, made_by, measured_by)
            files.write_json(folder / provenance.MADE_BY, made_by, indent=1)
        hosts.agree(folder.name, "params, data or code")
        random.seed(config.seed)  # gives Keras the seeds of layers that have none of their own, as KerasHub's dropout
        names = [[label["name"] for label in of_kind] for of_kind in labels.values()]
        model = _start(network, *names)
        model.loss_weights = config.train.loss_weights
        batches, validation = _batches(config, document, truth, model.square, images=images, raw=raw)
        scorer = AveragePrecision(
            model, truth, images, batch_size=config.train.batch_size, workers=config.machine.workers
        )
        fit(
            model,
            batches,
            validation,
            scorer,
            config.train,
            checkpoint_steps=config.machine.checkpoint_steps,
            folder=folder,
            results=Path(results),
            tracker=tracker.start(config.machine.tracker, folder, made_by["values"]) if first else None,
        )
        if not first:
            return
        saved.save(model, labels, models, beside=folder)
        stage.check()  # before the checkpoint goes, from which the outs can be written again
        provenance.done(folder, Path(models) / paths.WEIGHTS)


def _network(config: SimpleNamespace, labels: dict[str, list]) -> Network:
    files_named = {name: str(path) for name, path in provenance.named_files(config.model).items()}
    return Network(
        **vars(config.model) | files_named,
        side=config.images.side,
        classes=len(labels["categories"]),
        attribute_count=len(labels["attributes"]),
        rois=config.train.rois,
        seed=config.seed,
    )


def _batches(
    config: SimpleNamespace,
    document: dict[str, Any],
    truth: dict[str, Any],
    square: bool,
    *,
    images: str | Path,
    raw: str | Path,
) -> tuple[Batches, Batches]:
    """Those to train on and those to validate with; says what is left out of the first."""
    shared = {
        "images": images,
        "side": config.images.side,
        "batch_size": config.train.batch_size,
        "instances": config.train.instances,
        "attributes": config.model.attributes != "none",
        "seed": config.seed,
        "workers": config.machine.workers,
        "square": square,
        "share": (hosts.index(), hosts.count()),
    }
    drawn = {"augmentation": config.augment, "shuffle": True, "repeat_threshold": config.train.repeat_threshold}
    batches = Batches(document, raw=raw, **drawn, **shared)
    if batches.tiny:
        print(f"{batches.tiny} instances have less than {MIN_AREA} pixels at this images.side: left out")
    if batches.dropped:
        print(f"{batches.dropped} instances are beyond train.instances = {config.train.instances} an image: left out")
    return batches, Batches(truth, **shared)


def _start(network: Network, classes: list[str], attributes: list[str]) -> keras.Model:
    """The network before its first step; `weights` may be a file of a whole network or of a backbone, or a folder of a
    trained one, of which what begins with a name of `weights_unused` may be left over, and whose rows for classes and
    attributes of these names are taken."""
    if network.weights in backbones.WEIGHTS:
        return MaskRCNN(network)
    model = MaskRCNN(replace(network, weights="random"))
    print(pretrained.load(model, network.weights, network.weights_unused, classes, attributes))
    return model
