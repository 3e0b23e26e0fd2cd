"""The few pickle opcodes that `torch.save` writes for a state dict, read as data.

    ('storage', torch FloatStorage, '0', 'cpu', 12)  BINPERSID   ─>  Storage
    torch._utils _rebuild_tensor_v2 (storage, 0, (3, 4), (4, 1), ...)  REDUCE   ─>  View
    collections OrderedDict ()  REDUCE, SETITEMS   ─>  dict

Owns what may stand in such a pickle. A pickle is a program for a machine with a stack; here that
machine can make numbers, texts, tuples, lists, dicts, storages and views, and nothing else: names
are compared with those listed below and are never looked up, so nothing is imported or called.
Refuses to know where bytes lie.
Source: the module pickletools, which also splits the bytes into opcodes; torch/_utils.py.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast, runtime_checkable

import ml_dtypes
import numpy as np

MAX_PICKLE_BYTES = 64 * 1024 * 1024  # a state dict takes about 200 for each tensor
MAX_COUNT = 2**48  # of numbers in a storage
MAX_AXES = 64  # NumPy's limit

_BYTES = np.dtype(np.uint8)
_STORAGES: Mapping[str, np.dtype] = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": _BYTES,
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.UntypedStorage": _BYTES,
    "torch.storage.UntypedStorage": _BYTES,
}
_DTYPES: Mapping[str, np.dtype] = {
    "torch.float64": np.dtype("<f8"),
    "torch.float32": np.dtype("<f4"),
    "torch.float16": np.dtype("<f2"),
    "torch.bfloat16": np.dtype(ml_dtypes.bfloat16),
    "torch.float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "torch.float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "torch.float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "torch.int64": np.dtype("<i8"),
    "torch.int32": np.dtype("<i4"),
    "torch.int16": np.dtype("<i2"),
    "torch.int8": np.dtype("i1"),
    "torch.uint64": np.dtype("<u8"),
    "torch.uint32": np.dtype("<u4"),
    "torch.uint16": np.dtype("<u2"),
    "torch.uint8": _BYTES,
    "torch.bool": np.dtype(np.bool_),
}


@runtime_checkable
class ByteStream(Protocol):
    """A file, or one in an archive."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self, limit: int, /) -> bytes: ...


class PickleError(Exception):
    """What is wrong with a pickle, without its file; `instead` says what would work."""

    def __init__(self, what: str, instead: str = "download it again") -> None:
        super().__init__(what)
        self.instead = instead


@dataclass(frozen=True)
class Storage:
    """So many numbers back to back, under a name."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class View:
    """A tensor: where in a storage its numbers lie. Offset and strides count numbers."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Named:
    """A name that is known here, as "torch.FloatStorage" is."""

    name: str


class _Mark:
    """Where on the stack a tuple, or the items of a dict, begin."""


