"""A file and fields as multipart/form-data, as `/v1/audio/transcriptions` takes them (RFC 7578)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4


def write_form(fields: Mapping[str, Any], file: Path) -> tuple[str, bytes]:
    """The content type, and the body, whose last part is the file; raises OSError."""
    boundary = uuid4().hex
    parts = [(f'name="{name}"', _text(value).encode()) for name, value in fields.items()]
    name = file.name.replace('"', "%22")
    parts.append((f'name="file"; filename="{name}"', file.read_bytes()))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
