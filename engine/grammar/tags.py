"""Structural tags: free text in which parts are constrained, as tool calls are.

    {"structures": [{"begin": "<f=a>", "schema": {...}, "end": "</f>"}], "triggers": ["<f="]}
    {"format": {"type": "triggered_tags", "triggers": ["<f="], "tags": [...]}}

The first is vLLM's older notation, the second xgrammar's; its formats are `_Writer`'s methods.
One is this file's own: `ordered`, of elements that may be left out.
Where a text names special tokens of the tokenizer, the tokens are meant: a model that was trained
to write <|tool|> writes one token, and free text never holds one.

A trigger ends the free text wherever it comes, so free text holds no trigger. `excludes` names
other texts that it does not hold: the letters of a token's name, say; and it is not `unlike` a
regex if it matches that as a whole.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llguidance import regex_to_lark

from engine.errors import RequestError
from engine.grammar.ebnf import is_lark, to_lark
from engine.grammar.schema import read_schema, schema_source
from engine.plain_values import shown

MAX_PARTS = 10_000  # rules; 500 tools of six parameters as Python calls have fewer
MAX_DEPTH = 50
_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
_TEXT = "TEXT: /(.|\\n)*/"
SpecialTokens = Mapping[str, int]
Part = dict[str, Any]


def tags_source(given: object, special_tokens: SpecialTokens) -> str:
    """The llguidance source of a structural tag; raises `RequestError` for what is malformed."""
    writer = _Writer(special_tokens)
    return writer.source(writer.part({"type": "structural_tag", "structural_tag": given}, 0))


def _format_of(tag: Part) -> Part:
    """The format, of the older notation too."""
    if "format" in tag:
        wanted: Part = _typed(tag, "format", dict)
        return wanted
    if "structures" not in tag:
        raise RequestError("a structural tag has `format`, or `structures` and `triggers`")
    structures = _typed(tag, "structures", list)
    tags = [
        {
            "begin": _typed(each, "begin", str),
            "content": {"type": "json_schema", "json_schema": each.get("schema", {})},
            "end": _typed(each, "end", str),
        }
        for each in structures
        if isinstance(each, dict)
    ]
    return {"type": "triggered_tags", "triggers": _typed(tag, "triggers", list), "tags": tags}


class _Writer:
    """Lark's rules for the parts of one structural tag."""

    def __init__(self, special_tokens: SpecialTokens) -> None:
        self._ids = {name: id for name, id in special_tokens.items() if name}
        names = sorted(self._ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names))) if names else None
        self._rules = [_TEXT]
        self._texts: dict[tuple[str, ...], str] = {("",): "TEXT"}
        self._grammars: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}  # of rules and grammars, by what they are
        self._written = 0  # parts, equal ones too
        self._kinds: dict[str, Callable[[Part, int], str]] = {
            "const_string": self._const_string,
            "json_schema": self._json_schema,
            "regex": self._regex,
            "grammar": self._grammar,
            "any_text": self._any_text,
            "structural_tag": self._structural_tag,
            "sequence": self._sequence,
            "or": self._or,
            "ordered": self._ordered,
            "tag": self._tag,
            "triggered_tags": self._triggered_tags,
            "tags_with_separator": self._tags_with_separator,
        }

    def source(self, start: str) -> str:
        lark = "\n".join([f"start: {start}", *self._rules])
        grammars = [{"name": "tags", "lark_grammar": lark}, *self._grammars]
        return json.dumps({"grammars": grammars})

    def part(self, part: object, depth: int) -> str:
        """A part as it may stand within a rule."""
        if not isinstance(part, dict):
            raise RequestError(f"a format must be an object, got {shown(part)}")
        kind = part.get("type", "tag" if "begin" in part else None)
        if not isinstance(kind, str) or kind not in self._kinds:
            known = ", ".join(self._kinds)
            raise RequestError(f"there is no format of type {shown(kind)}; there are {known}")
        self._written += 1
        made = len(self._rules) + len(self._grammars)
        if depth > MAX_DEPTH or made > MAX_PARTS or self._written > 5 * MAX_PARTS:
            raise RequestError("the structural tag has too many parts")
        return self._kinds[kind](part, depth + 1)

    def _const_string(self, part: Part, _: int) -> str:
        return self._literal(_typed(part, "value", str))

    def _json_schema(self, part: Part, _: int) -> str:
        pattern = part.get("whitespace_pattern")
        source = schema_source(
            read_schema(part.get("json_schema", {})),
            closed=bool(part.get("disable_additional_properties")),
            whitespace=not part.get("disable_any_whitespace"),
            pattern=None if pattern is None else _typed(part, "whitespace_pattern", str),
        )
        return self._nested(json.loads(source)["grammars"][0])

    def _regex(self, part: Part, _: int) -> str:
        return self._rule(f"/{regex_to_lark(_typed(part, 'pattern', str), '')}/", terminal=True)

    def _grammar(self, part: Part, _: int) -> str:
        grammar = _typed(part, "grammar", str)
        lark = grammar if is_lark(grammar) else to_lark(grammar)
        return self._nested({"lark_grammar": lark})

    def _any_text(self, part: Part, _: int) -> str:
        return self._text_of(part)

    def _structural_tag(self, part: Part, depth: int) -> str:
        tag = read_schema(part.get("structural_tag"))
        if not isinstance(tag, dict):
            raise RequestError("a structural tag must be an object")
        return self.part(_format_of(tag), depth)

    def _sequence(self, part: Part, depth: int) -> str:
        elements = _typed(part, "elements", list)
        return self._rule(" ".join(self.part(each, depth) for each in elements))

    def _or(self, part: Part, depth: int) -> str:
        elements = _typed(part, "elements", list)
        return self._rule(" | ".join(self.part(each, depth) for each in elements))

    def _ordered(self, part: Part, depth: int) -> str:
        """Elements in order, of which the `optional` may be left out, a separator between two."""
        separator = self._literal(_typed(part, "separator", str))
        elements = _typed(part, "elements", list)
        contents = [self.part(_typed(each, "content", dict), depth) for each in elements]
        needed = [place for place, each in enumerate(elements) if not each.get("optional")]
        rests = ['""']  # what may follow an element, from that of the last on
        for each, content in zip(elements[:0:-1], contents[:0:-1], strict=True):
            one = f"{separator} {content}"
            rests.append(self._rule(f"{f'({one})?' if each.get('optional') else one} {rests[-1]}"))
        last_first = needed[0] if needed else len(elements) - 1
        firsts = [
            f"{content} {rest}"
            for content, rest in zip(contents[: last_first + 1], reversed(rests), strict=False)
        ]
        return self._rule(" | ".join(firsts if needed else [*firsts, '""']))

    def _tag(self, part: Part, depth: int) -> str:
        begin = _typed(part, "begin", str)
        return self._rule(f"{self._literal(begin)} {self._inner(part, depth)}")

    def _inner(self, tag: Part, depth: int) -> str:
        """A tag's content and its end, of which there may be several."""
        end, content = tag.get("end", ""), tag.get("content")
        ends = end if isinstance(end, list) and end else [end]
        if not all(isinstance(each, str) for each in ends):
            raise RequestError("a tag's end must be a text, or a list of texts")
        if isinstance(content, dict) and content.get("type") == "any_text":
            text = self._text_of(content)
            return self._rule(" | ".join(self._text_until(each, text) for each in ends))
        closing = self._rule(" | ".join(self._literal(each) for each in ends))
        return f"{self.part(content, depth)} {closing}"

    def _triggered_tags(self, part: Part, depth: int) -> str:
        tags, triggers, text = self._tags(part), _texts(part, "triggers"), self._text_of(part)
        by_trigger: dict[str, list[str]] = {}
        for tag in tags:
            begin = _typed(tag, "begin", str)
            trigger = min((each for each in triggers if begin.startswith(each)), default="")
            if not trigger:
                raise RequestError(f"no trigger begins the tag {begin[:60]!r}")
            rest = f"{self._literal(begin[len(trigger) :])} {self._inner(tag, depth)}"
            by_trigger.setdefault(trigger, []).append(rest)
        called = self._rule(
            " | ".join(
                f"{self._text_until(trigger, text)} ({' | '.join(rests)})"
                for trigger, rests in by_trigger.items()
            )
        )
        more = f"{called}* {text}"
        if part.get("at_least_one"):
            first = self._rule(" | ".join(self._tag(tag, depth) for tag in tags))
            return first if part.get("stop_after_first") else self._rule(f"{first} {more}")
        return self._rule(f"{called} | {text}" if part.get("stop_after_first") else more)

    def _tags_with_separator(self, part: Part, depth: int) -> str:
        tag = self._rule(" | ".join(self._tag(each, depth) for each in self._tags(part)))
        separator = self._literal(_typed(part, "separator", str))
        whole = tag if part.get("stop_after_first") else f"{tag} ({separator} {tag})*"
        return self._rule(whole if part.get("at_least_one") else f"({whole})?")

    def _tags(self, part: Part) -> list[Part]:
        tags: list[Part] = _typed(part, "tags", list)
        if not tags or not all(isinstance(tag, dict) for tag in tags):
            raise RequestError("tags must be a list of one object or more")
        return tags

    def _text_of(self, part: Part) -> str:
        """Free text, without what the part excludes from it."""
        excluded = tuple(_texts(part, "excludes")) if part.get("excludes") else ()
        unlike = _typed(part, "unlike", str) if "unlike" in part else ""
        if (*excluded, unlike) not in self._texts:
            body = "TEXT"
            if excluded:
                body += f" & ~(TEXT ({' | '.join(map(json.dumps, excluded))}) TEXT)"
            if unlike:
                body += f" & ~/{regex_to_lark(unlike, '')}/"
            self._texts[*excluded, unlike] = self._rule(body, terminal=True)
        return self._texts[*excluded, unlike]

    def _text_until(self, end: str, text: str) -> str:
        """Free text, as short as it can be, and what ends it."""
        pieces = self._pieces(end)
        if not pieces:
            return text
        if isinstance(pieces[0], int):
            return f"{text} {self._literal(end)}"
        if len(pieces) > 1:
            raise RequestError(f"{end[:60]!r} ends a text and has a special token inside")
        return self._rule(f"{text} {json.dumps(end)}", lazy=True)

    def _literal(self, text: str) -> str:
        pieces = [
            f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece)
            for piece in self._pieces(text)
        ]
        return " ".join(pieces) or '""'

    def _pieces(self, text: str) -> Sequence[str | int]:
        """Text and ids of special tokens, in order."""
        pieces: list[str | int] = []
        place = 0
        for match in self._special.finditer(text) if self._special else ():
            pieces += [text[place : match.start()], self._ids[match[0]]]
            place = match.end()
        return [piece for piece in [*pieces, text[place:]] if piece != ""]

    def _rule(self, body: str, *, lazy: bool = False, terminal: bool = False) -> str:
        """The name of a rule; equal ones are one."""
        end = f"{'[lazy]' if lazy else ''}: {body}"
        name = f"{'R' if terminal else 'r'}{len(self._rules)}"
        if self._names.setdefault(name[0] + end, name) == name:
            self._rules.append(name + end)
        return self._names[name[0] + end]

    def _nested(self, grammar: dict[str, Any]) -> str:
        name = self._names.setdefault(json.dumps(grammar), f"g{len(self._grammars)}")
        if name == f"g{len(self._grammars)}":
            self._grammars.append({**grammar, "name": name})
        return f"@{name}"


def _typed(part: object, name: str, kind: type) -> Any:
    value = part.get(name) if isinstance(part, dict) else None
    if not isinstance(value, kind):
        raise RequestError(f"{name} must be {_KINDS[kind]}, got {shown(value)}")
    return value


def _texts(part: Part, name: str) -> list[str]:
    texts = _typed(part, name, list)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"{name} must be a list of one text or more")
    return list(texts)
