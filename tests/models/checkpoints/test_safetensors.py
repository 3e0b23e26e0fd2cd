"""The safetensors reader: what it reads back, and that nothing malformed gets past it."""

import json
import struct
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.safetensors import SafetensorsFile
from models.errors import CheckpointError

F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
DATA = bytes(range(24))


def packed(header: object, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("file") / "model.safetensors"


def opened(file: Path, content: bytes) -> dict[str, tuple[int, ...]]:
    file.write_bytes(content)
    with SafetensorsFile(file) as opened:
        return {name: tensor.shape for name, tensor in opened.tensors.items()}


def test_tensors_are_read_whole_and_by_rows(file: Path) -> None:
    halves = np.arange(6).astype(ml_dtypes.bfloat16).reshape(3, 2)
    scalar = np.array(7, "<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "scalar": {"dtype": "I64", "shape": [], "data_offsets": [12, 20]},
        "halves": {"dtype": "BF16", "shape": [3, 2], "data_offsets": [0, 12]},
        "none": {"dtype": "F32", "shape": [0, 5], "data_offsets": [20, 20]},
    }
    file.write_bytes(packed(header, halves.tobytes() + scalar.tobytes()))
    with SafetensorsFile(file) as opened:
        np.testing.assert_array_equal(opened.tensors["halves"].read(), halves)
        np.testing.assert_array_equal(opened.tensors["halves"].read(1, 3), halves[1:3])
        assert opened.tensors["scalar"].read() == 7
        assert opened.tensors["none"].read().shape == (0, 5)


def test_a_read_tensor_outlives_its_file(file: Path) -> None:
    file.write_bytes(packed({"a": F32}))
    with SafetensorsFile(file) as opened:
        values = opened.tensors["a"].read()
    file.write_bytes(b"\0" * 200)
    assert values.tobytes() == DATA
    assert values.flags.writeable and values.flags.aligned


def test_a_file_cut_off_after_opening_is_an_error(file: Path) -> None:
    file.write_bytes(packed({"a": F32}))
    with SafetensorsFile(file) as opened:
        file.write_bytes(packed({"a": F32})[:-10])
        with pytest.raises(CheckpointError, match=r"ended inside tensor 'a'"):
            opened.tensors["a"].read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "fewer than the 8"),
        (b"\x05\0\0\0", "fewer than the 8"),
        (struct.pack("<Q", 2**63) + b"{}", "claims 9223372036854775808 bytes"),
        (struct.pack("<Q", 0), "claims 0 bytes"),
        (packed({"a": F32})[:20], "claims"),
        (packed(b"[1]", b""), "start with '{'"),
        (packed(b" {}", b""), "start with '{'"),
        (packed(b'{"a":', b""), "not valid JSON"),
        (packed(b'{"\xff":1}', b""), "not valid JSON"),
        (packed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""), "not valid JSON"),
        (packed(b'{"__metadata__":{},"__metadata__":{}}', b""), "a name appears twice"),
        (packed({"__metadata__": {"a": 1}}, b""), "not an object of strings"),
        (packed({"a": 3}), "does not have exactly"),
        (packed({"a": F32 | {"x": 1}}), "does not have exactly"),
        (packed({"a": F32 | {"dtype": "F31"}}), "'F31', not one of BOOL, U8"),
        (packed({"a": F32 | {"dtype": ["F32"]}}), "not one of"),
        (packed({"a": F32 | {"shape": [2, -3]}}), r"the shape \[2, -3\]"),
        (packed({"a": F32 | {"shape": [True, 6]}}), "the shape"),
        (packed({"a": F32 | {"shape": [1] * 65}}), "the shape"),
        (packed({"a": F32 | {"shape": [2, 4]}}), "needs 32 bytes and its data_offsets hold 24"),
        (packed({"a": F32 | {"data_offsets": [24, 0]}}), "hold -24"),
        (packed({"a": F32 | {"data_offsets": [0, 24, 48]}}), "the data_offsets"),
        (packed({"a": F32 | {"data_offsets": [8, 32]}}), "follows a hole"),
        (packed({"a": F32, "b": F32}), "overlaps"),
        (packed({"a": F32}, DATA[:-1]), "end at byte"),
        (packed({"a": F32}, DATA + b"\0"), "end at byte"),
        (packed({}, b"\0"), "end at byte"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(file: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        opened(file, content)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Cannot open .*: No such file"):
        SafetensorsFile(tmp_path / "model.safetensors")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text('ab"{\x00é', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"{\x00é', max_size=3), inner)
    ),
    max_leaves=4,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(0, 24), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__"]), entries | json_values, max_size=3
)


@settings(deadline=None)
@given(headers | st.binary(max_size=40))
def test_any_header_reads_or_is_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, header: object
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    try:
        shapes = opened(file, packed(header))
    except CheckpointError:
        return
    assert isinstance(shapes, dict)


@settings(deadline=None)
@given(st.integers(0, len(packed({"a": F32})) - 1), st.integers(0, 255))
def test_one_changed_byte_reads_or_is_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    content = bytearray(packed({"a": F32}))
    content[at] = value
    with suppress(CheckpointError):
        opened(tmp_path_factory.getbasetemp() / "byte.safetensors", bytes(content))
