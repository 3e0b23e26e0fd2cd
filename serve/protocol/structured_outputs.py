"""Which fields of a request say what its output must satisfy, under all the names clients use.

    response_format                                             OpenAI
    structured_outputs {json, regex, choice, grammar, ...}      vLLM
    guided_json, guided_regex, guided_choice, guided_grammar    vLLM before 0.12
    json_schema, regex, ebnf                                    SGLang

At most one of them may be set. What they turn into is `StructuredOutputsParams`; that is also
where other parts of the server that want constrained output (tool calls) begin.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from engine.errors import RequestError
from engine.grammar.params import StructuredOutputsParams, structured_outputs
from engine.messages import ModelInfo
from serve.generation.grammars import GrammarCompiler
from serve.protocol.decoding import GenerationRequest
from serve.protocol.response_format import ResponseFormat
from serve.settings import StructuredOutputsConfig

Options = dict[str, Any]


class Constraint(NamedTuple):
    """What an output must satisfy, and the field of the request that says so."""

    params: StructuredOutputsParams
    field: str

    def in_answer(self, wrap: Callable[[Options], Options]) -> "Constraint":
        """The same for the part of a reply that `wrap` puts it into."""
        part = self.params.as_format()
        whole = wrap(part)
        if whole is part:
            return self
        return Constraint(StructuredOutputsParams(structural_tag={"format": whole}), self.field)

    def written(self, config: StructuredOutputsConfig) -> "Constraint":
        """The same with what the server says of all JSON."""
        params = self.params
        if params.constraint not in ("json", "json_object"):
            return self
        tight = config.disable_any_whitespace and params.whitespace_pattern is None
        changes = {
            "disable_any_whitespace": params.disable_any_whitespace or tight,
            "disable_additional_properties": params.disable_additional_properties
            or config.disable_additional_properties,
        }
        return self._replace(params=msgspec.structs.replace(params, **changes))

    async def compile(self, compiler: GrammarCompiler, info: ModelInfo) -> str:
        """What the engine is to follow; raises RequestError naming the field."""
        try:
            return await compiler.compile(self.params, info)
        except RequestError as error:
            raise RequestError(f"{self.field}: {error}.", self.field) from None


def constraint_of(request: GenerationRequest) -> Constraint | None:
    """What the request demands, if it does; raises RequestError naming the field at fault."""
    found = {field: options for field, options in _given(request).items() if options is not None}
    if len(found) > 1:
        first, second = list(found)[:2]
        raise RequestError(f"{first} and {second} exclude each other; send one.", second)
    for field, options in found.items():
        try:
            return Constraint(structured_outputs(field, options), field)
        except RequestError as error:
            raise RequestError(str(error), field) from None
    return None


def _given(request: GenerationRequest) -> dict[str, Options | None]:
    """Options by the field that they come from."""
    white = request.guided_whitespace_pattern
    if white is not None and request.guided_json is None:
        raise RequestError(
            "guided_whitespace_pattern needs guided_json.", "guided_whitespace_pattern"
        )
    space: Options = {} if white is None else {"whitespace_pattern": white}
    return {
        "response_format": _of_response_format(request.response_format),
        "structured_outputs": request.structured_outputs,
        "guided_json": _one("json", request.guided_json, space),
        "guided_regex": _one("regex", request.guided_regex),
        "guided_choice": _one("choice", request.guided_choice),
        "guided_grammar": _one("grammar", request.guided_grammar),
        "json_schema": _one("json", request.json_schema),
        "regex": _one("regex", request.regex),
        "ebnf": _one("grammar", request.ebnf),
    }


def _one(name: str, value: object, others: Options | None = None) -> Options | None:
    return None if value is None else {name: value, **(others or {})}


def _of_response_format(wanted: ResponseFormat | None) -> Options | None:
    if wanted is None:
        return None
    parts = {name: getattr(wanted, name) for name in ("format", "structures", "triggers")}
    tag = {name: value for name, value in parts.items() if value is not UNSET}
    _check_parts(wanted, bool(tag))
    match wanted.type:
        case "text":
            return None
        case "structural_tag":
            return {"structural_tag": tag}
    schema = wanted.json_schema.schema if wanted.json_schema else wanted.schema
    if schema is None and wanted.type == "json_object":
        return {"json_object": True}
    if schema is None:
        raise RequestError("response_format.json_schema needs a schema.", "response_format")
    return {"json": {} if schema is True else schema}


def _check_parts(wanted: ResponseFormat, has_tag: bool) -> None:
    """Parts of another type than the one that is named would be ignored."""
    named, kind = wanted.json_schema is not None, wanted.type
    others = {
        "json_schema": named and kind != "json_schema",
        "schema": wanted.schema is not None and (named or not kind.startswith("json")),
        "format or structures": has_tag and kind != "structural_tag",
    }
    for other, is_there in others.items():
        if is_there:
            raise RequestError(
                f"response_format has type {kind} and {other}; they do not go together.",
                "response_format",
            )
