"""Logits processors that users bring: found by name, compiled into the step, arguments as data.

    --logits-processors my_package.boost:Boost      SamplingParams(extra_args={"boost_token": 42})

Owns the interface, the loading, and how a request's arguments travel: as a column of int32 beside
its sampling options, so that no request causes a compile. Knows no request.

    word 0        1 if the request gives an argument of the first processor
    words 1 ..    its arguments, those of 4 bytes as their bits; then the second processor's
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32
from numpy.typing import NDArray

from engine.errors import ConfigError, RequestError
from engine.plain_values import shown
from models.errors import headline

ENTRY_POINTS = "ingot.logits_processors"
MAX_FIELDS = 1024  # int32 of a row, which travel with each step
_PARAM = "extra_args"
_FLAG = "--logits-processors"
_TYPES = (np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.bool_))
Default = np.generic | NDArray[Any]
Words = NDArray[np.int32]


class LogitsProcessor(ABC):
    """Changes the logits of the requests that ask for it, inside the compiled step.

        class Boost(LogitsProcessor):
            arguments = {"boost_token": np.int32(0), "boost": np.float32(5)}

            def apply(self, logits, boost_token, boost):
                return logits.at[jnp.arange(len(logits)), boost_token].add(boost)

            def check(self, boost_token, boost):
                if not 0 <= boost_token < self.vocab_size:
                    raise ValueError("boost_token is no token of this model")

    A request asks by giving any of its `arguments`; the others have the values that stand there,
    which also say types (int32, float32, bool) and shapes. A list that is shorter than its
    default keeps the default's end. Names must differ from those of other processors.

    Processors run in the order in which they are named, before all that the sampler does: what is
    banned by a grammar or by `allowed_token_ids` stays banned. Log-probabilities are those of the
    model. Rows of requests that did not ask keep their logits bit for bit.
    """

    arguments: ClassVar[Mapping[str, Default]]

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    @abstractmethod
    def apply(self, logits: Array, **arguments: Array) -> Array:
        """New logits float32[B, V] from `logits` float32[B, V] and one value a row, [B, ...].

        Traced once, for each program: a function of its arguments alone, in jnp.
        """

    def check(self, **arguments: Any) -> None:
        """Raise ValueError, with a sentence, for arguments of a request that make no sense."""
        return


class LogitsProcessors:
    """Those of one engine; false if there are none."""

    def __init__(self, processors: Sequence[LogitsProcessor]) -> None:
        self._processors = tuple(processors)
        self._owners: dict[str, LogitsProcessor] = {}
        for processor in processors:
            for name in processor.arguments:
                if name in self._owners:
                    raise ConfigError(f"{_FLAG}: two processors have an argument {name!r}.")
                self._owners[name] = processor
        self.num_fields = sum(map(_size, processors))
        if self.num_fields > MAX_FIELDS:
            raise ConfigError(
                f"{_FLAG}: their arguments are {self.num_fields} numbers a request, and at most "
                f"{MAX_FIELDS} can travel with each step; use fewer or shorter ones."
            )

    def __bool__(self) -> bool:
        return bool(self._processors)

    def column(self, given: Mapping[str, Any] | None) -> Words:
        """A request's arguments, `int32[num_fields]`; raises RequestError naming what is wrong."""
        given = given or {}
        for name in given:
            if name not in self._owners:
                known = ", ".join(self._owners) or "nothing, for this server has none"
                raise RequestError(
                    f"{_PARAM} holds {shown(name)}, which no logits processor takes; they take "
                    f"{known}.",
                    _PARAM,
                )
        words: list[Words] = [np.zeros(0, np.int32)]
        for processor in self._processors:
            used = any(name in given for name in processor.arguments)
            words.append(np.array([used], np.int32))
            words += _packed(processor, given if used else {}, checked=used)
        return np.concatenate(words)

    def apply(
        self, logits: Float32[Array, "B V"], fields: Int32[Array, "X B"]
    ) -> Float32[Array, "B V"]:
        """Each processor on the rows that ask for it; one that no row asks for is skipped."""
        start = 0
        for processor in self._processors:
            mine = fields[start : start + _size(processor)]
            start += _size(processor)
            uses = mine[0] != 0

            def changed(
                x: Array, mine: Array, processor: LogitsProcessor = processor, uses: Array = uses
            ) -> Array:
                new = processor.apply(x, **_unpacked(processor, mine))
                return jnp.where(uses[:, None], new, x)

            logits = lax.cond(jnp.any(uses), changed, lambda x, _: x, logits, mine)
        return logits


