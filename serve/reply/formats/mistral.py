"""Mistral: a list of objects, or a name and its arguments from tokenizer version 11 on."""

from collections.abc import Mapping
from secrets import choice
from string import ascii_letters, digits
from typing import Any

from serve.reply.bound import (
    BLANKS,
    CallsOrAnswer,
    Part,
    Wish,
    either,
    in_order,
    json_part,
    tag,
    tagged,
)
from serve.reply.events import Output
from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.json_calls import JsonCalls, Keys
from serve.reply.named_calls import NamedCalls
from serve.reply.reader import Reader, Reading
from serve.reply.reasoning import ReasoningFormat
from serve.reply.reply import Grammar

_MARK = "[TOOL_CALLS]"
_LISTED = JsonCalls(begin=(_MARK,), keys=Keys(id="id"))
_NAMED = NamedCalls(begin=(_MARK,), then=("[CALL_ID]", "[ARGS]"))


class MistralCalls:
    """`[TOOL_CALLS][{...}, {...}]` or `[TOOL_CALLS]name[ARGS]{...}`."""

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        while mark := (yield from reader.until(_MARK, emit=out.content)):
            if (yield from reader.blanks()) in ("[", "{"):
                reader.record()
                found = yield from _LISTED.value(reader, out)
                text = reader.recorded()
                out.content("" if found else mark + text)
            else:
                yield from _NAMED.call(reader, out, mark)

    def chosen(self) -> Grammar:
        """Calls begin with the mark."""
        return CallsOrAnswer(self, (_MARK,))

    def bound(self, wish: Wish) -> Part:
        """Whichever of the two the model writes."""
        listed = in_order(BLANKS, json_part(_LISTED.schema(wish)))
        named = [call["content"] for call in _NAMED.tags(wish)]
        return tagged(wish, [tag(_MARK, either(listed, *named))])


def _nine_characters(name: str, index: int) -> str:
    """Mistral's templates refuse all other ids."""
    return "".join(choice(ascii_letters + digits) for _ in range(9))


FORMATS = (
    ToolFormat(
        ("mistral",), MistralCalls(), marks=((_MARK,),), special=True, make_id=_nine_characters
    ),
    ThinkingFormat(
        ("mistral",), ReasoningFormat("[THINK]", "[/THINK]"), marks=(("[THINK]",),), special=True
    ),
)
