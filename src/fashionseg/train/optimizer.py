"""What turns gradients into steps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from fashionseg.train.config import Train

MOMENTUM = 0.9
CLIPNORM = 35.0  # of all gradients together, mmdetection's for Mask R-CNN; a safety that sound batches do not reach


class BackboneRateAndEma:
    """Adds to one of Keras' optimizers: a learning rate of the backbone's own, a time at which it is frozen, and an
    exponential moving average (EMA) of the variables that are trained.

    backbone: paths of its variables. Their learning rate is `backbone_rate` times that of the others, 0 in the first
    `heads_only_updates` updates; their weight decay follows it, as in torch's groups of parameters. ema: decay of the
    average by update, 0 = none. It begins with the weights of the first update.

    Keras' own use_ema averages after each batch, though with gradient accumulation not every batch brings an update,
    and puts the average into the weights at the end of each `fit`, in the midst of a training here.
    """

    def __init__(
        self,
        *args: Any,
        backbone: Sequence[str] = (),
        backbone_rate: float = 1.0,
        heads_only_updates: int = 0,
        ema: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.backbone = list(backbone)
        self.backbone_rate = backbone_rate
        self.heads_only_updates = heads_only_updates
        self.ema = ema

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        paths = set(self.backbone)
        self.backbone_places = {place for place, variable in enumerate(variables) if variable.path in paths}
        self.averages = self.add_optimizer_variables(variables, "average") if self.ema else []

    def apply(self, grads: Sequence[KerasTensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        before = ops.cast(self.iterations, "int32")
        super().apply(grads, trainable_variables)
        if self.ema:
            updated = ops.cast(self.iterations, "int32") > before
            kept = ops.where(before == 0, 0.0, ops.where(updated, self.ema, 1.0))
            for average, variable in zip(self.averages, self._trainable_variables, strict=True):
                average.assign(average * kept + variable * (1.0 - kept))

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        super().update_step(gradient, variable, learning_rate * self._factor(variable))

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        # In the place of Keras', which knows one learning rate.
        if not self.weight_decay:
            return
        decay = self.learning_rate * self.weight_decay
        for variable in filter(self._use_weight_decay, variables):
            variable.assign(variable * ops.cast(1 - decay * self._factor(variable), variable.dtype))

    def _factor(self, variable: keras.Variable) -> KerasTensor | float:
        if self._get_variable_index(variable) not in self.backbone_places:
            return 1.0
        moves = self.iterations >= self.heads_only_updates
        return ops.where(moves, self.backbone_rate, 0.0)

    def get_config(self) -> dict[str, Any]:
        own = ("backbone", "backbone_rate", "heads_only_updates", "ema")
        return super().get_config() | {name: getattr(self, name) for name in own}


@keras.saving.register_keras_serializable("fashionseg")
class SGD(BackboneRateAndEma, keras.optimizers.SGD):
    pass


class _AdamWInOnePass(keras.optimizers.AdamW):
    """On TensorFlow its own kernel, of the same formula, goes over the memory of a variable once, Keras' operations a
    dozen times."""

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        place = self._get_variable_index(variable)
        momentum, velocity = (of_all[place].value for of_all in (self._momentums, self._velocities))
        updates = ops.cast(self.iterations + 1, "float32")
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=self.beta_1**updates,
            beta2_power=self.beta_2**updates,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


@keras.saving.register_keras_serializable("fashionseg")
class AdamW(BackboneRateAndEma, _AdamWInOnePass):
    pass


def optimizer(
    model: keras.Model, settings: Train, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int
) -> keras.optimizers.Optimizer:
    """That of params, to be built for the model and a training of so many steps (batches); weight decay spares biases
    and norms.

    weight_decay is torch's of the same optimizer. For SGD torch adds weight_decay * weight to the gradient, where
    momentum repeats it 1 / (1 - MOMENTUM) times in all. Keras takes lr * weight_decay * weight off the weight once, so
    its number is that many times larger. AdamW is defined that way (Loshchilov and Hutter 2019), here and in torch.
    """
    special = settings.backbone_rate != 1 or settings.heads_only
    shared = {
        "global_clipnorm": CLIPNORM,
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
        "backbone": [variable.path for variable in model.backbone.trainable_variables] if special else [],
        "backbone_rate": settings.backbone_rate,
        "heads_only_updates": round(settings.heads_only * steps / settings.accumulate),
        "ema": settings.ema,
    }
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        chosen = SGD(schedule, momentum=MOMENTUM, weight_decay=decay / (1 - MOMENTUM), **shared)
    else:
        chosen = AdamW(schedule, weight_decay=decay, **shared)
    chosen.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) == 1])
    return chosen


def unwrapped(model: keras.Model) -> BackboneRateAndEma:
    """The model's optimizer; in float16 Keras wraps it to scale the loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def assign_average(model: keras.Model) -> None:
    """Gives the model the weights of the moving average, if its optimizer keeps one."""
    if unwrapped(model).ema:
        for variable, average in zip(model.trainable_variables, unwrapped(model).averages, strict=True):
            variable.assign(np.array(ops.convert_to_numpy(average)))  # a copy: JAX frees buffers that are handed over


@contextmanager
def validating(model: keras.Model) -> Iterator[None]:
    """Within it the model has the weights of the moving average, if its optimizer keeps one. After it they are its own
    again, and random numbers go on as if none had been drawn: how often is validated changes no step."""
    weights = {id(variable) for variable in model.weights}
    changed = [variable for variable in model.variables if id(variable) not in weights]  # states of random numbers
    if unwrapped(model).ema:
        changed += model.trainable_variables
    own = [np.array(ops.convert_to_numpy(variable)) for variable in changed]
    assign_average(model)
    try:
        yield
    finally:
        for variable, value in zip(changed, own, strict=True):
            variable.assign(value)
