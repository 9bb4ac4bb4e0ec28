"""A model of two dense layers that speaks as MaskRCNN does, and its batches: what the tests of the training train."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops

from fashionseg.train import loop
from fashionseg.train.config import Train

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
