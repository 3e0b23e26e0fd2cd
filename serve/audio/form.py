"""Where forms are sent; reading one: a file, and fields that become an `AudioRequest`."""

import asyncio
from collections.abc import AsyncGenerator
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException

from engine.errors import RequestError
from serve.audio.protocol import AudioRequest
from serve.protocol.decoding import check_unserved
from serve.protocol.invalid import invalid
from serve.protocol.unsupported import IGNORED

FORM = "multipart/form-data"
AUDIO_PATHS = MappingProxyType(
    {"/v1/audio/transcriptions": "transcribe", "/v1/audio/translations": "translate"}
)
MAX_FIELDS = 64
FORM_BYTES = 256 * 1024  # of a form, besides its file
_LISTS = ("timestamp_granularities",)


async def read_form(headers: Headers, body: bytes) -> tuple[bytes, AudioRequest]:
    """The file's content, and the fields; raises RequestError.

    In a thread with a loop of its own: what nearly is the end of a part, over and over, takes the
    parser 0.2 s a megabyte.
    """
    return await asyncio.to_thread(lambda: asyncio.run(_read(headers, body)))


async def _read(headers: Headers, body: bytes) -> tuple[bytes, AudioRequest]:
    try:
        from starlette.formparsers import MultiPartParser

        parser = MultiPartParser(
            headers, _whole(body), max_files=1, max_fields=MAX_FIELDS, max_part_size=FORM_BYTES
        )
        form = await parser.parse()
    except (AssertionError, ModuleNotFoundError):  # Starlette's, without python-multipart
        raise RequestError(
            "This server cannot read forms: it was installed without the extra 'audio' "
            "(pip install 'ingot[audio]').",
            "file",
        ) from None
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise RequestError(f"The form cannot be read: {str(error)[:200]}.") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestError("The form has no file; send the audio as its part 'file'.", "file")
        return await file.read(), _request(form.multi_items())
    finally:
        await form.close()


def _request(items: list[tuple[str, Any]]) -> AudioRequest:
    fields: dict[str, Any] = {}
    for name, value in items:
        key = name.removesuffix("[]")
        if key == "file" or key in IGNORED:
            continue
        if key not in AudioRequest.__struct_fields__:
            check_unserved(key, _value(value), AudioRequest)
        elif key in _LISTS:
            fields.setdefault(key, []).append(value)
        elif value != "":
            fields[key] = value
    try:
        request = msgspec.convert(fields, AudioRequest, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error, AudioRequest) from None
    request.check_shared()
    return request


def _value(text: str) -> Any:
    """What a field of a form says, which has no types: a number, "true", a text, or nothing."""
    if text == "":
        return None
    try:
        return msgspec.json.decode(text.lower() if text in ("True", "False") else text)
    except (msgspec.DecodeError, RecursionError):
        return text


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
