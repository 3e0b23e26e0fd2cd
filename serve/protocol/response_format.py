"""OpenAI's `response_format`, with vLLM's structural tags."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class JsonSchemaFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """A named schema. `strict` changes nothing: every schema is kept to."""

    name: str
    schema: dict[str, Any] | bool | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must be; only the fields of its type count, and others are refused."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | bool | None = None  # without a name, as SGLang and llama.cpp take it
    format: dict[str, Any] | UnsetType = UNSET
    structures: list[dict[str, Any]] | UnsetType = UNSET
    triggers: list[str] | UnsetType = UNSET
