"""A Dask cluster in the place of this machine's processes, for what joblib hands out."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fashionseg.core import digests
from fashionseg.core.errors import UserError, first_line

SECONDS = 5  # for an answer of the scheduler


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Within it joblib's default backend is the Dask cluster of the scheduler at `address`, such as tcp://host:8786; it
    stays loky without one.

    Raises UserError where Dask is not installed, nothing answers there, the cluster has no workers, or one of them
    works in another folder or with other code than this process.
    """
    if address is None:
        yield
        return
    import joblib

    asked = f"machine.dask is {address}"
    try:
        from distributed import CancelledError, Client
    except ImportError as error:
        raise UserError(
            f"{asked}, but Dask cannot be imported ({error}); run `.venv/bin/uv pip install distributed`, or set it to "
            "null."
        ) from None
    try:
        client = Client(address, timeout=SECONDS)
    except Exception as error:  # no answer, no address, another program's answer: Dask raises many kinds
        raise UserError(
            f"{asked}, where no scheduler answers ({first_line(error)}); start `dask scheduler` there and "
            f"`dask worker {address}` in this folder on each machine, or set it to null."
        ) from None
    with client:
        try:
            found = client.run(_here)
        except ImportError as error:
            found = {"a worker": (f"a Python without this package ({error})", "")}
        for worker, (folder, code) in found.items():
            if folder != _here()[0]:
                raise UserError(f"{asked}, whose {worker} runs in {folder}; start it in {_here()[0]} with its .venv.")
            if code != _here()[1]:
                raise UserError(f"{asked}, whose {worker} has other code, as of before an edit; start it again.")
        if not found:
            raise UserError(f"{asked}, which has no workers; start `dask worker {address}` in this folder.")
        print(f"{len(found)} Dask workers of {address}")
        try:
            with joblib.parallel_config(backend="dask"):
                yield
        except CancelledError as error:  # of Dask, where the scheduler is gone
            raise UserError(f"{asked}, which was lost ({first_line(error)}); run again, it goes on.") from None


@functools.cache
def _here() -> tuple[str, str]:
    """The folder that this process works in and a digest of the code, when it is first asked: a worker keeps the code
    that it has imported."""
    return str(Path.cwd()), digests.of_files(sorted(digests.PACKAGE.rglob("*.py")))
