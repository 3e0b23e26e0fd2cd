"""PyTorch's files: what is read back, and that no pickle is obeyed and nothing malformed passes."""

import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.checkpoint import open_tensors
from models.errors import CheckpointError
from models.torch_file.reader import TensorFile, TorchFile
from tests.models.torch_file.torch_files import (
    archive,
    name,
    number,
    state_dict,
    storage,
    text,
    view,
    write_torch_file,
)

NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4)
FLOATS = storage("FloatStorage", "0", 12)
GOOD = state_dict({"a": view(FLOATS, 0, (3, 4), (4, 1))})


def read(path: Path) -> dict[str, np.ndarray]:
    with TorchFile(path) as file:
        return {key: tensor.read() for key, tensor in file.tensors.items()}


def written(path: Path, content: bytes) -> Path:
    archive(path, content, {"0": NUMBERS.tobytes()})
    return path


def test_a_file_made_by_hand_is_read_whole_by_rows_and_by_entries(tmp_path: Path) -> None:
    halves = np.arange(6).astype(ml_dtypes.bfloat16).reshape(1, 2, 3)
    write_torch_file(tmp_path / "x.bin", {"a": NUMBERS, "h": halves, "s": np.array(7)})
    with TorchFile(tmp_path / "x.bin") as file:
        np.testing.assert_array_equal(file.tensors["a"].read(1, 3), NUMBERS[1:])
        np.testing.assert_array_equal(file.tensors["h"].entry(0).read(), halves[0])
        assert file.tensors["s"].read() == 7
        assert file.tensors["s"].shape == ()


def test_views_of_one_storage_are_read_as_they_lie(tmp_path: Path) -> None:
    items = {
        "turned": view(FLOATS, 0, (4, 3), (1, 4)),
        "part": view(FLOATS, 4, (2, 4), (4, 1)),
        "columns": view(FLOATS, 1, (3, 2), (4, 1)),
        "empty": view(FLOATS, 12, (0, 4), (4, 1)),
        "cube": view(FLOATS, 0, (2, 3, 2), (2, 4, 1)),
    }
    with TorchFile(written(tmp_path / "x.bin", state_dict(items))) as file:
        found = file.tensors
        np.testing.assert_array_equal(found["turned"].read(), NUMBERS.T)
        np.testing.assert_array_equal(found["turned"].read(1, 3), NUMBERS.T[1:3])
        np.testing.assert_array_equal(found["part"].read(), NUMBERS[1:])
        np.testing.assert_array_equal(found["columns"].read(2, 3), NUMBERS[2:, 1:3])
        assert found["empty"].read().shape == (0, 4)
        np.testing.assert_array_equal(found["cube"].entry(1).read(), NUMBERS[:, 2:])


class Hostile:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(
    tmp_path: Path, protocol: int, nested: bool, zipped: bool
) -> None:
    touched = tmp_path / "touched"
    held = Hostile(touched)
    content = pickle.dumps(OrderedDict(a=held) if nested else held, protocol)
    pickle.loads(content)
    assert touched.exists()  # so it is hostile
    touched.unlink()
    path = tmp_path / "x.bin"
    if zipped:
        archive(path, content, {})
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02" + name("posix", "system") + b"(" + text("true") + b"tR.", "'posix.system'"),
        (b"\x80\x04" + text("os") + text("system") + b"\x93.", "'os.system'"),
        (b"(" + text("true") + b"iposix\nsystem\n.", "the opcode INST"),
        (b"\x80\x02" + name("torch", "FloatStorage") + b")\x81.", "the opcode NEWOBJ"),
        (b"\x80\x02" + name("torch", "FloatStorage") + b")R.", "calls torch.FloatStorage"),
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),
        (b"\x80\x02]].", "malformed|holds a list"),
        (b"\x80\x02}" + text("a") + number(1) + b"s.", "'a' is a int and no tensor"),
        (b"\x80\x02}" + number(1) + number(1) + b"s.", "malformed"),
        (b"\x80\x02(.", "malformed"),
        (b"\x80\x02R.", "malformed"),
        (b"\x80\x02}", "malformed|no end"),
        (state_dict({"a": view(FLOATS, 1, (3, 4), (4, 1))}), "reaches beyond its storage"),
        (state_dict({"a": view(FLOATS, 0, (3, 4), (5, 1))}), "reaches beyond its storage"),
        (state_dict({"a": view(FLOATS, -1, (3, 4), (4, 1))}), "malformed"),
        (state_dict({"a": view(FLOATS, 0, (3, 4), (4,))}), "malformed"),
        (state_dict({"a": view(FLOATS, 0, (1,) * 65, (0,) * 65)}), "malformed"),
        (state_dict({"a": view(storage("FloatStorage", "1", 12), 0, (3,), (1,))}), "missing or"),
        (state_dict({"a": view(storage("FloatStorage", "0", 13), 0, (3,), (1,))}), "another size"),
        (state_dict({"a": view(storage("QInt8Storage", "0", 12), 0, (3,), (1,))}), "QInt8Storage"),
        (state_dict({"a": view(number(1), 0, (3,), (1,))}), "malformed"),
    ],
)  # fmt: skip
def test_what_no_state_dict_has_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(written(tmp_path / "x.bin", content))


