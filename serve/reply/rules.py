"""How the replies to one request are to be read.

Brings together what the model writes, what the request offers, and what it asks for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import RequestError
from serve.protocol.chat import ChatRequest
from serve.protocol.tools import NamedToolChoice, ToolChoice
from serve.reply.events import MakeId, openai_id
from serve.reply.forced import NamedCall, required_calls
from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.reasoning import Thinking
from serve.reply.reply import Grammar, ReplyParser


@dataclass(frozen=True)
class ReplyRules:
    """`one_call`: only the first call counts. `special`: special tokens must be in the text."""

    reasoning: Thinking | None = None
    calls: Grammar | None = None
    tools: Mapping[str, Any] = field(default_factory=dict)  # parameters by name
    make_id: MakeId = openai_id
    one_call: bool = False
    hide_reasoning: bool = False
    hold_reasoning: bool = False  # until it is whole
    special: bool = False
    named: bool = False  # the request says which tool is called
    on_end: Callable[[bool], None] = lambda _: None  # told whether a reply that might has calls

    @property
    def plain(self) -> bool:
        """Whether a reply is its text and nothing else."""
        return self.reasoning is None and self.calls is None

    def parser(self, prompt: str) -> ReplyParser:
        """For one reply to `prompt`."""
        return ReplyParser(
            prompt=prompt,
            reasoning=self.reasoning,
            calls=self.calls,
            tools=self.tools,
            make_id=self.make_id,
        )


def reply_rules(
    request: ChatRequest,
    tools: ToolFormat | None,
    thinking: ThinkingFormat | None,
    *,
    auto_allowed: bool,
) -> ReplyRules:
    """Raises RequestError where a model whose calls nobody can read is offered tools, or tokens
    would show what is to be left out."""
    if thinking is not None and thinking.reasoning and request.include_reasoning is False:
        _check_hidden(request)
    if request.separate_reasoning is False:
        thinking = None
    choice = request.choice
    takes_calls = thinking is not None and thinking.takes_calls
    if choice == "auto" and not auto_allowed:
        raise RequestError(
            "This server does not let the model choose tools (--no-enable-auto-tool-choice); send "
            "tool_choice required, none, or a tool's name.",
            "tool_choice",
        )
    if choice == "auto" and tools is None and not takes_calls:
        raise RequestError(
            "It is not known how this model writes calls of tools; start the server with "
            "--tool-call-parser, or send tool_choice required.",
            "tools",
        )
    calls = None if takes_calls and choice in ("none", "auto") else _grammar(choice, tools)
    native = choice == "auto" and calls is not None and tools is not None
    return ReplyRules(
        reasoning=thinking.reasoning if thinking else None,
        calls=calls,
        tools={} if choice == "none" else _parameters(request),
        make_id=tools.make_id if tools else openai_id,
        one_call=request.parallel_tool_calls is False,
        hide_reasoning=request.include_reasoning is False,
        hold_reasoning=request.stream_reasoning is False,
        special=bool(thinking and thinking.special) or bool(native and tools and tools.special),
        named=isinstance(choice, NamedToolChoice),
    )


def _check_hidden(request: ChatRequest) -> None:
    for name in ("logprobs", "return_token_ids", "return_output_ids_in_sglext"):
        if getattr(request, name):
            raise RequestError(
                f"{name} shows the reasoning that include_reasoning false leaves out; leave out "
                "one of them.",
                name,
            )
    if request.separate_reasoning is False:
        raise RequestError(
            "separate_reasoning false puts into the content what include_reasoning false leaves "
            "out; leave out one of them.",
            "separate_reasoning",
        )


def _grammar(choice: ToolChoice, tools: ToolFormat | None) -> Grammar | None:
    if choice == "none":
        return None
    if choice == "auto":
        return tools.grammar if tools else None
    return required_calls if choice == "required" else NamedCall(choice.function.name)


def _parameters(request: ChatRequest) -> dict[str, Any]:
    return {tool.function.name: tool.function.parameters or {} for tool in request.tools or ()}
