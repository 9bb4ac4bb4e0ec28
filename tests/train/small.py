"""A model of two dense layers that speaks as MaskRCNN does, its batches, and trainings of it by `fit` and `train`."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from fashionseg import params
from fashionseg.convert.config import Images
from fashionseg.core import files
from fashionseg.data.config import Augment
from fashionseg.model.config import Model
from fashionseg.train import loop, trainer
from fashionseg.train.config import Train

CATEGORIES = [{"id": 0, "name": "shirt"}, {"id": 7, "name": "shoe"}]

LOSSES = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")


class Tiny(keras.Model):
    """As MaskRCNN: a batch in, a dict of scalar losses out, random numbers in between."""

    square = False

    def __init__(self, side=8, seed=1, width=4, noise=1.0, precision="float32", **kwargs):
        super().__init__(dtype=precision, autocast=False)
        self.backbone = keras.layers.Dense(width, kernel_initializer=keras.initializers.GlorotUniform(seed))
        self.backbone.build((None, side * 3))
        self.head = keras.layers.Dense(width, kernel_initializer=keras.initializers.GlorotUniform(seed + 1))
        self.head.build((None, width))
        self.noise = noise
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = [keras.metrics.Mean(name) for name in LOSSES]
        self.built = True

    def call(self, batch):
        features = ops.mean(batch["images"], axis=1) / 255
        found = self.head(self.backbone(ops.reshape(features, (-1, self.backbone.kernel.shape[0]))))
        noise = self.noise * keras.random.uniform(ops.shape(found), seed=self.seed_generator)
        losses = ops.mean((found - noise) ** 2) + batch["shift"][0]
        return {name: losses * weight for weight, name in enumerate(LOSSES, 1)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        for tracker in self.trackers:
            tracker.update_state(y_pred[tracker.name])
        return sum(y_pred.values())


class TinyBatches(keras.utils.PyDataset):
    """As data.batches.Batches, of noise that follows from seed and epoch, the third in another shape; `shift` is added
    to every loss of a step."""

    batch_size = 2
    names = ("shirt", "shoe")
    dropped = tiny = 0

    def __init__(self, steps=4, seed=0, side=8, shift=None, **kwargs):
        super().__init__()
        self.records = [{"id": number} for number in range(2 * steps)]
        self.steps = steps
        self.seed = seed
        self.side = side
        self.shift = shift or {}
        self.epoch = 0

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        random = np.random.default_rng([self.seed, self.epoch, index])
        height = self.side // 2 if index == 2 else self.side
        return {
            "images": random.uniform(0, 255, (2, height, self.side, 3)).astype("float32"),
            "sizes": np.full((2, 2), self.side, np.int32),
            "boxes": np.tile(np.array([1, 1, self.side - 1, self.side - 2], np.float32), (2, 1, 1)),
            "classes": np.ones((2, 1), np.int32),
            "masks": np.ones((2, 1, 56, 56), np.uint8),
            "shift": np.full(2, self.shift.get((self.epoch, index), 0.0), np.float32),
        }

    def names_of(self, index):
        return [f"batch {index}"]


def settings(**changes):
    """The section `train`, small."""
    values = {
        "epochs": 3,
        "batch_size": 2,
        "rois": 8,
        "instances": 1,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "warmup_steps": 3,
        "schedule": "steps",
        "drops": [0.667],
        "accumulate": 1,
        "ema": 0.0,
        "backbone_rate": 1.0,
        "heads_only": 0.0,
        "loss_weights": {},
        "weight_decay": 1e-3,
        "repeat_threshold": 0.0,
        "validate_epochs": 1,
        "validate_images": 10,
        "patience": 0,
        "log_steps": 3,
        "resume": None,
    }
    return Train(**values | changes)


class Scorer:
    """As AveragePrecision, but what it gives follows from the model's weights, or is given for each call in turn."""

    def __init__(self, model, *_, given=(), **__):
        self.model = model
        self.given = list(given)

    def __call__(self, after_batch):
        after_batch(1, 1)
        size = float(ops.mean(ops.abs(self.model.trainable_variables[0])))
        return {"AP": self.given.pop(0) if self.given else size / (1 + size), "AP50": None}


def fit(folder, model=None, shift=None, validation=None, checkpoint_steps=1000, given=(), tracker=None, **changes):
    """`loop.fit` in a folder; returns the model."""
    model = model or Tiny()
    validation = validation or TinyBatches(steps=2, seed=5)
    loop.fit(
        model,
        TinyBatches(shift=shift),
        validation,
        Scorer(model, given=given),
        settings(**changes),
        checkpoint_steps=checkpoint_steps,
        folder=Path(folder, "checkpoints"),
        results=Path(folder, "results"),
        tracker=tracker,
    )
    return model


def rows(results, name):
    """A table of the history."""
    return pd.read_csv(results / "plots" / "metrics" / f"{name}.tsv", sep="\t")


def values(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def config(seed=3, workers=0, backend="jax", precision="float32", attributes="none", checkpoint_steps=2, **train):
    return SimpleNamespace(
        seed=seed,
        machine=params.Machine(workers, None, backend, False, checkpoint_steps, None),
        images=Images(64),
        model=Model(
            backbone="resnet50",
            weights="imagenet",
            weights_unused=[],
            fpn_channels=8,
            frozen_stages=0,
            frozen_norm=True,
            anchor_side=16,
            proposals=8,
            detections=8,
            attributes=attributes,
            precision=precision,
            heads="v1",
            class_agnostic_boxes=False,
            class_agnostic_masks=False,
            box_stages=1,
            anchor_ratios=[1.0],
        ),
        augment=Augment([{"Fliplr": 0.5}], [1.0, 1.0], 0.0),
        train=settings(**train),
    )


def train(folder, settings=None, model=Tiny, batches=TinyBatches, documents=("train.json", "val.json"), given=()):
    """`trainer.train` in a folder, on stand-ins for model and data. given: AP of the validations."""
    for name in documents:
        if not (folder / name).exists():
            files.write_json(folder / name, {"images": [], "annotations": [], "categories": CATEGORIES})

    def build(network):
        built = model(**vars(network))
        built.config = network
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "MaskRCNN", build)
        patch.setattr(trainer, "AveragePrecision", partial(Scorer, given=given))
        patch.setattr(trainer, "Batches", lambda document, images, **kwargs: batches(document=document, **kwargs))
        patch.chdir(folder)  # DVCLive looks around there
        trainer.train(
            settings or config(),
            *documents,
            "images",
            raw="raw",
            models="models",
            results="results",
            checkpoints="checkpoints",
        )


def history(folder):
    """All logged values but the times, by name and step."""
    tables = {f"{path.parent.name}/{path.stem}": path for path in sorted((folder / "results").rglob("*.tsv"))}
    same = {name: path for name, path in tables.items() if path.stem not in ("seconds", "images_per_second")}
    return pd.concat({name: pd.read_csv(path, sep="\t", index_col="step").iloc[:, 0] for name, path in same.items()})


def weights(folder):
    model = Tiny(side=64)
    model.load_weights(folder / "models" / "mask_rcnn.weights.h5")
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def assert_alike(folder, other):
    """The same history and weights."""
    pd.testing.assert_series_equal(history(folder), history(other), rtol=1e-6, check_exact=False)
    for got, expected in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
