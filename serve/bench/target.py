"""The server that is measured: whether anyone answers there, and which model it serves."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from models.errors import IngotError
from serve.bench.http_client import HttpError, Server

_POLL = 0.2  # seconds
_LOADING = 503
_SILENCE = 60.0  # seconds after which one that says nothing is as good as dead


class BenchError(IngotError):
    """A benchmark that could not be run, for no fault of its options."""

    exit_code = 1


class Served(NamedTuple):
    """A model by the name that requests give it, and where the server has it from."""

    name: str
    root: str


async def reach(
    server: Server, headers: Mapping[str, str], name: str | None = None, *, patience: float = 0.0
) -> Served:
    """The model `name`, or the first that the server lists, which may start for `patience` seconds.

    Raises:
        BenchError: nobody answers, or the server lists none and none was named.
    """
    deadline, models = monotonic() + patience, dict[str, str]()
    while not models:
        try:
            models = await _listed(server, headers)
        except (OSError, HttpError, msgspec.MsgspecError, LookupError, TypeError) as error:
            starts = isinstance(error, OSError) or getattr(error, "status", 0) == _LOADING
            if starts and monotonic() < deadline:
                await asyncio.sleep(_POLL)
            elif isinstance(error, OSError):
                raise _dead(server, error) from None
            elif name is None:
                raise _nameless(error) from None
            else:
                break
    name = name or next(iter(models))
    return Served(name, models.get(name, name))


async def _listed(server: Server, headers: Mapping[str, str]) -> dict[str, str]:
    """Each model's root by its name; raises OSError, HttpError, or whatever odd JSON does."""
    try:
        async with asyncio.timeout(_SILENCE):
            answer: Any = await server.fetch("GET", "/v1/models", headers=headers)
    except TimeoutError:
        raise OSError(f"it takes connections and says nothing for {_SILENCE:g} s") from None
    answer = msgspec.json.decode(answer)
    found = {str(each["id"]): str(each.get("root") or each["id"]) for each in answer["data"]}
    if not found:
        raise LookupError("its list of models is empty")
    return found


def _dead(server: Server, error: Exception) -> BenchError:
    return BenchError(
        f"No server answers at {server.host}:{server.port} ({error}); start one with "
        "`ingot serve`, or name another with --base-url, or --host and --port."
    )


def _nameless(error: Exception) -> BenchError:
    return BenchError(
        f"The server does not say which model it serves ({error}); name it with --model, or give "
        "it time to start with --ready-check-timeout-sec."
    )
