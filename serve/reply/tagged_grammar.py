"""Calls between tags as a grammar: parameter by parameter, each as its schema says.

A value that can only be a text is any text up to its tag; what is no text is JSON. So a text has no
JSON around it that could keep it to a pattern or a length: a strict tool that asks for that is
refused by name, and so is a value of which its reader could not tell whether it is a text.
"""

import re
from collections.abc import Mapping
from typing import Any

from serve.reply.bound import (
    BLANKS,
    NOTHING,
    Part,
    const,
    either,
    in_order,
    json_part,
    tag,
    text_until,
)
from serve.reply.parameters import TOLD, check_keys, parameters_of, refused
from serve.reply.tags import Tags
from serve.reply.values import properties_of, types_of

_KEY = re.compile(r"[\w.$\-]{1,128}\Z")
_NEWLINE: Part = {"type": "regex", "pattern": r"\n?"}
# texts that are read as neither a text nor null where there may be either
_NO_TEXT = (
    r"[\s\x1c-\x1f]*([\[{](.|\n)*|-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|"
    r"true|false|True|False|NaN|-?Infinity)[\s\x1c-\x1f]*"
)


def tagged_call(tags: Tags, name: str, schema: Mapping[str, Any]) -> Part:
    """What follows the tag that begins a call; raises RequestError for what cannot be kept to."""
    head = const(name if tags.named_stays else name + tags.named[0])
    return in_order(head, BLANKS, *_parameters(tags, name, schema), const(tags.end))


def _parameters(tags: Tags, name: str, schema: Mapping[str, Any]) -> list[Part]:
    parameters = parameters_of(name, schema)
    if parameters.others not in (True, {}, False):
        raise refused(name, "additionalProperties cannot be kept to")
    if parameters.others is not False:
        return [_any_parameters(tags)]
    known = properties_of({name: schema}, name)
    parts = []
    for key, each in known.items():
        if not _KEY.match(key):
            raise refused(name, f"the property {key[:60]!r} cannot be written in a tag")
        part = in_order(_value(tags, f"{name}.{key}", key, each, schema), BLANKS)
        parts.append(part if key in parameters.required else either(part, NOTHING))
    return parts


def _any_parameters(tags: Tags) -> Part:
    """Of a tool that says nothing of them."""
    key = {"type": "regex", "pattern": r"[A-Za-z0-9_.$-]{1,64}"}
    kind = const(tags.keyed + (' string="true">' if tags.typed else ""))
    each = in_order(const(tags.parameter), key, kind, *_before(tags), _free(tags), BLANKS)
    return {"type": "tags_with_separator", "tags": [tag("", each)], "separator": ""}


def _value(tags: Tags, where: str, key: str, schema: Any, root: Mapping[str, Any]) -> Part:
    """A parameter's tags and what stands between them."""
    types = types_of(schema)
    is_text, may_be_null = types == {"string"}, types == {"string", "null"}
    if schema in (True, {}):
        is_text, schema = True, {}
    if (not types and not is_text) or ("string" in types and not (is_text or may_be_null)):
        raise refused(where, "its reader cannot tell whether its value is a text")
    written = _json(tags, schema, root)
    if is_text:
        written = _text(tags, where, schema)
    elif may_be_null:
        written = _text_or_null(tags, where, schema)
    kind = f' string="{"true" if is_text else "false"}">' if tags.typed else ""
    return in_order(const(tags.parameter + key + tags.keyed + kind), *_before(tags), written)


def _free(tags: Tags) -> Part:
    """Any text up to the tag, be that a token or its letters."""
    return text_until(tags.valued, excludes=[tags.valued])


def _before(tags: Tags) -> list[Part]:
    return [BLANKS, const(tags.before_value)] if tags.before_value else []


def _json(tags: Tags, schema: Any, root: Mapping[str, Any]) -> Part:
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
    whole = {**shared, **schema} if isinstance(schema, dict) else schema
    return in_order(BLANKS, json_part(whole), BLANKS, const(tags.valued))


def _text(tags: Tags, where: str, schema: Mapping[str, Any]) -> Part:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    check_keys(where, schema, TOLD | {"type", "enum", "const"})
    if values is None:
        return _free(tags)
    if not isinstance(values, list):
        raise refused(where, "enum must be a list")
    texts = [v for v in values if isinstance(v, str) and v.strip() == v and tags.valued not in v]
    if not texts or len(texts) < len(values):
        raise refused(where, "one of its values cannot be written between tags")
    newline = _NEWLINE if tags.padded else NOTHING
    return in_order(newline, either(*map(const, texts)), newline, const(tags.valued))


def _text_or_null(tags: Tags, where: str, schema: Mapping[str, Any]) -> Part:
    """A text that is read as no other kind of value; one is read as null."""
    several = [schema.get(name, []) for name in ("anyOf", "oneOf")]
    if not all(isinstance(each, list) for each in several):
        raise refused(where, "anyOf and oneOf must be lists")
    for each in (schema, *several[0], *several[1]):
        if not isinstance(each, dict):
            raise refused(where, "its reader cannot tell whether its value is a text")
        check_keys(where, each, TOLD | {"type", "anyOf", "oneOf"})
    text = {"type": "any_text", "unlike": _NO_TEXT, "excludes": [tags.valued]}
    return tag("", text, tags.valued)
