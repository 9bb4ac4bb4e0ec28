"""Against files that PyTorch 2.13 wrote (tests/golden/make_lite.py), and against what must not be trusted."""

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fashionseg.core.errors import UserError
from fashionseg.model.state_dict import LEGACY_MAGIC, LEGACY_PROTOCOL, read_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ["state_dict_legacy.pth", "state_dict_zip.pth"]
# The same examples each time: a byte that happens to ask the unpickler for gigabytes would be a nuisance.
few = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("file", FILES)
def test_reads_what_pytorch_wrote(file):
    state = read_state_dict(GOLDEN / file)
    numbers = np.arange(24, dtype=np.float32)
    expected = {
        "plain": numbers.reshape(2, 3, 4),
        "transposed": numbers.reshape(4, 6).T,
        "part": numbers[5:20:3],
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    for dtype in ("float64", "float16", "int32", "int16", "int8", "uint8", "bool"):
        expected[dtype] = np.array([0, 1, 100]).astype(dtype)
    assert list(state) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, strict=True, err_msg=name)
    state["plain"][:] = 0  # a copy: writable, and of no effect on what shared its storage
    assert state["transposed"].any()


class Command:
    def __reduce__(self):
        return os.system, ("touch stolen",)


class Allowed:
    """Asks for a callable that a lax reader might let through with its module."""

    def __reduce__(self):
        return io.open, ("stolen", "w")


def legacy(*pickled: object) -> bytes:
    parts = [LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}, *pickled]
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def archive(pickled: object) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as folder:
        folder.writestr("archive/data.pkl", pickle.dumps(pickled, protocol=2))
    return file.getvalue()


@pytest.mark.parametrize("wrap", [legacy, archive])
@pytest.mark.parametrize(("value", "named"), [(Command(), "posix.system"), (Allowed(), "io.open")])
def test_refuses_to_run_code_and_names_it(tmp_path, monkeypatch, wrap, value, named):
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(wrap({"weight": value}))
    with pytest.raises(UserError, match=f"asks for {named}"):
        read_state_dict("evil.pth")
    assert not Path("stolen").exists()


def test_refuses_a_magic_number_that_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(pickle.dumps(Command()))
    with pytest.raises(UserError, match=r"posix\.system"):
        read_state_dict("evil.pth")
    assert not Path("stolen").exists()


@pytest.mark.parametrize("file", FILES)
@few
@given(data=st.data())
def test_a_file_cut_short_is_a_user_error(tmp_path, file, data):
    whole = (GOLDEN / file).read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=r"cut\.pth"):
        read_state_dict(cut)


@pytest.mark.parametrize("file", FILES)
@few
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, file, data):
    damaged = bytearray((GOLDEN / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pth"
    path.write_bytes(damaged)
    with contextlib.suppress(UserError):  # and nothing else
        assert all(isinstance(array, np.ndarray) for array in read_state_dict(path).values())


# As torch.save writes a float tensor; the numbers are put in: count of the storage, offset, shape, strides.
TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuI%d\nNtQI%d\n(I%d\nI%d\nt(I%d\nI%d\nt\x89ccollections\nOrderedDict\n)Rt"
    b"Rs."
)


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ((4, 0, 2, 2, 2, 1), None),
        ((4, 1, 2, 2, 2, 1), "does not fit"),  # the last element lies one past the end
        ((4, 0, 2, 3, 2, 1), "does not fit"),
        ((4, 0, 2, 2, 3, 1), "does not fit"),
        ((4, 0, 2**40, 2**40, 0, 0), "does not fit"),  # would be terabytes of the first element
        ((4, -1, 2, 2, 2, 1), "offset -1"),
        ((4, 3, 2, 2, -2, -1), "strides"),
        ((5, 0, 2, 2, 2, 1), "4 elements where 5"),
        ((2**70, 0, 2, 2, 2, 1), "4 elements where"),
    ],
)
def test_sizes_are_checked(tmp_path, numbers, complaint):
    path = tmp_path / "sizes.pth"
    elements = np.arange(4, dtype="<f4")
    path.write_bytes(
        legacy() + TENSOR % numbers + pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + elements.tobytes()
    )
    if complaint:
        with pytest.raises(UserError, match=complaint):
            read_state_dict(path)
    else:
        np.testing.assert_array_equal(read_state_dict(path)["w"], elements.reshape(2, 2))


def zipped(pickled: bytes, elements: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("archive/data.pkl", pickled)
        folder.writestr("archive/data/0", elements)
    return file.getvalue()


def test_reads_bfloat16(tmp_path):
    """Whose bits are the upper half of those of a float32."""
    numbers = np.float32([1, -2.5, 3e38, 0.15625])
    pickled = (TENSOR % (4, 0, 2, 2, 2, 1)).replace(b"FloatStorage", b"BFloat16Storage")
    (tmp_path / "half.pth").write_bytes(zipped(pickled, (numbers.view("<u4") >> 16).astype("<u2").tobytes()))
    found = read_state_dict(tmp_path / "half.pth")["w"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), numbers, rtol=2**-7)
    assert found.ravel()[[0, 1, 3]].tolist() == [1, -2.5, 0.15625]


def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path):
    path = tmp_path / "bomb.pth"
    path.write_bytes(zipped(TENSOR % (4, 0, 2, 2, 2, 1), bytes(10_000_000)))
    with pytest.raises(UserError, match="archive/data/0 unpacks to 10000000 bytes where 16 were expected"):
        read_state_dict(path)
    path.write_bytes(zipped(bytes(10_000_000), b""))
    with pytest.raises(UserError, match=r"archive/data\.pkl unpacks to 10000000 bytes"):
        read_state_dict(path)


def test_says_what_it_found_instead(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth is missing"):
        read_state_dict(tmp_path / "none.pth")
    path = tmp_path / "other.pth"
    for content, complaint in [
        (legacy([1, 2]), "holds a list"),
        (legacy({"epoch": 3}), "entry 'epoch' is a int"),
        (legacy({}, ["0"]), "list of storages"),
        (legacy({}, []) + b"more", "after the last storage"),
        (pickle.dumps(1), "does not begin"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            read_state_dict(path)
    path.write_bytes(legacy({}, []))
    assert read_state_dict(path) == {}
