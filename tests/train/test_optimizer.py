"""What turns gradients into steps."""

import keras
import numpy as np
from keras import ops

from fashionseg.train.optimizer import optimizer
from fashionseg.train.schedule import WarmupAndDrops


def test_weight_decay_means_what_it_means_to_torch():
    """torch.optim.SGD(momentum=0.9, weight_decay): the gradient grows by weight_decay * weight before the momentum."""
    rate, decay = 0.02, 0.05
    random = np.random.default_rng(0)
    layer = keras.layers.Dense(5, bias_initializer="ones")
    layer.build((None, 4))
    sgd = optimizer(layer, "sgd", WarmupAndDrops(rate, 0, []), decay)
    weights, velocities = {0: ops.convert_to_numpy(layer.kernel), decay: ops.convert_to_numpy(layer.kernel)}, {}
    for _ in range(100):
        gradient = random.normal(0, 0.1, layer.kernel.shape).astype("float32")
        sgd.apply([ops.convert_to_tensor(gradient), ops.zeros(5)], [layer.kernel, layer.bias])
        for factor, weight in weights.items():
            velocities[factor] = 0.9 * velocities.get(factor, 0) + gradient + factor * weight
            weights[factor] = weight - rate * velocities[factor]
    effect = np.abs(weights[decay] - weights[0]).max()
    assert effect > 0.3
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), weights[decay], atol=0.05 * effect)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 1)


def test_adamw_decays_weights_by_rate_times_decay():
    """torch.optim.AdamW: weight -= lr * weight_decay * weight, whatever the gradient; here not for biases."""
    layer = keras.layers.Dense(5, bias_initializer="ones")
    layer.build((None, 4))
    start = ops.convert_to_numpy(layer.kernel)
    adamw = optimizer(layer, "adamw", WarmupAndDrops(0.02, 0, []), 0.05)
    for _ in range(3):
        adamw.apply([ops.zeros((4, 5)), ops.zeros(5)], [layer.kernel, layer.bias])
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), start * (1 - 0.02 * 0.05) ** 3, rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 1)
