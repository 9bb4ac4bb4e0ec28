"""The learning rate by step."""

from typing import Any

import keras
from keras import KerasTensor, ops

from fashionseg.train.config import Train

DROP = 0.1  # of the learning rate after each of train.drops


def schedule(settings: Train, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """That of a training of so many steps."""
    drops = [round(share * steps) for share in settings.drops]
    return WarmupAndDrops(settings.learning_rate, settings.warmup_steps, drops)


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
