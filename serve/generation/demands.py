"""What a whole reply must be, from what a request says of its answer and of its tools.

    response_format, structured_outputs, ...   the answer
    tool_choice required, or a tool's name     calls, and nothing else
    tool_choice auto, strict tools             text, in which calls keep to their schemas
    tool_choice auto, and one of the first     calls, or the answer

Reasoning before it stays free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.errors import RequestError
from engine.grammar.params import StructuredOutputsParams
from serve.model import ServedModel
from serve.protocol.chat import ChatRequest
from serve.protocol.structured_outputs import Constraint, constraint_of
from serve.reply.after_reasoning import after_reasoning
from serve.reply.bound import BindsCalls, Part, Wish
from serve.reply.forced import forced_schema
from serve.reply.harmony import Harmony
from serve.reply.reasoning import ReasoningFormat, Thinking
from serve.reply.reply import Grammar
from serve.reply.rules import ReplyRules
from serve.settings import StructuredOutputsConfig

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Demand:
    """`constraint` is on what follows `reasoning`; `calls` reads it, where that is not as usual."""

    constraint: Constraint
    reasoning: Thinking | None = None
    calls: Grammar | None = None

    def of_reply(self, prompt: str) -> Constraint:
        """The constraint on the whole reply to `prompt`."""
        if self.reasoning is None:
            return self.constraint
        return self.constraint.in_answer(partial(after_reasoning, self.reasoning, prompt))

    def read_by(self, rules: ReplyRules) -> ReplyRules:
        """How the reply is read that keeps to it."""
        return rules if self.calls is None else replace(rules, calls=self.calls)


def demand_of(
    request: ChatRequest, model: ServedModel, rules: ReplyRules, config: StructuredOutputsConfig
) -> Demand | None:
    """With what the server was started with. Raises RequestError for what cannot be demanded
    together, or not of this model."""
    wanted = constraint_of(request)
    if wanted is not None:
        wanted = wanted.written(config)
    reasoning = model.thinking.reasoning if model.thinking else None
    if request.choice == "auto":
        return _chosen(request, model, rules, wanted, reasoning)
    tools, one_call = request.tools or (), request.parallel_tool_calls is False
    schema = forced_schema(tools, request.choice, one_call=one_call)
    if schema is None:
        return None if wanted is None else Demand(wanted, reasoning)
    if wanted is not None and wanted.field != "response_format":  # of content, and there is none
        raise RequestError(
            f"{wanted.field} says what the reply is, and tool_choice that it is a call; send one "
            "of them.",
            wanted.field,
        )
    forced = Constraint(StructuredOutputsParams(json=schema), "tools")
    return Demand(forced.written(config), reasoning)


def _chosen(
    request: ChatRequest,
    model: ServedModel,
    rules: ReplyRules,
    wanted: Constraint | None,
    reasoning: Thinking | None,
) -> Demand | None:
    """Where the model chooses whether to call."""
    strict = any(tool.function.strict for tool in request.tools or ())
    if wanted is None:
        return _strict(request, model, rules) if strict else None
    kind = wanted.params.constraint
    if kind == "structural_tag" and not strict:  # it says how calls are written
        return Demand(wanted, reasoning)
    if kind in ("structural_tag", "regex", "grammar"):
        raise RequestError(
            f"{wanted.field} says what the whole reply is, so no call can be bound beside it; "
            + ("leave out strict." if kind == "structural_tag" else "send tool_choice none."),
            wanted.field,
        )
    binds = _binds(model, wanted.field, f"{wanted.field} can be kept to beside calls")
    part = binds.bound(
        Wish(
            _schemas(request),
            answer=wanted.params.as_format(),
            one_call=request.parallel_tool_calls is False,
        )
    )
    reads = None if rules.calls is None else binds.chosen()
    return Demand(_tagged(part, wanted.field), _before(reasoning), reads)


def _strict(request: ChatRequest, model: ServedModel, rules: ReplyRules) -> Demand:
    binds = _binds(model, "tools", "a strict tool's schema can be kept to")
    reasoning, wish = _before(rules.reasoning), Wish(_schemas(request))
    if isinstance(reasoning, ReasoningFormat):
        wish = replace(wish, marks=reasoning.answer, excludes=(reasoning.begin,))
    return Demand(_tagged(binds.bound(wish), "tools"), reasoning)


def _binds(model: ServedModel, field: str, what: str) -> BindsCalls:
    """The format of the model's calls; raises RequestError if no grammar describes it."""
    grammar: object = model.tools.grammar if model.tools else None
    if grammar is None and model.thinking and model.thinking.takes_calls:
        grammar = model.thinking.reasoning
    if isinstance(grammar, BindsCalls):
        return grammar
    name = model.tools.names[0] if model.tools else "none"
    raise RequestError(
        f"It is not known that {what} while the model chooses: no grammar describes how it calls "
        f"tools (--tool-call-parser {name}). Send tool_choice required or none.",
        field,
    )


def _before(reasoning: Thinking | None) -> Thinking | None:
    """What goes before a reply that was bound as a whole: the format that reads calls as well has
    its reasoning in it."""
    return None if isinstance(reasoning, Harmony) else reasoning


def _schemas(request: ChatRequest) -> Mapping[str, Any]:
    """Of the arguments of each tool; those of one that is not strict are any object."""
    functions = [tool.function for tool in request.tools or ()]
    return {f.name: (f.parameters if f.strict else None) or _ANY_OBJECT for f in functions}


def _tagged(part: Part, field: str) -> Constraint:
    return Constraint(StructuredOutputsParams(structural_tag={"format": part}), field)
