"""Reads PyTorch state dicts without PyTorch and without running pickled code."""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashionseg.core.errors import UserError

# The first two of the five pickles in a file of PyTorch before 1.6 (torch/serialization.py).
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

BFLOAT16 = "bfloat16"  # NumPy has none: the upper half of a float32
DTYPES = {
    "BFloat16Storage": BFLOAT16,
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Storage(NamedTuple):
    dtype: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        return self.count * (2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize)


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _Broken(Exception):
    """An error in the file; read_state_dict adds its name."""


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name, as `torch.save(model.state_dict(), path)` wrote them, in either of PyTorch's two formats;
    bfloat16 becomes float32.

    Any global in the pickle except ordered dicts, tensors and storages is refused. Raises UserError where the file is
    missing, truncated, not a state dict, or its sizes are inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing; a file with a PyTorch state dict was expected.")
    try:
        tensors, elements = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return {name: _array(name, tensor, elements[tensor.storage]) for name, tensor in tensors.items()}
    except (_Broken, ValueError) as problem:  # ValueError: a shape beyond what NumPy can hold
        raise UserError(f"{path} cannot be read as a PyTorch state dict: {problem}.") from None


def _read_legacy(path: Path) -> tuple[dict[str, _Tensor], dict[_Storage, np.ndarray]]:
    """Pickles of magic, protocol, machine, tensors and storage keys; then each storage: int64 count, elements."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if _unpickle(file) != LEGACY_MAGIC or _unpickle(file) != LEGACY_PROTOCOL:
            raise _Broken("it does not begin with PyTorch's magic number")
        machine = _unpickle(file)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise _Broken("it was not written on a little-endian machine")
        tensors, storages = _checked(_unpickle(file))
        keys = _unpickle(file)
        if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
            raise _Broken("its list of storages differs from those of its tensors")
        elements = {}
        for storage in map(storages.get, keys):
            header = file.read(8)
            count = int.from_bytes(header, "little")
            if len(header) != 8 or count != storage.count:
                raise _Broken(f"storage {storage.key} has {count} elements where {storage.count} were expected")
            elements[storage] = _elements(storage, file.read(min(storage.bytes, size)))
        if file.read(1):
            raise _Broken("there are bytes after the last storage")
    return tensors, elements


def _read_zip(path: Path) -> tuple[dict[str, _Tensor], dict[_Storage, np.ndarray]]:
    """An archive of one folder: data.pkl, byteorder, and data/KEY with the elements of each storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.namelist()
            folders = [name.removesuffix("data.pkl") for name in files if name.endswith("/data.pkl")]
            if len(folders) != 1:
                raise _Broken("the archive has no data.pkl")
            folder = folders[0]
            if f"{folder}byteorder" in files and _entry(archive, f"{folder}byteorder", 6) != b"little":
                raise _Broken("it was not written on a little-endian machine")
            pickled = _entry(archive, f"{folder}data.pkl", path.stat().st_size)  # PyTorch compresses nothing
            tensors, storages = _checked(_unpickle(io.BytesIO(pickled)))
            entries = {storage: f"{folder}data/{storage.key}" for storage in storages.values()}
            return tensors, {s: _elements(s, _entry(archive, name, s.bytes)) for s, name in entries.items()}
    except _Broken:
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        raise _Broken(f"the archive is cut short or damaged ({error})") from None


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of an entry; refuses one that unpacks to more than `most`."""
    size = archive.getinfo(name).file_size
    if size > most:
        raise _Broken(f"{name} unpacks to {size} bytes where {most} were expected")
    return archive.read(name)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable | str:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # The arguments after the strides, requires_grad and hooks, are for training.
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise _Broken(f"it asks for {module}.{name}, which no state dict needs; do not trust this file")

    def persistent_load(self, identity: tuple) -> _Storage:
        kind, dtype, key, _, count, *view = identity
        valid = kind == "storage" and dtype in DTYPES.values() and isinstance(key, str)
        if not valid or not isinstance(count, int) or count < 0 or view not in ([], [None]):
            raise _Broken(f"it names a storage as {identity!r}")
        return _Storage(dtype, key, count)


def _unpickle(file: io.BufferedIOBase) -> object:
    try:
        return _Unpickler(file).load()
    except _Broken:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _Broken(f"the pickle is cut short or damaged ({error})") from None


def _checked(tensors: object) -> tuple[dict[str, _Tensor], dict[str, _Storage]]:
    """The tensors by name, and their storages by key."""
    if not isinstance(tensors, dict):
        raise _Broken(f"it holds a {type(tensors).__name__} where tensors by name were expected")
    storages = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
            raise _Broken(f"its entry {name!r} is a {type(tensor).__name__} where a tensor was expected")
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise _Broken(f"tensor {name} disagrees with another one on storage {tensor.storage.key}")
    return tensors, storages


def _elements(storage: _Storage, data: bytes) -> np.ndarray:
    if len(data) != storage.bytes:
        raise _Broken(f"storage {storage.key} has {len(data)} bytes where {storage.bytes} were expected")
    if storage.dtype == BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, storage.dtype)


def _array(name: str, tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """The tensor as a copy of its part of the storage, with bounds checked: as_strided checks nothing."""
    _, offset, shape, strides = tensor
    valid = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not valid or not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)):
        raise _Broken(f"tensor {name} has shape {shape!r}, strides {strides!r} and offset {offset!r}")
    if not math.prod(shape):
        return np.zeros(shape, elements.dtype)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if last >= elements.size or math.prod(shape) > elements.size:
        raise _Broken(f"tensor {name} of shape {shape} does not fit in its storage of {elements.size} elements")
    steps = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps).copy()
