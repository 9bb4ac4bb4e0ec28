"""What turns gradients into steps."""

import keras

MOMENTUM = 0.9
CLIPNORM = 35.0  # of all gradients together, mmdetection's for Mask R-CNN; a safety that sound batches do not reach


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
