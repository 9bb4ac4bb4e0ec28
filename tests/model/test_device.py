"""Several devices that share a batch, JAX alone, on the two that tests/conftest.py makes of a CPU; the order of sums on
TensorFlow."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tiny

from fashionseg.core.errors import UserError
from fashionseg.model.compilation import compile_steps
from fashionseg.model.device import data_parallel

two_devices = pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow trains on one device")


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (2, 2), (3, 1), (8, 2)])
@two_devices
def test_the_number_of_devices_divides_the_batch(batch_size, count):
    parallel = data_parallel(batch_size)
    assert (parallel.num_model_replicas if parallel else 1) == count


@two_devices
def test_processes_have_as_many_devices_and_share_a_batch_evenly(monkeypatch):
    """Of three and two devices of two processes; tests/train/test_hosts.py trains with two processes."""
    import jax

    places = [0, 0, 1, 1, 0]
    devices = [SimpleNamespace(platform="gpu", id=number, process_index=place) for number, place in enumerate(places)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(keras.distribution, "DataParallel", lambda devices, auto_shard_dataset: devices)
    assert data_parallel(4) == data_parallel(12) == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert data_parallel(6) == ["gpu:0", "gpu:2"]
    with pytest.raises(UserError, match=r"train\.batch_size is 3, which 2 processes cannot share evenly; make it a"):
        data_parallel(3)


@two_devices
def test_losses_on_two_devices_are_those_on_one(monkeypatch):
    """Sampling and means are over the whole batch; that gradients are, too, tests/train/test_checkpoint.py shows."""
    tiny.shrink(monkeypatch)

    def losses():
        network = tiny.network()
        network.compile(jit_compile=True)
        return network, network.test_on_batch(tiny.make_batch(), return_dict=True)

    network, alone = losses()
    with data_parallel(2).scope():
        shared, together = losses()
    devices = [len(each.fpn.trainable_variables[0].value.sharding.device_set) for each in (network, shared)]
    assert devices == [1, 2]
    assert together == pytest.approx(alone, rel=1e-5)
    assert all(value > 0 for value in alone.values())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX adds in the order of its program")
def test_gradients_are_added_in_an_order_that_no_thread_changes():
    """Those of a tensor that is used five times, two by two: a sum of more may begin with any of its terms."""
    from tensorflow.python.eager import context

    image = keras.Input((4,))
    features = keras.layers.Dense(8)(image)
    outputs = keras.layers.Concatenate()([keras.layers.Dense(3)(features) for _ in range(5)])
    model = keras.Model(image, outputs)
    compile_steps(model, optimizer=keras.optimizers.SGD(0.1), loss="mse")
    context.enable_run_metadata()
    try:
        model.train_on_batch(np.ones((2, 4)), np.ones((2, 15)))
        graphs = [run.post_optimization_graph for run in context.export_run_metadata().function_graphs]
    finally:
        context.disable_run_metadata()
    parts = [nodes for graph in graphs for nodes in [graph.node, *(f.node_def for f in graph.library.function)]]
    nodes = [node for part in parts for node in part]
    sums = [sum(not name.startswith("^") for name in node.input) for node in nodes if node.op == "AddN"]
    assert sums == [2, 2, 2, 2]
