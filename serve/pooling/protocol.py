"""What the routes for vectors take and give: OpenAI's embeddings, Jina's rerank, vLLM's others."""

from typing import Any, ClassVar, Literal

from msgspec import Struct

from engine.errors import RequestError
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.completions import TextOrIds
from serve.protocol.decoding import MAX_PRIORITY, CheckedRequest, Usage, check_names, check_side
from serve.protocol.template_fields import check_template_fields

MAX_INPUTS = 2048  # as OpenAI's
EmbedDtype = Literal["float32", "float16", "bfloat16"]
Endianness = Literal["native", "little", "big"]
_OF_LABELS = ("apply_softmax", "item_first", "temperature")
_OF_PAIRS = (
    "truncate_prompt_tokens", "truncation_side", "use_activation", "max_tokens_per_doc",
    "max_tokens_per_query", "request_id", "rid",
)  # fmt: skip
_OF_MESSAGES = {
    "add_generation_prompt": False,
    "continue_final_message": False,
    "chat_template": None,
    "chat_template_kwargs": None,
}


class AskedVectors(CheckedRequest, frozen=True, kw_only=True):
    """Fields of all of them. None always means "as if it were not sent"."""

    model: str | None = None
    priority: int | None = None

    def check_shared(self) -> None:
        if abs(self.priority or 0) > MAX_PRIORITY:
            raise RequestError(f"priority must be within ±{MAX_PRIORITY}.", "priority")


class PoolingFields(AskedVectors, frozen=True, kw_only=True):
    """Fields of all but Cohere's."""

    truncate_prompt_tokens: int | None = None  # -1: what the model takes
    use_activation: bool | None = None  # vectors of length 1, probabilities instead of scores


class NamedFields(PoolingFields, frozen=True, kw_only=True):
    """Fields of vLLM's own routes."""

    truncation_side: Literal["left", "right"] | None = None  # which end is cut: right, unless said
    request_id: str | None = None  # what the response's id ends with, instead of one made here
    rid: str | None = None  # SGLang's: the response's whole id
    cache_salt: str | None = None  # of whose prompts something is cached; nothing is of vectors
    extra_key: str | None = None  # as in the chat API

    def response_id(self, kind: str, made_here: str) -> str:
        """The id that the response has."""
        return self.rid or f"{kind}-{self.request_id or made_here}"

    def check_shared(self) -> None:
        super().check_shared()
        check_names(self)
        check_side(self.truncation_side, self.truncate_prompt_tokens)


class InputFields(NamedFields, frozen=True, kw_only=True):
    """`input` is a text, ids, or a list of either; `messages` is a conversation instead."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("input",), ("messages",))
    input: str | list[str | int | list[int]] | None = None
    messages: list[ChatMessage] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None  # as in the chat API
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if (self.input is None) == (self.messages is None):
            raise RequestError("Send either input or messages.", "input")
        if self.messages == []:
            raise RequestError("messages must hold at least one message.", "messages")
        if self.messages is None:
            check_template_fields(self, _OF_MESSAGES, "input")
        else:
            self.conversation().check_shared()

    def inputs(self) -> list[TextOrIds]:
        """The inputs, each a text or its ids; raises RequestError for a list of mixed kinds."""
        given = self.input
        if isinstance(given, str):
            return [given]
        if not given or any(type(each) is not type(given[0]) for each in given):
            raise RequestError("input must hold texts only or token ids only.", "input")
        several: list[Any] = [given] if isinstance(given[0], int) else given
        if len(several) > MAX_INPUTS:
            raise RequestError(f"input may hold at most {MAX_INPUTS} inputs.", "input")
        return several

    def conversation(self) -> ChatRequest:
        """`messages` as the chat template is given them; nothing is to follow unless asked for."""
        return ChatRequest(
            messages=self.messages,
            add_generation_prompt=bool(self.add_generation_prompt),
            continue_final_message=self.continue_final_message,
            chat_template=self.chat_template,
            chat_template_kwargs=self.chat_template_kwargs,
        )


class EmbeddingRequest(InputFields, frozen=True, kw_only=True):
    """Texts, ids or a conversation whose vectors are wanted."""

    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] | None = None
    embed_dtype: EmbedDtype | None = None  # of base64 and bytes: float32, if it is left out
    endianness: Endianness | None = None  # likewise: little
    dimensions: int | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if self.encoding_format not in (None, "float"):
            return
        for name, default in (("embed_dtype", "float32"), ("endianness", "little")):
            if getattr(self, name) not in (None, default, "native"):
                raise RequestError(f"{name} needs encoding_format base64 or bytes.", name)


class PoolingRequest(EmbeddingRequest, frozen=True, kw_only=True):
    """Inputs for which whatever the model gives is wanted: vectors, or scores of classes.

    `task` names it, as vLLM does; a model gives but one of these.
    """

    task: str | None = None


class ClassifyRequest(InputFields, frozen=True, kw_only=True):
    """Texts, ids or a conversation whose classes are wanted; `text` is SGLang's `/encode`."""

    needs = (("input",), ("messages",), ("text",), ("input_ids",))
    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None

    @property
    def encodes(self) -> bool:
        """Whether it is SGLang's."""
        return self.text is not None or self.input_ids is not None

    def check_shared(self) -> None:
        if not self.encodes:
            super().check_shared()
            return
        PoolingFields.check_shared(self)
        for name in InputFields.__struct_fields__:
            if (
                name != "rid"
                and name not in PoolingFields.__struct_fields__
                and getattr(self, name) is not None
            ):
                raise RequestError(f"{name} cannot be sent with text or input_ids.", name)


