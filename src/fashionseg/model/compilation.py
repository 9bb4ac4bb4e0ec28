"""How functions and steps of the network are compiled on each backend; what is TensorFlow's own."""

from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor

from fashionseg.core import paths
from fashionseg.model import device

KEPT = 2**31  # bytes of compiled graphs at most; those that were used last stay


def compiles() -> bool:
    """Whether `compiled` makes a difference: on TensorFlow where there is no GPU, for which XLA's compiler may be
    missing. On JAX all of the graph is one computation of XLA."""
    return keras.backend.backend() == "tensorflow" and not device.accelerated()


def fuses() -> bool:
    """Whether XLA makes gathering and summing, or weighting and adding up, one kernel that holds no row in memory."""
    return device.accelerated() and keras.backend.backend() == "jax"


def compiled(function: Callable[..., KerasTensor]) -> Callable[..., KerasTensor]:
    """The function as one computation of XLA in TensorFlow's graph, which else runs it operation by operation."""
    if not compiles():
        return function
    import tensorflow as tf

    whole = tf.function(function, jit_compile=True, autograph=False)
    return lambda *tensors: whole(*map(tf.identity, tensors))


def rematerialized(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for use within a branch: its gradient computes it again. Else a branch that is not taken writes
    zeros in place of what the gradient needs. On JAX alone: in TensorFlow's branches `recompute_grad` fails."""
    return keras.remat(function) if keras.backend.backend() == "jax" else function


def depthwise_kernel_gradient(inputs: KerasTensor, upstream: KerasTensor, side: int, stride: int) -> KerasTensor:
    """TensorFlow's operation, which Keras does not have by itself: the gradient (side, side, C, 1) of the kernel of a
    depthwise convolution of inputs (B, H, W, C) without padding; upstream, that of its output."""
    import tensorflow as tf

    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs,
        filter_sizes=(side, side, inputs.shape[-1], 1),
        out_backprop=upstream,
        strides=(1, stride, stride, 1),
        padding="VALID",
    )


def compile_steps(model: keras.Model, **options: Any) -> None:
    """`model.compile` with `options`, so that each step is compiled once for every shape of its batch, with these
    lengths in the graph.

    JAX does so. Keras on TensorFlow makes one graph for all shapes, in which height and width are unknown. There the
    steps run without XLA, which is no faster on CPUs and takes longer to start.
    """
    if keras.backend.backend() != "tensorflow":
        if device.accelerated():
            _keep_compiled()
        model.compile(**options, jit_compile=True)
        return
    import tensorflow as tf

    if "optimizer" in options:  # else what `_train_step` adds in pairs becomes one sum again
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    model.compile(**options, jit_compile=False, run_eagerly=True)  # of the function around a step, which does nothing
    steps = {"train_step": _train_step(model), "test_step": model.test_step, "predict_step": model.predict_step}
    for name, step in steps.items():
        setattr(model, name, tf.function(step, autograph=False))


def _keep_compiled() -> None:
    """XLA takes minutes for the graphs of a large network on a GPU, and each `predict` of a run, each experiment and a
    training that goes on have the same ones: JAX keeps them in .cache/jax. Not on a CPU, where they might be another
    one's, with instructions that this one lacks."""
    import jax

    if not jax.config.jax_compilation_cache_dir:  # JAX_COMPILATION_CACHE_DIR in the shell names another place
        jax.config.update("jax_compilation_cache_dir", str(paths.project().resolve() / ".cache" / "jax"))
        jax.config.update("jax_compilation_cache_max_size", KEPT)


def _train_step(model: keras.Model) -> Callable[[Any], dict[str, KerasTensor]]:
    """Keras' `train_step` on TensorFlow, but the same in every run: the gradients of a tensor that is used three times
    and more are added two by two. TensorFlow's sum of more begins with whichever term is not needed elsewhere at that
    moment, so that its last bits follow from the timing of threads."""
    import tensorflow as tf

    def step(data: Any) -> dict[str, KerasTensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = model(x, training=True)
        loss = model.compute_loss(x, y, outputs, sample_weight)
        total = next(metric for metric in model.metrics if metric.name == "loss")
        total.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        variables = model.trainable_variables
        gradients = tf.gradients(
            model.optimizer.scale_loss(loss),
            [variable.value for variable in variables],
            aggregation_method=tf.AggregationMethod.EXPERIMENTAL_TREE,
        )
        model.optimizer.apply(gradients, variables)
        return model.compute_metrics(x, y, outputs, sample_weight)

    return step
