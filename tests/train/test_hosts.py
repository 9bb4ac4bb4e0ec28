"""Two processes, as on two hosts, that train one network: JAX on this machine's processor. It runs as a script, too,
as each of them."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small import TinyBatches, assert_alike, config, train, values

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.model.compilation import compile_steps
from fashionseg.model.device import data_parallel
from fashionseg.model.weights import saved
from fashionseg.train import callbacks, checkpoint, hosts, loop

sys.path.append(str(Path(__file__).parents[1] / "model"))

import tiny

STEPS = 3
SETTINGS = {"epochs": 2, "ema": 0.7, "accumulate": 2, "log_steps": 1}


class Share(TinyBatches):
    """Each process' own row of TinyBatches."""

    def __init__(self, share=(0, 1), **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def __getitem__(self, index):
        place, parts = self.share
        rows = slice(2 * place // parts, 2 * (place + 1) // parts)
        return {name: value[rows] for name, value in super().__getitem__(index).items()}


class Pictures(keras.utils.PyDataset):
    """Batches of the tiny network."""

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = slice(hosts.index(), hosts.index() + 1) if hosts.count() == 2 else slice(2)
        return {name: value[rows] for name, value in tiny.make_batch(seed=index).items()}


def steps() -> tuple[list[dict], list[np.ndarray]]:
    """The losses of some steps of MaskRCNN and the weights after them."""
    losses = []
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch)
        network = tiny.network()
        compile_steps(network, optimizer=keras.optimizers.SGD(0.001))
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: losses.append({name: float(value) for name, value in logs.items()})
        )
        network.fit(Pictures(), verbose=0, shuffle=False, callbacks=[note])
    return losses, values(network.trainable_variables)


def script(folder: Path, with_network: bool) -> dict:
    """What one of the processes does and notes."""
    with hosts.together():
        del os.environ[hosts.NUMBER]  # a process joins once, and trains more than once here
    noted = {"index": hosts.index(), "scores": hosts.of_first([hosts.index() + 1 / 3, None])}
    noted["any"] = [hosts.any_of(False), hosts.any_of(hosts.index() == 1)]
    with pytest.raises(UserError, match="2 processes cannot share evenly; make it a multiple of 2"):
        data_parallel(3)
    with pytest.raises(UserError, match="the processes of this training differ in code; start them in one folder"):
        hosts.agree(str(hosts.index()), "code")
    if hosts.index():  # the first one writes, and no other
        files.replacing = callbacks.Live = saved.save = None
        checkpoint.shutil.copytree = checkpoint.np.savez = None
    if with_network:
        with data_parallel(2).scope():
            noted["losses"], weights = steps()
        if hosts.index() == 0:
            np.savez(folder / "weights", *weights)

    def killed(self, batch, logs):
        if self.epoch == "epoch 1/2" and batch == 1 and hosts.index():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(loop.Progress, "on_train_batch_end", killed)
        train(folder / "killed", config(checkpoint_steps=1000, **SETTINGS), batches=Share)
    noted["error"] = str(error.value)
    hosts.agree("here", "time")  # the first has written
    noted["left"] = sorted(path.name for path in (folder / "killed/checkpoints").glob("*/*"))
    hosts.agree("here", "time")  # both have looked
    train(folder / "killed", config(**SETTINGS), batches=Share)
    return noted


@pytest.fixture(scope="module")
def both(tmp_path_factory, pytestconfig) -> tuple[Path, list[dict]]:
    """A folder that two processes worked in, and what each noted; of several trials, of the whole network, too."""
    flags = ["network"] if pytestconfig.getoption("trials") > 1 else []
    folder = tmp_path_factory.mktemp("both")
    (folder / "killed").mkdir()
    for document in ("train.json", "val.json"):  # of which `train` would write those that are missing
        files.write_json(folder / "killed" / document, {"images": [], "annotations": [], "categories": []})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
        hosts.NUMBER: "2",
        "XLA_FLAGS": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started = [
        subprocess.Popen(
            [sys.executable, __file__, folder, *flags],
            env={**os.environ, **job, "KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n\n".join(outputs)
    return folder, [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]


two_processes = pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow trains in one process")


@two_processes
@pytest.mark.trials
def test_steps_of_two_processes_are_those_of_one_device(both):
    folder, noted = both
    losses, weights = steps()
    assert noted[0]["losses"] == noted[1]["losses"]
    for together, alone in zip(noted[0]["losses"], losses, strict=True):
        assert together == pytest.approx(alone, rel=1e-5)
    with np.load(folder / "weights.npz") as found:
        for name, expected in zip(found.files, weights, strict=True):
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)


@two_processes
def test_what_one_process_learns_all_know(both):
    noted = both[1]
    assert [of["index"] for of in noted] == [0, 1]
    assert [of["any"] for of in noted] == [[False, True]] * 2
    assert [of["scores"] for of in noted] == [[1 / 3, None]] * 2
    end = "after step 2 of epoch 1; the same command goes on from there."
    by = [f"stopped by {signal} {end}" for signal in ("a signal to another process", "SIGTERM")]
    assert [of["error"] for of in noted] == by
    assert [of["left"] for of in noted] == [["epoch-0000-step-000002", "lock", "made_by.json"]] * 2


@two_processes
def test_two_processes_go_on_as_if_nothing_had_happened(both, tmp_path):
    folder = both[0] / "killed"
    train(tmp_path, config(**SETTINGS), batches=Share)
    assert_alike(folder, tmp_path)
    assert not [*(folder / "checkpoints").iterdir()]


def test_processes_that_do_not_come_together_are_one_sentence(monkeypatch):
    with hosts.together():  # there are none
        pass
    monkeypatch.setenv(hosts.NUMBER, "2")
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: None)
    monkeypatch.setattr(keras.distribution, "initialize", lambda: (_ for _ in ()).throw(RuntimeError("DEADLINE\nmore")))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with (
        pytest.raises(UserError, match=r"the 2 processes of this training did not come together \(DEADLINE\)"),
        hosts.together(),
    ):
        raise RuntimeError
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with (
        pytest.raises(UserError, match=r"only JAX trains in several processes; set machine\.backend to jax"),
        hosts.together(),
    ):
        raise RuntimeError


if __name__ == "__main__":
    target = Path(sys.argv[1])
    found = script(target, with_network="network" in sys.argv)
    (target / f"{found['index']}.json").write_text(json.dumps(found))
