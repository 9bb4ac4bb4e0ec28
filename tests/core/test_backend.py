"""Every door to Keras goes through one function, whatever the shell holds."""

import gc
import os
import runpy
import sys
from pathlib import Path
from typing import get_args

import keras
import pytest

from fashionseg.__main__ import export, inspect, predict
from fashionseg.core import backend
from fashionseg.core.errors import UserError
from fashionseg.params import Machine

ROOT = Path(__file__).parents[2]
DOORS = {"inspect": lambda: inspect("models", "a.jpg", "out"), "export": lambda: export("models", "out")}
DOORS["predict"] = lambda: predict("models", ["a.jpg"])
DOORS |= {
    stage: lambda stage=stage, count=count: runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"](*["no"] * count)
    for stage, count in (("preview", 4), ("train", 6), ("predict", 6))
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Of this repository, restored afterwards."""
    monkeypatch.chdir(ROOT)
    for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", *backend.FOREIGN):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.mark.parametrize("door", DOORS)
def test_a_backend_of_another_project_is_one_sentence(monkeypatch, door):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UserError, match="KERAS_BACKEND is torch, but the network runs on tensorflow or jax; `unset"):
        DOORS[door]()


@pytest.mark.parametrize(("before", "expected"), [("", "tensorflow"), ("jax", "jax")])
def test_the_variable_wins_over_params_and_others_are_cleared(monkeypatch, before, expected):
    monkeypatch.setenv("KERAS_BACKEND", before)
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "1")
    backend.choose("tensorflow")
    assert os.environ["KERAS_BACKEND"] == expected
    assert "KERAS_MAX_EPOCHS" not in os.environ


@pytest.mark.parametrize(("shell", "channels", "expected"), [(None, 64, "1"), (None, 256, None), ("0", 64, "0")])
def test_one_dnn_computes_narrow_networks_unless_the_shell_says_otherwise(monkeypatch, shell, channels, expected):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    if shell:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", shell)
    backend.choose("tensorflow", channels)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected


@pytest.mark.parametrize(
    ("name", "shell", "expected"),
    [("jax", None, backend.XLA_FLAGS), ("jax", "--own", "--own"), ("tensorflow", None, None)],
)
def test_xla_merges_no_products_on_jax_unless_the_shell_says_otherwise(monkeypatch, name, shell, expected):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.delenv("XLA_FLAGS")
    if shell:
        monkeypatch.setenv("XLA_FLAGS", shell)
    backend.choose("tensorflow")
    assert os.environ.get("XLA_FLAGS") == expected


def test_keras_that_does_not_start_is_one_sentence(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        UserError,
        match=r"Keras does not start on jax \(import of keras halted.*keras\.json valid\? tensorflow is installed: ",
    ):
        backend.choose("jax")
    assert gc.isenabled()


def test_the_garbage_collector_goes_on_but_leaves_what_was_imported_alone():
    gc.unfreeze()
    try:
        backend.choose(keras.backend.backend())
        assert gc.isenabled()
        assert gc.get_freeze_count() > len(gc.get_objects())  # these are the younger ones
    finally:
        gc.unfreeze()


def test_backends_are_those_of_params():
    assert get_args(Machine.__annotations__["backend"]) == backend.BACKENDS
    assert keras.backend.backend() in backend.BACKENDS


def test_what_is_installed_is_available(monkeypatch):
    assert backend.available() == keras.backend.backend()
    monkeypatch.delitem(sys.modules, "keras")
    for installed in (["tensorflow", "jax"], ["jax"], ["tensorflow"]):
        monkeypatch.setattr(backend, "find_spec", lambda name, installed=installed: name in installed)
        assert backend.available() == installed[0]
