"""What is to be known of a format besides its grammar."""

from dataclasses import dataclass

from serve.reply.events import MakeId, openai_id
from serve.reply.reasoning import Thinking
from serve.reply.reply import Grammar


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes the tools that it calls.

    `marks` are texts that a chat template has if it speaks this format, all of them. `special`:
    marks are special tokens, which have to be kept in the text.
    """

    names: tuple[str, ...]  # of --tool-call-parser
    grammar: Grammar
    marks: tuple[tuple[str, ...], ...]
    special: bool = False
    make_id: MakeId = openai_id


@dataclass(frozen=True)
class ThinkingFormat:
    """How a family of models writes its reasoning; the same for `--reasoning-parser`.

    `takes_calls`: it reads calls too, and no other grammar may.
    """

    names: tuple[str, ...]
    reasoning: Thinking
    marks: tuple[tuple[str, ...], ...] = ()
    special: bool = False
    takes_calls: bool = False
