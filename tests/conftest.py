"""What all tests share.

Hypothesis looks for new examples on a developer's machine; CI repeats the same ones, so that red means changed.

A test that trains takes `trial`, the number of its network and pictures. `pytest --trials 10` runs these tests alone,
with ten each, and those marked `trials`, once, and prints the least and the greatest of each value that has a bound;
`make trials` does so as on other processors.
"""

import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

from competition_folder import Folder

# XLA compiles in half the time and computes slower: tests compile much and compute little. Numbers stay the same.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What it has compiled in one test, or in a process of it, it takes for the next one, of this run alone.
COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# JAX sees two devices, as on a machine with two GPUs: what `trainer.train` trains, it trains on both.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=int, default=1, help="run the tests that train alone, so many times")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", range(metafunc.config.getoption("--trials")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--trials") > 1:
        items[:] = [item for item in items if "trial" in item.fixturenames or item.get_closest_marker("trials")]
        return
    for item in items:
        if item.get_closest_marker("trials"):
            item.add_marker(pytest.mark.skip(reason="takes half a minute: `make trials` runs it"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "trials: takes so long that only `pytest --trials` runs it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--trials") == 1:
        return
    values = defaultdict(list)
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            values[report.location[2].partition("[")[0], name].append(value)
    terminalreporter.section("values over the trials")
    for (test, name), found in values.items():
        terminalreporter.write_line(f"{test}: {name} {min(found):.3g} to {max(found):.3g} in {len(found)}")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A small competition."""
    return Folder(tmp_path / "competition")


@pytest.fixture
def serve_kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[type[BaseHTTPRequestHandler]], None]]:
    """Starts a server as Kaggle for the official client, which is imported anew and can reach nothing else."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("kaggle", "kagglesdk")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    servers = []

    def serve(handler: type[BaseHTTPRequestHandler]) -> None:
        server = ThreadingHTTPServer(("localhost", 0), handler)
        from kagglesdk import kaggle_env

        for environment in kaggle_env._env_to_endpoint:
            monkeypatch.setitem(kaggle_env._env_to_endpoint, environment, f"http://localhost:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