def test_tuples_that_would_take_forever_to_hash_are_no_keys(tmp_path: Path) -> None:
    deep = b")" + b"q\x00h\x00\x86" * 60
    with pytest.raises(CheckpointError, match="malformed"):
        read(written(tmp_path / "x.bin", b"\x80\x02}" + deep + number(1) + b"s."))


def test_archives_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for pickled, more, message in (
        (GOOD, {"byteorder": b"big"}, "not little-endian"),
        (GOOD, {"constants.pkl": b""}, "TorchScript"),
    ):
        archive(path, pickled, {"0": NUMBERS.tobytes()}, **more)
        with pytest.raises(CheckpointError, match=message):
            read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data.pkl", GOOD)
    with pytest.raises(CheckpointError, match="compressed"):
        read(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/other", GOOD)
    with pytest.raises(CheckpointError, match=r"without one data\.pkl"):
        read(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="neither a zip archive nor a pickle"):
        read(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read(tmp_path / "none.bin")


def legacy(content: bytes, *, keys: tuple[str, ...] = ("0",), count: int = 12) -> bytes:
    """As PyTorch wrote before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = (0x1950A86A20F9469CFC6C, 1001, system)
    return (
        b"".join(pickle.dumps(value, 2) for value in head)
        + content + pickle.dumps(list(keys), 2) + count.to_bytes(8, "little") + NUMBERS.tobytes()
    )  # fmt: skip


OLD = state_dict({"a": view(storage("FloatStorage", "0", 12, b"N"), 0, (3, 4), (4, 1))})


def test_a_file_of_an_old_pytorch_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(legacy(OLD))
    np.testing.assert_array_equal(read(tmp_path / "x.bin")["a"], NUMBERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (legacy(OLD)[:-1], "ends inside a storage"),
        (legacy(OLD, count=2**63), "ends inside a storage"),
        (legacy(OLD, count=11), "of another size"),
        (legacy(OLD, keys=("1",)), "one that no tensor has"),
        (legacy(OLD, keys=("0", "0")), "or one twice"),
        (legacy(OLD, keys=()), "missing"),
        (pickle.dumps(3, 2) * 3, "torch.save has not written"),
    ],
)
def test_malformed_files_of_an_old_pytorch_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.bin")


@settings(deadline=None)
@given(st.data())
def test_any_changed_byte_reads_or_is_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "byte.bin"
    old = data.draw(st.booleans())
    if old:
        path.write_bytes(legacy(OLD))
    else:
        written(path, GOOD)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content)[: data.draw(st.integers(0, len(content)))])
    with suppress(CheckpointError):
        read(path)


opcodes = st.one_of(
    st.sampled_from([b"(", b")", b"}", b"]", b"t", b"u", b"s", b"a", b"e", b"R", b"b", b"Q",
                     b"\x85", b"\x86", b"\x88", b"N", b"\x94", b"\x93", b"q\x00", b"h\x00", b"."]),
    st.sampled_from([text("a"), text("storage"), number(3), number(-1), number(0), FLOATS,
                     name("torch", "FloatStorage"), name("collections", "OrderedDict"),
                     name("torch._utils", "_rebuild_tensor_v2"), name("torch", "float32"),
                     name("torch._utils", "_rebuild_tensor_v3"), name("os", "system"),
                     name("torch._utils", "_rebuild_parameter"), view(FLOATS, 0, (2,), (1,))]),
    st.binary(max_size=3),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(opcodes, max_size=12).map(b"".join))
def test_any_opcodes_read_or_are_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    with suppress(CheckpointError):
        read(written(tmp_path_factory.getbasetemp() / "any.bin", content + b"."))


@pytest.mark.parametrize("new", [True, False])
def test_files_that_pytorch_writes_are_read(tmp_path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    matrix = torch.arange(12.0).reshape(3, 4)
    held = torch.nn.Linear(4, 3).state_dict()  # which has metadata
    held |= {
        "matrix": matrix, "turned": matrix.t(), "part": matrix[1:], "same": matrix,
        "parameter": torch.nn.Parameter(torch.ones(2)), "empty": torch.zeros(0, 5),
        "half": torch.ones(2, dtype=torch.float16), "brain": torch.ones(2, dtype=torch.bfloat16),
        "whole": torch.tensor(3), "flag": torch.tensor([True]), "byte": torch.ones(3).byte(),
    }  # fmt: skip
    if new:
        held["eight"] = torch.ones(4).to(torch.float8_e4m3fn)
    path = tmp_path / "pytorch_model.bin"
    torch.save(held, path, _use_new_zipfile_serialization=new)
    with open_tensors(tmp_path) as found:
        assert found.keys() == held.keys()
        for key, tensor in held.items():
            np.testing.assert_array_equal(
                found[key].read().astype(np.float32), tensor.detach().float().numpy(), key
            )
    alone = tmp_path / "alone.pt"
    grown = torch.nn.Embedding(5, 4)(torch.tensor([[3, 1]])).bfloat16()  # with a gradient to come
    torch.save(grown, alone, _use_new_zipfile_serialization=new)
    with TensorFile(alone) as file:
        [tensor] = file.tensors.values()
        np.testing.assert_array_equal(
            tensor.read().astype(np.float32), grown.detach().float().numpy()
        )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_that_pytorch_can_write_is_read(
    tmp_path: Path, protocol: int
) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "x.bin", pickle_protocol=protocol)
    np.testing.assert_array_equal(read(tmp_path / "x.bin")["a"], np.ones((2, 3)))
