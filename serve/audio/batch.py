"""A line of a batch about a recording, as the form that the audio paths take.

    {"model": "m", "file_url": "data:audio/wav;base64,UklGR...", "language": "en"}  ──▶  form

vLLM's notation. The recording is in the line itself: nothing is fetched from anywhere. Which fields
there are, and what they may be, the path says.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec

from engine.errors import RequestError
from serve.audio.form import FORM

_FIELD = "file_url"
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
_NAME = re.compile(r"\w{1,60}", re.ASCII)


def form_of(body: bytes) -> tuple[str, bytes]:
    """Content type and content of the form that says what `body`, a JSON object, says.

    Raises RequestError for what is no such object, or has no recording.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise RequestError("The body must be a JSON object.") from None
    boundary = uuid4().hex
    parts = [_part(boundary, 'name="file"; filename="audio"', _recording(fields))]
    for name, value in fields.items():
        if name != _FIELD:
            parts += [_part(boundary, f'name="{each}"', text) for each, text in _texts(name, value)]
    content = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return f"{FORM}; boundary={boundary}", content


def _recording(fields: dict[str, Any]) -> bytes:
    url = fields.get(_FIELD)
    start = _DATA_URL.match(url) if isinstance(url, str) else None
    if start is None:
        raise RequestError(
            f"{_FIELD} must be the recording itself, as data:audio/wav;base64,...; nothing is "
            "fetched from other addresses.",
            _FIELD,
        )
    try:
        return b64decode(start.string[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{_FIELD} holds something that is no base64.", _FIELD) from None


def _texts(name: str, value: object) -> Iterator[tuple[str, bytes]]:
    """The parts of a form that say `value`; null says nothing."""
    if not _NAME.fullmatch(name):
        raise RequestError(f"The field {name[:60]!r} is not supported here.", name[:60])
    if isinstance(value, list):
        for each in value:
            yield from _texts(name, each)
    elif isinstance(value, bool):
        yield name, b"true" if value else b"false"
    elif isinstance(value, str | int | float):
        yield name, str(value).encode()
    elif value is not None:
        raise RequestError(f"{name} must be text, a number or a list of them.", name)


def _part(boundary: str, disposition: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"
