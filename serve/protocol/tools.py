"""Tools as OpenAI's chat API describes them: what a request offers, and what an answer calls."""

import re
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError

MAX_TOOLS = 1024
_NAME = re.compile(r"[\w.:/\-]{1,256}\Z", re.ASCII)


class _Offered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model is told of, at once: raises RequestError where it is to be later."""

    defer_loading: bool = False

    def __post_init__(self) -> None:
        if self.defer_loading:
            raise RequestError(
                "defer_loading is not served: a model is told of all tools at once.", "tools"
            )


class FunctionDefinition(_Offered, frozen=True):
    """A function; `parameters` is the JSON schema of its arguments. With `strict` calls keep to it
    where the model chooses whether to call, too; those that are demanded always do."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Offered, frozen=True):
    """The only kind of tool that a model can be told of."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    """Which function is to be called."""

    name: str


class NamedToolChoice(
    Struct, tag_field="type", tag="function", frozen=True, forbid_unknown_fields=True
):
    """The model has to call this tool."""

    function: FunctionName


class AllowedTool(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the tools that may be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Struct, frozen=True, forbid_unknown_fields=True):
    """The tools that may be called, and whether one of them has to be."""

    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class AllowedToolChoice(
    Struct, tag_field="type", tag="allowed_tools", frozen=True, forbid_unknown_fields=True
):
    """No tool but these may be called."""

    allowed_tools: AllowedTools

    @property
    def names(self) -> list[str]:
        return [tool.function.name for tool in self.allowed_tools.tools]


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice
AnyToolChoice = ToolChoice | AllowedToolChoice
FunctionChoice = Literal["none", "auto"] | FunctionName  # `function_call`, from before tools


class CalledFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """A call in an earlier turn; `arguments` is JSON text, or the object itself."""

    name: str
    arguments: str | dict[str, Any] = ""


class CalledTool(Struct, frozen=True, forbid_unknown_fields=True):
    """One call of an assistant's earlier turn."""

    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"
    index: int | None = None  # clients that gathered a stream send it back


class FunctionCall(Struct):
    """What the model wants to be called, and with what: JSON text as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Struct):
    """One call of the answer."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class FunctionCallDelta(Struct):
    """A piece of a call: its name at first, then pieces of its arguments."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct):
    """A piece of call number `index` of the answer."""

    index: int
    function: FunctionCallDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


def check_tools(tools: list[Tool] | None, choice: AnyToolChoice | None) -> None:
    """Raise RequestError for tools that cannot be offered, or a choice that is not among them."""
    names = [tool.function.name for tool in tools or ()]
    if tools is not None and not tools:
        raise RequestError("tools must hold at least one tool; leave it out instead.", "tools")
    if len(names) > MAX_TOOLS:
        raise RequestError(f"tools may hold at most {MAX_TOOLS} tools.", "tools")
    for name in names:
        if not _NAME.match(name):
            raise RequestError(
                f"{name[:64]!a} is no name for a tool; use letters, digits and _ - . : /, at "
                "most 256 of them.",
                "tools",
            )
    for function in (tool.function for tool in tools or ()):
        kind = (function.parameters or {}).get("type", "object")
        if kind != "object" and (not isinstance(kind, list) or "object" not in kind):
            raise RequestError(
                f"tools: {function.name}: the parameters of a tool must be of type object.",
                "tools",
            )
    if len(set(names)) < len(names):
        raise RequestError("Two of the tools have the same name.", "tools")
    _check_choice(names, choice)


def _check_choice(names: list[str], choice: AnyToolChoice | None) -> None:
    if choice is None or isinstance(choice, str):
        if choice == "required" and not names:
            raise RequestError("tool_choice required needs tools.", "tool_choice")
        return
    chosen = choice.names if isinstance(choice, AllowedToolChoice) else [choice.function.name]
    if not chosen:
        raise RequestError("tool_choice must allow at least one tool.", "tool_choice")
    for name in chosen:
        if name not in names:
            raise RequestError(
                f"tool_choice names {name[:64]!a}, which is not among the tools.", "tool_choice"
            )
