"""What turns gradients into steps."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops
from small import Tiny, TinyBatches, settings, values

from fashionseg.train.loop import fed
from fashionseg.train.optimizer import AdamW, optimizer
from fashionseg.train.schedule import WarmupAndDrops

RATE, DECAY = 0.02, 0.05
START = np.random.default_rng(7).normal(size=(4, 5)).astype("float32")


def constant(rate=RATE):
    return WarmupAndDrops(rate, 0, [])


def layers():
    """A model of a backbone and a head of the same weights."""
    backbone, head = (keras.layers.Dense(5, bias_initializer="ones") for _ in range(2))
    for layer in (backbone, head):
        layer.build((None, 4))
        layer.kernel.assign(START)
    return SimpleNamespace(
        backbone=backbone, head=head, trainable_variables=[*backbone.trainable_variables, *head.trainable_variables]
    )


def stepped(model, gradients, schedule=None, steps=100, **changes):
    """The kernels of backbone and head after each of the gradients, which both get; biases get none of their own."""
    chosen = optimizer(model, settings(**changes), schedule or constant(), steps)
    kernels = []
    for gradient in gradients:
        pair = [ops.convert_to_tensor(gradient), ops.zeros(5)]
        chosen.apply([*pair, *pair], model.trainable_variables)
        kernels.append(values([model.backbone.kernel, model.head.kernel]))
    return np.array(kernels), chosen


def gradients(count, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (count, 4, 5)).astype("float32")


def test_weight_decay_means_what_it_means_to_torch():
    """torch.optim.SGD(momentum=0.9, weight_decay): the gradient grows by weight_decay * weight before the momentum."""
    model, given = layers(), gradients(100)
    found, _ = stepped(model, given, optimizer="sgd", weight_decay=DECAY)
    weights, velocities = {0: START, DECAY: START}, {}
    for gradient in given:
        for factor, weight in weights.items():
            velocities[factor] = 0.9 * velocities.get(factor, 0) + gradient + factor * weight
            weights[factor] = weight - RATE * velocities[factor]
    effect = np.abs(weights[DECAY] - weights[0]).max()
    assert effect > 0.3
    np.testing.assert_allclose(found[-1, 1], weights[DECAY], atol=0.05 * effect)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.head.bias), 1)


def test_adamw_decays_weights_by_rate_times_decay():
    """torch.optim.AdamW: weight -= lr * weight_decay * weight, whatever the gradient; here not for biases."""
    model = layers()
    found, _ = stepped(model, np.zeros((3, 4, 5), "float32"), optimizer="adamw", weight_decay=DECAY)
    np.testing.assert_allclose(found[-1, 1], START * (1 - RATE * DECAY) ** 3, rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.head.bias), 1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_backbone_has_a_learning_rate_of_its_own(name):
    """As torch's groups of parameters: each part as if it were trained at its rate, weight decay included."""
    changes = {"optimizer": name, "weight_decay": 1.0}
    given = gradients(6)
    found, _ = stepped(layers(), given, backbone_rate=0.1, **changes)
    plain, _ = stepped(layers(), given, **changes)
    slow, _ = stepped(layers(), given, constant(0.1 * RATE), **changes)
    np.testing.assert_allclose(found[:, 0], slow[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], plain[:, 1], rtol=1e-5)
    assert np.abs(plain[-1] - slow[-1]).max() > 0.05


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_at_first_the_heads_learn_alone(name, accumulate):
    """For 0.3 of 20 batches, weight decay included."""
    changes = {"optimizer": name, "weight_decay": 1.0, "accumulate": accumulate}
    found, _ = stepped(layers(), gradients(8), steps=20, heads_only=0.3, **changes)
    plain, _ = stepped(layers(), gradients(8), steps=20, **changes)
    np.testing.assert_array_equal(found[:6, 0], np.broadcast_to(START, (6, 4, 5)))
    assert (found[7, 0] != START).all()
    np.testing.assert_array_equal(found[:, 1], plain[:, 1])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulated_gradients_are_averaged(name):
    """Two batches of one image are a batch of two: a step by the mean of their gradients."""
    changes = {"optimizer": name, "weight_decay": 0.1}
    given = 200 * gradients(6)  # beyond the norm to which they are clipped together
    found, _ = stepped(layers(), given, accumulate=2, **changes)
    expected, _ = stepped(layers(), given.reshape(3, 2, 4, 5).mean(axis=1), **changes)
    np.testing.assert_allclose(found[1::2], expected, rtol=1e-5)
    np.testing.assert_array_equal(found[::2], np.concatenate([[[START, START]], found[1:-1:2]]))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_of_the_weights_after_each_step(accumulate):
    found, chosen = stepped(layers(), gradients(6), ema=0.8, accumulate=accumulate)
    steps = found[accumulate - 1 :: accumulate]
    average = steps[0]
    for weights in steps[1:]:
        average = 0.8 * average + 0.2 * weights
    got = values([chosen.averages[0], chosen.averages[2]])
    np.testing.assert_allclose(got, average, rtol=1e-5)
    assert np.abs(average - found[-1]).max() > 1e-3
    assert len(chosen.variables) == 1 + 4 * (2 + 1 + (accumulate > 1))  # none of the model's: JAX would free them twice


def test_the_average_is_the_same_within_fit():
    """Compiled, on either backend."""
    model, seen = Tiny(), []
    chosen = optimizer(model, settings(ema=0.8, backbone_rate=0.5), constant(), 8)
    model.compile(chosen, jit_compile=False)
    watch = keras.callbacks.LambdaCallback()
    watch.on_train_batch_end = lambda batch, logs: seen.append(values(watch.model.trainable_variables))
    with fed(TinyBatches()) as data:
        model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[watch])
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * before + 0.2 * now for before, now in zip(average, weights, strict=True)]
    for expected, got in zip(average, values(chosen.averages), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    for own, got in zip(seen[-1], values(model.trainable_variables), strict=True):
        np.testing.assert_array_equal(got, own)  # the end of `fit` leaves the weights alone


def test_gradients_are_clipped_together():
    found, _ = stepped(layers(), 1e4 * gradients(1), optimizer="sgd", weight_decay=0.0)
    assert np.linalg.norm(found[0] - START) == pytest.approx(RATE * 35, rel=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_config_round_trip(name):
    changes = {"optimizer": name, "ema": 0.8, "accumulate": 3, "backbone_rate": 0.1, "heads_only": 0.3}
    chosen = optimizer(layers(), settings(**changes), constant(), 100)
    config = chosen.get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(chosen))
    assert again.get_config() == config
    assert type(again) is type(chosen)
    assert config.items() >= {"ema": 0.8, "backbone_rate": 0.1, "heads_only_updates": 10}.items()
    assert len(config["backbone"]) == 2
    assert AdamW().get_config()["backbone"] == []


def test_adamw_is_that_of_keras():
    """Over a hundred updates, at a rate that changes."""
    model, given = layers(), gradients(100)
    schedule = WarmupAndDrops(RATE, 20, [60])
    found, _ = stepped(model, given, schedule, weight_decay=DECAY)
    variable = keras.Variable(START)
    theirs = keras.optimizers.AdamW(schedule, weight_decay=DECAY)
    expected = []
    for gradient in given:
        theirs.apply([ops.convert_to_tensor(gradient)], [variable])
        expected.append(ops.convert_to_numpy(variable))
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-4, atol=1e-6)