def load_processors(names: Sequence[str], vocab_size: int) -> LogitsProcessors:
    """The processors of these names, "module:Class" or entry points of the group
    `ingot.logits_processors`; raises ConfigError for what cannot be used."""
    found = []
    for name in names:
        kind = _find(name)
        if not (isinstance(kind, type) and issubclass(kind, LogitsProcessor)):
            raise ConfigError(f"{_FLAG} {name!r} is no subclass of engine.LogitsProcessor.")
        try:
            processor = kind(vocab_size)
            _check_arguments(name, processor)
            _check_result(name, processor)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{_FLAG} {name!r} fails: {headline(error)}") from error
        found.append(processor)
    return LogitsProcessors(found)


def _find(name: str) -> object:
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            known = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
            if name not in known:
                raise ConfigError(
                    f"{_FLAG} {name!r} is neither module:Class nor an entry point of the group "
                    f"{ENTRY_POINTS}; those are {', '.join(sorted(known)) or 'none'}."
                )
            return known[name].load()
        return getattr(import_module(module), attribute)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{_FLAG} {name!r} cannot be imported ({headline(error)}); a module's folder must be "
            "installed, or named in PYTHONPATH."
        ) from error


def _check_arguments(name: str, processor: LogitsProcessor) -> None:
    if not processor.arguments:
        raise ConfigError(f"{_FLAG} {name!r} has no arguments, so that no request could ask for it")
    for each, default in processor.arguments.items():
        if np.asarray(default).dtype not in _TYPES or not isinstance(
            default, np.generic | np.ndarray
        ):
            raise ConfigError(
                f"{_FLAG} {name!r}: the default of {each!r} must be of NumPy's int32, float32 or "
                "bool."
            )


def _check_result(name: str, processor: LogitsProcessor) -> None:
    """Trace it, for two rows."""
    logits = jax.ShapeDtypeStruct((2, processor.vocab_size), np.float32)
    fields = jax.ShapeDtypeStruct((_size(processor), 2), np.int32)
    made = jax.eval_shape(
        lambda x, f: processor.apply(x, **_unpacked(processor, f)), logits, fields
    )
    if getattr(made, "shape", None) != logits.shape or made.dtype != logits.dtype:
        raise ConfigError(
            f"{_FLAG} {name!r} gives {made} for logits that are float32[2,{processor.vocab_size}]; "
            "it must keep shape and type."
        )


def _size(processor: LogitsProcessor) -> int:
    """Words of one request."""
    return 1 + sum(np.asarray(default).size for default in processor.arguments.values())


def _packed(processor: LogitsProcessor, given: Mapping[str, Any], *, checked: bool) -> list[Words]:
    values = {
        name: _value(name, given[name], default) if name in given else np.asarray(default)
        for name, default in processor.arguments.items()
    }
    if checked:
        try:
            processor.check(**values)
        except ValueError as error:
            raise RequestError(f"{_PARAM} cannot be used: {error}.", _PARAM) from None
    return [_words(value).reshape(-1) for value in values.values()]


def _value(name: str, given: Any, default: Default) -> NDArray[Any]:
    """`given` in the type and shape of `default`."""
    whole = np.array(default)
    values = np.array(given if isinstance(given, list) else [given])
    fits = isinstance(given, list) == (whole.ndim > 0) and values.size <= whole.size
    if not fits or whole.ndim > 1 or not _holds(values, whole.dtype):
        kind = (
            f"{whole.dtype}" if whole.ndim == 0 else f"a list of at most {whole.size} {whole.dtype}"
        )
        raise RequestError(f"{_PARAM}.{name} must be {kind}, got {shown(given)}.", _PARAM)
    whole.reshape(-1)[: values.size] = values
    return whole


def _holds(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` has all of `values`: an integer is a float, and nothing else is another."""
    if values.size == 0:
        return True
    if dtype == np.bool_ or values.dtype == np.bool_:
        return dtype == values.dtype
    if dtype == np.int32:
        low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
        return values.dtype.kind == "i" and bool(np.all((low <= values) & (values <= high)))
    return values.dtype.kind in "if" and bool(np.all(np.abs(values) <= np.finfo(np.float32).max))


def _words(value: NDArray[Any]) -> Words:
    return value.astype(np.int32) if value.dtype == np.bool_ else value.view(np.int32)


def _unpacked(processor: LogitsProcessor, fields: Int32[Array, "X B"]) -> dict[str, Array]:
    """The arguments, [B, ...]."""
    found, start = {}, 1
    for name, default in processor.arguments.items():
        like = np.asarray(default)
        words = fields[start : start + like.size].T.reshape(-1, *like.shape)
        start += like.size
        if like.dtype == np.bool_:
            found[name] = words != 0
        else:
            found[name] = lax.bitcast_convert_type(words, like.dtype)
    return found
