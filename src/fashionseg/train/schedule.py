"""The learning rate by step, counted in batches from 0."""

import math
from typing import Any

import keras
from keras import KerasTensor, ops

from fashionseg.train.config import Train

DROP = 0.1  # of the learning rate after each of train.drops


def schedule(settings: Train, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """That of a training of so many steps; train.warmup_steps are of the optimizer, `accumulate` batches each."""
    peak, warmup = settings.learning_rate, settings.warmup_steps * settings.accumulate
    if settings.schedule == "cosine":
        return WarmupAndCosine(peak, warmup, steps)
    return WarmupAndDrops(peak, warmup, [round(share * steps) for share in settings.drops])


@keras.saving.register_keras_serializable("fashionseg")
class WarmupAndDrops(keras.optimizers.schedules.LearningRateSchedule):
    """`peak` after a linear warm-up, a tenth of it from each of `drop_steps` on."""

    def __init__(self, peak: float, warmup_steps: int, drop_steps: list[int]):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.drop_steps = drop_steps

    def __call__(self, step: KerasTensor) -> KerasTensor:
        step = ops.cast(step, "float32")
        rate = self.peak * _warmup(step, self.warmup_steps)
        for drop in self.drop_steps:
            rate = ops.where(step >= drop, rate * DROP, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "drop_steps": self.drop_steps}


@keras.saving.register_keras_serializable("fashionseg")
class WarmupAndCosine(keras.optimizers.schedules.LearningRateSchedule):
    """`peak` after a linear warm-up, from there half a cosine down to 0 at `steps` (Loshchilov and Hutter 2017)."""

    def __init__(self, peak: float, warmup_steps: int, steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps

    def __call__(self, step: KerasTensor) -> KerasTensor:
        step = ops.cast(step, "float32")
        share = ops.clip((step - self.warmup_steps) / max(1, self.steps - self.warmup_steps), 0.0, 1.0)
        return self.peak * _warmup(step, self.warmup_steps) * 0.5 * (1.0 + ops.cos(math.pi * share))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}


def _warmup(step: KerasTensor, warmup_steps: int) -> KerasTensor:
    """Linear from 1 / warmup_steps in the first step to 1 in step `warmup_steps - 1`, and after it."""
    return ops.minimum((step + 1.0) / max(1, warmup_steps), 1.0)
