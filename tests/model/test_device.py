"""Several devices that share a batch: JAX alone, on the two that tests/conftest.py makes of a CPU."""

import keras
import numpy as np
import pytest
import tiny
from keras import optimizers

from fashionseg.model.device import data_parallel

two_devices = pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow trains on one device")


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (2, 2), (3, 1), (8, 2)])
@two_devices
def test_as_many_devices_as_divide_a_batch(batch_size, count):
    parallel = data_parallel(batch_size)
    assert (parallel.num_model_replicas if parallel else 1) == count


@two_devices
def test_two_devices_take_the_step_of_one(monkeypatch):
    tiny.shrink(monkeypatch)
    batch = tiny.make_batch()

    def trained():
        network = tiny.network()
        network.compile(optimizers.SGD(0.01), jit_compile=True)
        losses = network.train_on_batch(batch, return_dict=True)
        return network, losses, network.get_weights()

    network, losses, weights = trained()
    with data_parallel(2).scope():
        shared, shared_losses, shared_weights = trained()
    assert len(network.fpn.trainable_variables[0].value.sharding.device_set) == 1
    assert len(shared.fpn.trainable_variables[0].value.sharding.device_set) == 2
    assert shared_losses == pytest.approx(losses, rel=1e-5)
    for variable, own, other in zip(network.weights, weights, shared_weights, strict=True):
        np.testing.assert_allclose(other, own, rtol=1e-4, atol=1e-6, err_msg=variable.path)
