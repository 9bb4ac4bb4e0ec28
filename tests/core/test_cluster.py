"""A Dask cluster: here a stand-in that answers wrongly; what a real one does, the tests of convert and predict show."""

import sys
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest

from fashionseg.core import cluster
from fashionseg.core.errors import UserError

ADDRESS = "tcp://host:8786"
HERE = str(Path.cwd())


class Client:
    """As Dask's; `found` is what its workers say of themselves, or what it raises."""

    def __init__(self, found):
        self.found = found

    def __call__(self, address, timeout):
        assert (address, timeout) == (ADDRESS, cluster.SECONDS)
        if isinstance(self.found, OSError | AssertionError):
            raise self.found
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def run(self, function):
        if isinstance(self.found, Exception):
            raise self.found
        return {name: (folder, code or cluster._here()[1]) for name, (folder, code) in self.found.items()}


@pytest.fixture(autouse=True)
def _afresh():
    cluster._here.cache_clear()


def joined(monkeypatch, found):
    client = Client(found)
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=client, CancelledError=CancelledError))
    monkeypatch.setattr(joblib, "parallel_config", lambda backend: cluster.joined(None))
    return client, cluster.joined(ADDRESS)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (OSError("Timed out\nand more"), r"where no scheduler answers \(Timed out\); start `dask scheduler` there and"),
        (AssertionError(), r"where no scheduler answers \(AssertionError\); start"),
        (ImportError("fashionseg"), rf"whose a worker runs in a Python .*fashionseg\); start it in {HERE} with its"),
        ({"tcp://a:1": ("/home", None)}, rf"whose tcp://a:1 runs in /home; start it in {HERE} with its \.venv\.$"),
        ({"tcp://a:1": (HERE, None), "tcp://b:1": (HERE, "older")}, "whose tcp://b:1 has other code.*start it again"),
        ({}, f"which has no workers; start `dask worker {ADDRESS}` in this folder"),
    ],
    ids=["silence", "another program", "no package", "another folder", "before an edit", "no workers"],
)
def test_a_cluster_that_cannot_help_is_one_sentence(monkeypatch, found, sentence):
    client, context = joined(monkeypatch, found)
    with pytest.raises(UserError, match=f"^machine.dask is {ADDRESS}, {sentence}"), context:
        raise RuntimeError
    assert hasattr(client, "closed") == (not isinstance(found, OSError | AssertionError))


def test_a_cluster_that_is_lost_is_one_sentence(monkeypatch, capsys):
    client, context = joined(monkeypatch, {"tcp://a:1": (HERE, None), "tcp://b:1": (HERE, None)})
    with (
        pytest.raises(UserError, match=r"which was lost \(scheduler-connection-lost\); run again, it goes on\.$"),
        context,
    ):
        raise CancelledError("scheduler-connection-lost\nmore")
    assert client.closed
    assert capsys.readouterr().out == f"2 Dask workers of {ADDRESS}\n"


def test_without_dask_its_address_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with cluster.joined(None):
        pass
    with (
        pytest.raises(UserError, match=r"Dask cannot be imported.*uv pip install distributed`"),
        cluster.joined(ADDRESS),
    ):
        raise RuntimeError