def read_pickle(file: ByteStream) -> Any:
    """The value of the pickle that begins where `file` stands, which is left behind its end.

    Raises PickleError for opcodes and names that no state dict has, and for malformed ones.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", _Bounded(file))):
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise PickleError(f"its pickle is malformed ({type(error).__name__})") from error
    raise PickleError("its pickle has no end")


class _Bounded:
    """A file of which only so much is read."""

    def __init__(self, file: ByteStream) -> None:
        self._file, self._left = file, MAX_PICKLE_BYTES

    def read(self, count: int) -> bytes:
        return self._counted(self._file.read(count) if count <= self._left else b"")

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left))

    def _counted(self, taken: bytes) -> bytes:
        self._left -= len(taken)
        return taken


class _Machine:
    """A stack and a memo."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """The value on top."""
        value = self._stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark is no value")
        return value

    def run(self, name: str, argument: Any) -> None:
        """Obey one opcode."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _ARGUMENTS:
            self._stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in _OTHERS:
            _OTHERS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(
                f"its pickle has the opcode {name}, which no state dict has", _SAFETENSORS
            )

    @property
    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _items(self) -> list[Any]:
        """What lies above the last mark, taken with it."""
        at = len(self._stack) - 1
        while not isinstance(self._stack[at], _Mark):
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _mark(self, _: Any) -> None:
        self._stack.append(_Mark())

    def _empty(self, kind: Callable[[], Any]) -> None:
        self._stack.append(kind())

    def _tuple(self, count: int | None) -> None:
        taken = self._items() if count is None else [self.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(taken))

    def _global(self, argument: str) -> None:
        self._stack.append(_known(argument.replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(_known(f"{_text(module)}.{_text(name)}"))

    def _append(self, values: list[Any]) -> None:
        target = self._top
        if type(target) is not list:
            raise ValueError("no list")
        target += values

    def _set(self, items: list[Any]) -> None:
        target = self._top
        if type(target) is not dict or len(items) % 2:
            raise ValueError("no dict, or a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_text(key)] = value  # tuples of tuples of the same could take forever to hash

    def _persistent(self, _: Any) -> None:
        self._stack.append(_storage(self.pop()))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not _Named or type(arguments) is not tuple:
            raise ValueError("a call of what is no name")
        if function.name not in _CALLS:
            raise PickleError(f"its pickle calls {function.name}", _SAFETENSORS)
        self._stack.append(_CALLS[function.name](arguments))

    def _build(self, _: Any) -> None:
        """Attributes of an OrderedDict, which hold the versions of modules: not needed."""
        state = self.pop()
        if type(state) is not dict or type(self._top) is not dict:
            raise ValueError("attributes of something else")


_SAFETENSORS = (
    "only state dicts are read, for other pickles can run code: write the weights with "
    "safetensors' save_file"
)
_CONSTANTS: Mapping[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()
}  # fmt: skip
_ARGUMENTS = (
    "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
)  # fmt: skip
_OTHERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "EMPTY_DICT": lambda machine, _: machine._empty(dict),
    "EMPTY_LIST": lambda machine, _: machine._empty(list),
    "TUPLE": lambda machine, _: machine._tuple(None),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "APPEND": lambda machine, _: machine._append([machine.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._items()),
    "SETITEM": lambda machine, _: machine._set([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set(machine._items()),
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}


def _known(name: str) -> _Named:
    if name not in _CALLS and name not in _STORAGES and name not in _DTYPES:
        raise PickleError(f"its pickle names {name[:120]!r}, which no state dict has", _SAFETENSORS)
    return _Named(name)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise ValueError("no count")
    return value


def _counts(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > MAX_AXES:
        raise ValueError("no shape")
    return tuple(map(_count, value))


def _storage(value: Any) -> Storage:
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
        raise ValueError("no storage")
    _, kind, key, _, count = value[:5]
    if value[5:] not in ((), (None,)):  # a storage that is a part of another: before PyTorch 0.4
        raise PickleError("its storages are parts of others", _SAFETENSORS)
    if type(kind) is not _Named or kind.name not in _STORAGES:
        raise ValueError("no kind of storage")
    return Storage(_text(key), _STORAGES[kind.name], _count(count))


def _empty_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise ValueError("an OrderedDict of something")
    return {}


def _view(arguments: tuple[Any, ...]) -> View:
    """storage, offset, shape, strides, whether it has a gradient, hooks, metadata."""
    storage, offset, shape, strides = arguments[:4]
    if type(storage) is not Storage:
        raise ValueError("no storage")
    return _checked(storage, storage.dtype, storage.count, offset, shape, strides)


def _typed_view(arguments: tuple[Any, ...]) -> View:
    """The same with a dtype before the metadata, for the storage has bytes."""
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    if type(storage) is not Storage or type(dtype) is not _Named or dtype.name not in _DTYPES:
        raise ValueError("no storage or no dtype")
    numbers = _DTYPES[dtype.name]
    count = storage.count * storage.dtype.itemsize // numbers.itemsize
    return _checked(storage, numbers, count, offset, shape, strides)


def _checked(
    storage: Storage, dtype: np.dtype, count: int, offset: Any, shape: Any, strides: Any
) -> View:
    view = View(storage, dtype, _count(offset), _counts(shape), _counts(strides))
    if len(view.shape) != len(view.strides):
        raise ValueError("a shape without its strides")
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    if 0 not in view.shape and last >= count:
        raise PickleError("a tensor reaches beyond its storage")
    return view


def _parameter(arguments: tuple[Any, ...]) -> View:
    if type(arguments[0]) is not View:
        raise ValueError("a parameter that is no tensor")
    return arguments[0]


_CALLS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_tensor_v3": _typed_view,
    "torch._utils._rebuild_parameter": _parameter,
}