class PairFields(NamedFields, frozen=True, kw_only=True):
    """Fields of pairs of texts."""

    max_tokens_per_query: int | None = None  # what each first text is cut to; 0 is all
    max_tokens_per_doc: int | None = None  # likewise each second one

    def check_shared(self) -> None:
        super().check_shared()
        check_cut("max_tokens_per_query", self.max_tokens_per_query)
        check_cut("max_tokens_per_doc", self.max_tokens_per_doc)


class ScoreRequest(PairFields, frozen=True, kw_only=True):
    """Pairs of texts: one with each of several, or as many with as many.

    Or, of a model that writes text, the labels that may come behind a query and each of some items.
    """

    needs = (
        ("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"),
        ("query", "items", "label_token_ids"),
    )  # fmt: skip
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None
    query: str | list[int] | None = None  # this and what follows as SGLang has it
    items: str | list[str | list[int]] | None = None
    label_token_ids: list[int] | None = None
    apply_softmax: bool | None = None  # the probability among the labels
    item_first: bool | None = None
    temperature: float | None = None  # of the probability among the labels: 1, unless said

    def check_shared(self) -> None:
        super().check_shared()
        given = {name for pair in self.needs for name in pair if getattr(self, name) is not None}
        if not any(given == {*pair} for pair in self.needs):
            raise RequestError(
                "Send text_1 and text_2, or queries and documents, or data_1 and data_2, or query, "
                "items and label_token_ids.",
                "query" if given & {*self.needs[-1]} else "text_1",
            )
        others = _OF_PAIRS if self.query is not None else _OF_LABELS
        for name in others:
            if getattr(self, name):
                raise RequestError(f"{name} has no effect here; leave it out.", name)
        if self.temperature is not None and self.temperature <= 0:
            raise RequestError("temperature must be above 0 here.", "temperature")
        if self.temperature not in (None, 1) and not self.apply_softmax:
            raise RequestError("temperature needs apply_softmax.", "temperature")

    def sides(self) -> tuple[list[str], list[str]]:
        """Both sides, each as several."""
        first = self.text_1 or self.queries or self.data_1 or []
        second = self.text_2 or self.documents or self.data_2 or []
        return ([first] if isinstance(first, str) else first), (
            [second] if isinstance(second, str) else second
        )


class RerankRequest(PairFields, frozen=True, kw_only=True):
    """A query and the documents that are to be put in order."""

    query: str
    documents: list[str]
    top_n: int | None = None  # 0 is all
    return_documents: bool | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if not self.documents:
            raise RequestError("There must be at least one document.", "documents")
        if self.top_n is not None and self.top_n < 0:
            raise RequestError(f"top_n must not be negative, got {self.top_n}.", "top_n")


def check_cut(name: str, most: int | None) -> None:
    """Raise RequestError for a length that no text can have."""
    if (most or 0) < 0:
        raise RequestError(f"{name} must not be negative.", name)


class Embedding(Struct, kw_only=True):
    """One vector: numbers, or the base64 of them."""

    index: int
    object: str = "embedding"
    embedding: list[float] | str


class EmbeddingList(Struct, kw_only=True):
    """The vectors of a request, in its order."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Embedding]
    usage: Usage


class Pooled(Struct, kw_only=True):
    """What the model gave for one input."""

    index: int
    object: str = "pooling"
    data: list[float | list[float]] | str  # a list a token or step, of some models


class PooledList(Struct, kw_only=True):
    """The same of a request."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Pooled]
    usage: Usage


class Classified(Struct, kw_only=True):
    """The likeliest class of one input, and the probability of each."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifiedList(Struct, kw_only=True):
    """The classes of a request's inputs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Classified]
    usage: Usage


class Score(Struct, kw_only=True):
    """How well one pair goes together."""

    index: int
    object: str = "score"
    score: float


class ScoreList(Struct, kw_only=True):
    """The scores of a request's pairs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Score]
    usage: Usage


class Document(Struct):
    """A document as it was sent."""

    text: str


class Ranked(Struct, kw_only=True, omit_defaults=True):
    """A document's place in the request, and how well it answers the query."""

    index: int
    document: Document | None = None
    relevance_score: float


class Ranking(Struct, kw_only=True):
    """Documents, the best first."""

    id: str
    model: str
    usage: Usage
    results: list[Ranked]
