"""The Jinja sandbox in which chat templates run: the names of transformers, and a budget.

Owns what a template may do and how much of it. Knows nothing of messages or models.

A template comes from the model's folder, the operator, or requests that the operator trusts; it may
be hostile or meet a conversation that makes it explode, and Python cannot interrupt a thread. So
the work is counted where it happens. The parsed template is rewritten: what a loop iterates over
and every list, dict and `~` goes through a counting filter; every call, filter, operator and
output goes through a method of the environment anyway. Three things are bounded:

    steps   loop rounds, calls, filters          `for i in range(10**9)`
    size    of any one value, before it exists   `'a' * 10**9`, `x = [x, x]` forty times
    total   characters and items made            `s = s ~ s`, kept in a list

All of them are counts, so the same template and messages always end the same way. A deadline
stands behind them for work that is slow in one piece.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import BuiltinMethodType
from typing import Any, NoReturn, TypeVar

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 1_000_000
MAX_SIZE = 2**24  # characters, or items with all that is in them
MAX_TOTAL = 2**27
MAX_BITS = 4096
MAX_SECONDS = 10.0
MAX_WIDTH = 65_536  # of padding and the like: 'a'.ljust(n)

_CONTAINER_COST = 128  # a remembered container, in characters
_BUDGET = " budget"  # no name that a template could write
_UNUSED_FILTERS = (  # not needed for chats, and each a way to make much of little
    "batch", "center", "filesizeformat", "format", "pprint", "slice", "sum", "urlize", "wordwrap",
    "xmlattr",
)  # fmt: skip


_WIDE_FORMAT = re.compile(r"\*|\d{4}")  # '%*d', '%9999d'
_Value = TypeVar("_Value")


class TemplateLimitError(TemplateError):
    """A render did more, or made more, than a chat template may."""


class TemplateRefusal(TemplateError):
    """The template itself refuses the conversation: its `raise_exception('...')`."""


class Budget:
    """What one render has used up; raises `TemplateLimitError` when that is too much."""

    def __init__(self) -> None:
        self._steps = 0
        self._total = 0
        self._deadline = time.monotonic() + MAX_SECONDS
        self._sizes: dict[int, tuple[int, object]] = {}  # id -> size; the object keeps its id

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TemplateLimitError(f"it takes more than {MAX_STEPS} steps")
        if time.monotonic() > self._deadline:
            raise TemplateLimitError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def take(self, value: _Value) -> _Value:
        """Count a value that was just made."""
        _admit(self.size(value))
        self._spend(len(value) if isinstance(value, str | list | tuple | dict) else 1)
        return value

    def admit(self, arguments: Iterable[object], growth: int = 0) -> None:
        """Raise for arguments that are too large together, or would with what is made of them."""
        _admit(sum(map(self.size, arguments)) + growth)

    def size(self, value: object) -> int:
        """Characters and items of a value written out; the sandbox keeps containers unchanged."""
        if isinstance(value, str | bytes | range):
            return len(value) + 1
        if isinstance(value, int):
            _admit_bits(value.bit_length())
            return value.bit_length() // 3 + 1
        if not isinstance(value, list | tuple | dict):
            return 1
        if id(value) not in self._sizes:
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            self._spend(_CONTAINER_COST)
            self._sizes[id(value)] = 1 + sum(map(self.size, parts)), value
        return self._sizes[id(value)][0]

    def admit_growth(self, name: str, subject: Any, arguments: list[Any]) -> None:
        """Bound what a method or filter makes of its arguments: `'aa'.replace('a', long)`."""
        widths = [abs(value) for value in arguments if isinstance(value, int)]
        if max(widths, default=0) > MAX_WIDTH:
            raise TemplateLimitError(f"{name} is given a number of more than {MAX_WIDTH}")
        if name in _PLACES:
            widest = max([*widths, *map(self.size, arguments)], default=1)
            self.admit([subject], _PLACES[name](subject, arguments) * widest)

    def _spend(self, characters: int) -> None:
        self._total += characters
        if self._total > MAX_TOTAL:
            raise TemplateLimitError(f"it makes more than {MAX_TOTAL} characters in all")


def _admit(size: int) -> None:
    if size > MAX_SIZE:
        raise TemplateLimitError(f"it makes a value of more than {MAX_SIZE} characters")


_PLACES: Mapping[str, Callable[[Any, list[Any]], int]] = {
    "expandtabs": lambda text, arguments: len(text),
    "indent": lambda text, arguments: str(text).count("\n") + 1,
    "replace": lambda text, arguments: str(text).count(str(arguments[0])) + 1,
    "translate": lambda text, arguments: len(text),
}


def _admit_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateLimitError(f"it makes a number of more than {MAX_BITS} bits")


def _budget(context: Context) -> Budget:
    budget = context.get(_BUDGET)
    if not isinstance(budget, Budget):
        raise TemplateLimitError("a chat template can only be rendered by `render`")
    return budget


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant wrote, for training; renders its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Counting(NodeTransformer):
    """Sends what makes or walks values through the counting filters below."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "concatenated")

    def visit_List(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "sized") if any(node.find_all(nodes.Name)) else node

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.visit_List(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        if node.attr.startswith("__"):
            raise TemplateSyntaxError(f"{node.attr} is out of reach of templates", node.lineno)
        return self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        key = node.arg.value if isinstance(node.arg, nodes.Const) else None
        if isinstance(key, str) and key.startswith("__"):
            raise TemplateSyntaxError(f"{key} is out of reach of templates", node.lineno)
        return self.generic_visit(node)

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError("a chat template cannot load other templates", node.lineno)

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class SandboxedEnvironment(ImmutableSandboxedEnvironment):
    """transformers' environment for chat templates, in which everything is counted."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing is evaluated before there is a budget
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_output,
        )
        original = ImmutableSandboxedEnvironment()
        original.filters["tojson"] = _to_json
        for name in original.filters.keys() - set(_UNUSED_FILTERS):
            self.filters[name] = _counted_filter(original, name)
        for name in _UNUSED_FILTERS:
            del self.filters[name]
        self.filters |= {"counted": _rounds, "concatenated": _concatenated, "sized": _sized}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        del self.globals["lipsum"]

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins the output of a block or macro."""
        parts = list(parts)
        _admit(sum(map(len, parts)))
        return "".join(parts)

    def compiled(self, source: str) -> "SandboxedTemplate":
        """Raises `TemplateSyntaxError` with the line; needs no budget, as nothing runs."""
        return SandboxedTemplate(self, source)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(__context)
        budget.step()
        budget.admit([*args, *kwargs.values()])
        if isinstance(__obj, BuiltinMethodType):
            args = _admit_method(budget, __obj, args)
        elif isinstance(__obj, LoopContext):
            args = tuple(_rounds(__context, value) for value in args)
        return budget.take(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget(context)
        budget.step()
        _admit_operator(budget, operator, left, right)
        return budget.take(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        """Never wraps: `'{:>999999999}'.format(x)` is not offered."""
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map"):
            raise SecurityError("str.format is not available in chat templates; `~` joins texts")
        return None


class SandboxedTemplate:
    """One compiled chat template.

    `variables` are the names that it reads but does not set, `sought` the strings that it looks
    for in texts: "</think>" of `content.split('</think>')`.
    """

    def __init__(self, environment: SandboxedEnvironment, source: str) -> None:
        tree = environment.parse(source)
        self.variables = _settable(tree) - environment.globals.keys()
        self.sought = frozenset(_sought(tree))
        self._template = environment.from_string(_Counting().visit(tree))

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises `jinja2.TemplateError` or whatever Python error the template runs into."""
        budget = Budget()
        context = self._template.new_context({**variables, _BUDGET: budget})
        pieces: list[str] = []
        length = 0
        for piece in self._template.root_render_func(context):
            length += len(piece)
            _admit(length)
            pieces.append(piece)
        return "".join(pieces)


def _settable(tree: nodes.Template) -> frozenset[str]:
    """Names meant to be given: never set by the template, or asked for before they are.

    `{% if enable_thinking is not defined %}{% set enable_thinking = true %}` asks; `content`,
    which is set in one branch and read in another, is the template's own.
    """
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    asked = {
        node.node.name
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if isinstance(node.node, nodes.Name)
        and node.name in ("defined", "undefined", "default", "d")
    }
    return frozenset(meta.find_undeclared_variables(tree) - (own - asked))


def _sought(tree: nodes.Template) -> Iterator[str]:
    """The strings of `'x' in text`, `text.split('x')` and `text | replace('x', '')`."""
    places: list[nodes.Expr] = [
        node.expr
        for node in tree.find_all(nodes.Compare)
        if any(each.op in ("in", "notin") for each in node.ops)
    ]
    places += [one for call in tree.find_all(nodes.Call) for one in call.args]
    places += [one for each in tree.find_all(nodes.Filter) for one in each.args]
    for place in places:
        if isinstance(place, nodes.Const) and isinstance(place.value, str):
            yield place.value


def _admit_method(
    budget: Budget, method: BuiltinMethodType, args: tuple[Any, ...]
) -> tuple[Any, ...]:
    subject, name = method.__self__, method.__name__
    if name == "join" and args:
        items = list(args[0])
        budget.admit(items, len(items) * budget.size(subject))
        return (items,)
    if isinstance(subject, str | bytes | int):
        budget.admit_growth(name, subject, list(args))
    return args


def _admit_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    match operator, left, right:
        case "**", int(), int():
            _admit_bits(left.bit_length() * abs(right))
        case ("*", int() as count, (str() | list() | tuple()) as value) | (
            "*", (str() | list() | tuple()) as value, int() as count,
        ):  # fmt: skip
            _admit(count * budget.size(value))
        case "%", str(), _:
            if _WIDE_FORMAT.search(left):
                raise TemplateLimitError("it formats a text to more than 999 characters")
            _admit(left.count("%") * (1000 + budget.size(right)))


def _counted_filter(original: ImmutableSandboxedEnvironment, name: str) -> Callable[..., Any]:
    @pass_context
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        budget.step()
        arguments = [*args, *kwargs.values()]
        budget.admit([value, *arguments])
        if name == "join":
            value = list(value)
            budget.admit(value, len(value) * sum(map(budget.size, arguments)))
        elif name not in ("default", "d"):
            budget.admit_growth(name, value, arguments)
        result = original.call_filter(name, value, args, kwargs, context, context.eval_ctx)
        return budget.take(result)

    return run


@pass_context
def _rounds(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    budget = _budget(context)
    for item in items:
        budget.step()
        yield item


@pass_context
def _sized(context: Context, value: Any) -> Any:
    return _budget(context).take(value)


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    budget = _budget(context)
    budget.step()
    budget.admit(values)
    return budget.take("".join(map(str, values)))


@pass_context
def _output(context: Context, value: Any) -> str:
    budget = _budget(context)
    budget.admit([value])
    return budget.take(str(value))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja's escaping of HTML, with the arguments that transformers gives it."""
    if indent is not None and not 0 <= indent <= 16:
        raise TemplateLimitError("tojson is given an indent of more than 16")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefusal(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
