"""What Cohere's `/v2/embed` takes and gives, as vLLM serves it.

    {"texts": ["..."], "input_type": "query", "embedding_types": ["float", "ubinary"]}
    {"embeddings": {"float": [[...]], "ubinary": [[...]]}, "texts": ["..."], "meta": {...}}

Cohere's int8 and uint8 are of ranges that only Cohere knows of its own models; they are refused.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from serve.pooling.protocol import MAX_INPUTS, AskedVectors
from serve.protocol.chat import TextPart

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "search_query": ("query",),
    "search_document": ("document", "passage"),
}  # Cohere's names of what sentence-transformers calls otherwise
EmbeddingType = Literal["float", "binary", "ubinary", "base64"]


class CohereInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The parts of one input."""

    content: list[TextPart]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)


class CohereEmbedRequest(AskedVectors, frozen=True, kw_only=True):
    """`texts`, or `inputs` of several parts, whose vectors are wanted."""

    needs = (("texts",), ("inputs",))
    texts: list[str] | None = None
    inputs: list[CohereInput] | None = None
    input_type: str | None = None  # one of the kinds of text that the model tells apart
    embedding_types: list[EmbeddingType] | None = None
    output_dimension: int | None = None
    max_tokens: int | None = None  # of each input
    truncate: Literal["NONE", "START", "END"] | None = None  # which end is cut: END, unless said

    def check_shared(self) -> None:
        super().check_shared()
        if (self.texts is None) == (self.inputs is None):
            raise RequestError("Send either texts or inputs.", "texts")
        name = "texts" if self.inputs is None else "inputs"
        if not 1 <= len(self.texts or self.inputs or ()) <= MAX_INPUTS:
            raise RequestError(f"{name} must hold 1 to {MAX_INPUTS} inputs.", name)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise RequestError(
                f"max_tokens must be at least 1, got {str(self.max_tokens)[:40]}.", "max_tokens"
            )

    @property
    def types(self) -> set[EmbeddingType]:
        return set(self.embedding_types or ["float"])

    def prefix(self, kinds: Mapping[str, str]) -> str:
        """What goes before each text, of a model that tells `kinds` apart; raises RequestError."""
        if self.input_type is None:
            return ""
        for name in (self.input_type, *_ALIASES.get(self.input_type, ())):
            if name in kinds:
                return kinds[name]
        known = f"tells {', '.join(sorted(kinds))} apart" if kinds else "tells none apart"
        raise RequestError(
            f"input_type {self.input_type[:40]!a} is no kind of text of this model, which {known}"
            f"{'' if kinds else '; leave it out'}.",
            "input_type",
        )


class TypedEmbeddings(Struct, kw_only=True):
    """The vectors, once in each type that was asked for; 8 signs a number where they are binary,
    those of `binary` 128 less than those of `ubinary`."""

    float_: list[list[float]] | UnsetType = msgspec.field(default=UNSET, name="float")
    binary: list[list[int]] | UnsetType = UNSET
    ubinary: list[list[int]] | UnsetType = UNSET
    base64: list[str] | UnsetType = UNSET  # of little-endian float32


class ApiVersion(Struct):
    """Of Cohere's API."""

    version: str = "2"


class InputTokens(Struct):
    """How many tokens were read."""

    input_tokens: int


class CohereMeta(Struct):
    """The count, under both names that clients look at."""

    tokens: InputTokens
    billed_units: InputTokens
    api_version: ApiVersion = msgspec.field(default_factory=ApiVersion)


class CohereEmbeddings(Struct, kw_only=True):
    """The vectors of a request, in its order."""

    id: str
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    embeddings: TypedEmbeddings
    texts: list[str] | UnsetType = UNSET
    meta: CohereMeta
