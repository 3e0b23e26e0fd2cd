"""Which of several tools is at fault if no grammar can keep to them, and which parameter of it.

A grammar of all of them is one to the compiler, so each is compiled by itself; that happens for
errors only, and takes `_SECONDS` at most.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from engine.errors import OverloadedError, RequestError
from engine.grammar.params import StructuredOutputsParams
from engine.messages import ModelInfo
from serve.generation.grammars import GrammarCompiler
from serve.protocol.tools import FunctionDefinition

_SECONDS = 2.0
_MOST = 64  # tools, and parameters of one, that are looked at
_Schema = dict[str, Any]


async def blamed(
    error: RequestError,
    functions: Sequence[FunctionDefinition],
    compiler: GrammarCompiler,
    info: ModelInfo,
) -> RequestError:
    """The error with the name of what is at fault; as it is where that is not found."""
    with suppress(TimeoutError, OverloadedError):
        async with asyncio.timeout(_SECONDS):
            for function in functions[:_MOST]:
                found = await _fault(function.parameters or {}, compiler, info)
                if found:
                    where, why = found
                    return RequestError(f"tools: {function.name}{where}: {why}.", "tools")
    return error


async def _fault(
    schema: _Schema, compiler: GrammarCompiler, info: ModelInfo
) -> tuple[str, str] | None:
    """Which property is wrong, as `.name`, or "" for the whole, and what is."""
    whole = await _reason(schema, compiler, info)
    properties = schema.get("properties")
    if whole and isinstance(properties, dict):
        for key, value in islice(properties.items(), _MOST):
            part = {**schema, "properties": {key: value}, "required": []}
            if why := await _reason(part, compiler, info):
                return f".{key[:60]}", why
    return ("", whole) if whole else None


async def _reason(schema: _Schema, compiler: GrammarCompiler, info: ModelInfo) -> str:
    """Why it cannot be compiled; "" if it can."""
    try:
        await compiler.compile(StructuredOutputsParams(json=schema), info)
    except RequestError as error:
        return str(error)
    return ""
