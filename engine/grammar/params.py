"""What a request demands of its output: exactly one constraint, and how JSON is written.

Names and meanings are vLLM's. Owns types and sizes; whether a schema, a regex or a grammar can be
compiled is `engine.grammar.source`'s and llguidance's to say.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.plain_values import boolean, sequence, shown, string

MAX_SOURCE_CHARS = 512 * 1024  # of a schema, a regex or a grammar
MAX_CHOICES = 10_000
CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_PARAM = "structured_outputs"
_JSON_ONLY = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")


class StructuredOutputsParams(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One constraint; raises `RequestError` if there are none, two, or one that is malformed.

    `json`: a JSON schema, as an object or as text. `regex`: the whole output matches it. `choice`:
    one of these texts. `grammar`: in Lark or in GBNF (EBNF). `json_object` true: any JSON object.
    `structural_tag`: free text with constrained parts, in vLLM's (`structures` and `triggers`) or
    xgrammar's (`format`) notation.

    JSON is written with at most one space or line break with indentation between its parts, or as
    `whitespace_pattern` (a regex) says; `disable_any_whitespace` allows none.
    Where a schema names properties, others are written only if its `additionalProperties` allows
    them; `disable_additional_properties` forbids them also in schemas that are made of several
    (`allOf` and the like), and in objects of which nothing is named.
    """

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        for name, convert in _CONVERSIONS.items():
            value = getattr(self, name)
            if value is not None:
                msgspec.structs.force_setattr(self, name, convert(name, value))
        if self.json_object is False:
            msgspec.structs.force_setattr(self, "json_object", None)
        self._check_one()
        self._check_choice()
        if self.disable_any_whitespace and self.whitespace_pattern is not None:
            raise RequestError(
                "disable_any_whitespace and whitespace_pattern exclude each other.", _PARAM
            )

    @property
    def constraint(self) -> str:
        """The name of the one field that is set."""
        return next(name for name in CONSTRAINTS if getattr(self, name) is not None)

    def as_format(self) -> dict[str, Any]:
        """The same as a part of a structural tag, so that other parts can go before it."""
        match self.constraint:
            case "regex":
                return {"type": "regex", "pattern": self.regex}
            case "choice":
                texts = [{"type": "const_string", "value": text} for text in self.choice or ()]
                return {"type": "or", "elements": texts}
            case "grammar":
                return {"type": "grammar", "grammar": self.grammar}
            case "structural_tag":
                return {"type": "structural_tag", "structural_tag": self.structural_tag}
        schema = {"type": "object"} if self.json_object else self.json
        options = {name: value for name in _JSON_ONLY if (value := getattr(self, name))}
        return {"type": "json_schema", "json_schema": schema, **options}

    def _check_one(self) -> None:
        given = [name for name in CONSTRAINTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise RequestError(
                f"structured_outputs must have exactly one of {', '.join(CONSTRAINTS)}; "
                f"it has {found}.",
                _PARAM,
            )
        if given[0] not in ("json", "json_object"):
            for name in _JSON_ONLY:
                if getattr(self, name):
                    raise RequestError(f"{name} is for JSON, not for {given[0]}.", _PARAM)

    def _check_choice(self) -> None:
        choice = self.choice
        if choice is None:
            return
        if not 0 < len(choice) <= MAX_CHOICES:
            raise RequestError(
                f"choice must hold 1 to {MAX_CHOICES} texts, got {len(choice)}.", _PARAM
            )
        if sum(map(len, choice)) > MAX_SOURCE_CHARS:
            raise RequestError(
                f"choice may hold at most {MAX_SOURCE_CHARS} characters in all.", _PARAM
            )


def structured_outputs(name: str, value: object) -> StructuredOutputsParams:
    """`value`, or what a mapping with the same names says."""
    if isinstance(value, StructuredOutputsParams):
        return value
    known = StructuredOutputsParams.__struct_fields__
    if isinstance(value, Mapping) and all(key in known for key in value):
        return StructuredOutputsParams(**value)
    if isinstance(value, Mapping):
        unknown = next(key for key in value if key not in known)
        raise RequestError(
            f"{name} has no field {shown(unknown)}; it has {', '.join(known)}.", name
        )
    raise RequestError(f"{name} must be an object, got {shown(value)}.", name)


def _text(name: str, value: object) -> str:
    text = string(name, value)
    if len(text) > MAX_SOURCE_CHARS:
        raise RequestError(
            f"{name} has {len(text)} characters; at most {MAX_SOURCE_CHARS} are possible.", _PARAM
        )
    return text


def _text_or_object(name: str, value: object) -> str | dict[str, Any]:
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, dict):
        return value
    raise RequestError(f"{name} must be an object or its text, got {shown(value)}.", _PARAM)


def _texts(name: str, value: object) -> list[str]:
    return sequence(name, value, string)


_CONVERSIONS: dict[str, Callable[[str, object], object]] = {
    "json": _text_or_object,
    "regex": _text,
    "choice": _texts,
    "grammar": _text,
    "json_object": boolean,
    "structural_tag": _text_or_object,
    "disable_any_whitespace": boolean,
    "disable_additional_properties": boolean,
    "whitespace_pattern": _text,
}
