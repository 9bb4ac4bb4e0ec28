"""What a checkpoint holds, and when an older one goes."""

import keras
import numpy as np
import pytest
from keras import ops
from small import Tiny, TinyBatches, fit, settings, values

from fashionseg.core.errors import UserError
from fashionseg.model.device import data_parallel
from fashionseg.train.checkpoint import Checkpoints, State, checkpoints_in
from fashionseg.train.loop import fed
from fashionseg.train.optimizer import optimizer

SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], [0.02, 0.01, 0.001])


def compiled(**kwargs):
    model = Tiny(**kwargs)
    sgd = keras.optimizers.SGD(SCHEDULE, momentum=0.9)
    sgd.build(model.trainable_variables)
    model.compile(optimizer=sgd, jit_compile=False)
    return model


def test_a_checkpoint_brings_everything_back(tmp_path):
    results, folder = tmp_path / "results", tmp_path / "checkpoint"
    results.mkdir()
    (results / "history").write_text("of two epochs")
    model = compiled()
    with fed(TinyBatches()) as data:
        model.fit(data, epochs=2, shuffle=False, verbose=0)
    state = State(epoch=2, step=3, seconds=1 / 3, logged_step=1, logged_sums={"loss": 0.1})
    Checkpoints(folder, results).save(model, state)
    assert [path.name for path in folder.iterdir()] == ["epoch-0002-step-000003"]
    (folder / ".epoch-0003-step-000000.partial").mkdir()  # as a kill leaves it
    (results / "history").write_text("and more")
    (results / "later").touch()

    other = compiled(seed=2)
    assert Checkpoints(folder, results).restore(other) == state
    assert [path.name for path in results.iterdir()] == ["history"]
    assert (results / "history").read_text() == "of two epochs"
    before, after = ([*m.variables, *m.optimizer.variables, *m.metrics_variables] for m in (model, other))
    assert len(before) == 4 + 1 + 1 + 4 + 6 * 2  # weights, seed generator, iterations, momentum, means
    for expected, got in zip(values(before), values(after), strict=True):
        np.testing.assert_array_equal(expected, got)
    assert int(ops.convert_to_numpy(other.optimizer.iterations)) == 8
    assert int(ops.convert_to_numpy(other.seed_generator.state)[1]) == 2 * 4
    assert other.get_metrics_result()["loss"] > 0


def test_without_a_checkpoint_results_begin_empty(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old").touch()
    assert Checkpoints(tmp_path / "none", tmp_path / "results").restore(compiled()) == State()
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow trains on one device")
def test_a_training_of_two_devices_goes_on_on_one(tmp_path):
    (tmp_path / "results").mkdir()
    model, again = compiled(), compiled(seed=2)
    with data_parallel(2).scope():
        shared = compiled()
        with fed(TinyBatches()) as data:
            shared.fit(data, shuffle=False, verbose=0)
    assert len(shared.head.kernel.value.sharding.device_set) == 2
    Checkpoints(tmp_path / "checkpoint", tmp_path / "results").save(shared, State(1))
    Checkpoints(tmp_path / "checkpoint", tmp_path / "results").restore(again)
    with fed(TinyBatches()) as data:
        again.fit(data, initial_epoch=1, epochs=2, shuffle=False, verbose=0)
    with fed(TinyBatches()) as data:
        model.fit(data, epochs=2, shuffle=False, verbose=0)
    for expected, got in zip(values(model.variables), values(again.variables), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    """Momentum and average have the shapes of the half-done gradient and momentum."""
    (tmp_path / "results").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoint", tmp_path / "results")
    averaging, accumulating = Tiny(), Tiny()
    for model, changes in ((averaging, {"ema": 0.9}), (accumulating, {"accumulate": 2})):
        model.compile(optimizer(model, settings(optimizer="sgd", **changes), SCHEDULE, 100), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    shapes = [[tuple(variable.shape) for variable in model.optimizer.variables] for model in (averaging, accumulating)]
    assert shapes[0] == shapes[1]
    checkpoints.save(averaging, State(1))
    with pytest.raises(UserError, match=r"another train\.optimizer, ema or accumulate; remove .*checkpoint to train"):
        checkpoints.restore(accumulating)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    (tmp_path / "results").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoint", tmp_path / "results")
    checkpoints.save(compiled(), State(1))
    with pytest.raises(UserError, match=r"different version of the model, .*; remove .*checkpoint to train afresh"):
        checkpoints.restore(compiled(width=5))


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("state.json", lambda data: data.replace(b'"stale": 0', b'"stale": 1'), "state.json is not as it was written"),
        (
            "state.npz",
            lambda data: data[:-9],
            "state.npz is not as it was written; remove .*checkpoint to train afresh",
        ),
        ("results/history", lambda data: b"", "history is not as it was written"),
        ("digests.json", lambda data: b'{"a": [1]}', r"digests.json: a should be text, not \[1\]"),
        (
            "../best-0001.npz",
            lambda data: data[:-9],
            "best-0001.npz is damaged .*; remove .*checkpoint to train afresh",
        ),
    ],
)
def test_damage_is_one_sentence(tmp_path, name, damage, sentence):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/history").write_text("of one epoch")
    model, state = compiled(), State(epoch=1, best_epoch=1)
    checkpoints = Checkpoints(tmp_path / "checkpoint", tmp_path / "results")
    checkpoints.save_best(model, state)
    checkpoints.save(model, state)
    file = tmp_path / "checkpoint/epoch-0001-step-000000" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=sentence):
        checkpoints.load_best(model, checkpoints.restore(model))


@pytest.mark.parametrize("validates", [False, True])
def test_an_older_checkpoint_goes_once_the_next_is_whole(tmp_path, monkeypatch, validates):
    """And they come every so many steps, at the end of each epoch, and before a validation."""
    monkeypatch.chdir(tmp_path)
    seen, savez = [], np.savez

    def watched(path, **arrays):
        if path.name == "state.npz":
            seen.append([path.name for path in checkpoints_in(tmp_path / "checkpoints")])
        savez(path, **arrays)

    monkeypatch.setattr(np, "savez", watched)
    fit(tmp_path, epochs=2, checkpoint_steps=3, validate_epochs=int(validates))
    before = [names for names in seen if names]
    expected = [(0, 3), (0, 4), (1, 0), (1, 3), (1, 4)] if validates else [(0, 3), (1, 0), (1, 3)]
    assert before == [[f"epoch-{epoch:04}-step-{step:06}"] for epoch, step in expected]
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == ["epoch-0002-step-000000"]
