"""GET /v1/responses/{id}/input_items: what a response was made of, a page at a time.

Items have ids, their own or one made here, for a page begins behind the one that is named.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from starlette.datastructures import QueryParams

from engine.errors import NotFoundError, RequestError
from serve.responses.protocol import (
    AnswerPart,
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    InputItemList,
    MessageItem,
    ReasoningItem,
    TextPart,
    check_included,
)

MAX_LIMIT = 100
QUERY = {"after": "string", "limit": "integer", "order": "string", "include[]": "array"}
_USUAL_LIMIT = 20
_PREFIXES: Mapping[type, str] = {
    MessageItem: "msg_",
    FunctionCallItem: "fc_",
    FunctionOutputItem: "fco_",
    ReasoningItem: "rs_",
}


def named(items: Iterable[InputItem], before: Iterable[InputItem]) -> list[InputItem]:
    """`items` with ids that none of them, and none `before` them, has twice."""
    taken = {item.id for item in before}
    found: list[InputItem] = []
    for item in items:
        if not item.id or item.id in taken:
            item = msgspec.structs.replace(item, id=_PREFIXES[type(item)] + uuid4().hex)
        taken.add(item.id)
        found.append(item)
    return found


def page(items: Sequence[InputItem], query: QueryParams) -> InputItemList:
    """Those that `query` asks for, as OpenAI's API describes it; raises RequestError."""
    for name in query:
        if name not in QUERY and name != "include":
            raise RequestError(f"{name[:60]!a} is no parameter of this path.", name[:60])
    check_included([*query.getlist("include"), *query.getlist("include[]")])
    ordered = _ordered(items, query.get("order", "desc"))
    rest = _behind(ordered, query.get("after"))
    limit = _limit(query.get("limit", str(_USUAL_LIMIT)))
    shown = [_shown(item) for item in rest[:limit]]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return InputItemList(shown, first, last, len(rest) > limit)


def _ordered(items: Sequence[InputItem], order: str) -> Sequence[InputItem]:
    if order not in ("asc", "desc"):
        raise RequestError(f"order must be 'asc' or 'desc', got {order[:40]!a}.", "order")
    return items if order == "asc" else items[::-1]


def _behind(items: Sequence[InputItem], after: str | None) -> Sequence[InputItem]:
    if after is None:
        return items
    for place, item in enumerate(items):
        if item.id == after:
            return items[place + 1 :]
    raise NotFoundError(f"This response has no input item {after[:80]!a}.", "after")


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestError(f"limit must be between 1 and {MAX_LIMIT}, got {text[:40]!a}.", "limit")
    return limit


def _shown(item: InputItem) -> dict[str, Any]:
    """As items are answered: with a status, and a text as the part that it is short for."""
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        kind = AnswerPart if item.role == "assistant" else TextPart
        item = msgspec.structs.replace(item, content=[kind(text=item.content)])
    built: dict[str, Any] = msgspec.to_builtins(item)
    told = {name: value for name, value in built.items() if value is not None}
    return {"status": "completed", **told}
