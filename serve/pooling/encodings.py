"""Vectors as numbers, as base64, or as the bytes of a whole body, in three types and two orders.

Of a body of bytes the header `metadata` says, as vLLM's does, which of them are which vector's.
"""

import asyncio
import json
import struct
import sys
import time
from array import array
from base64 import b64encode
from typing import Any

import msgspec
from starlette.types import Send

from engine.errors import RequestError
from serve.http.whole import send_body
from serve.pooling.ask import Answers, floats
from serve.pooling.protocol import EmbeddingRequest

MAX_DESCRIBED = 128  # vectors; clients take some 64 KiB of headers


async def encoded(
    answers: Answers, request: EmbeddingRequest, width: int | None = None
) -> list[Any]:
    """Each vector as JSON has it, written one after the other in a thread: 0.2 ms for 4,096
    numbers, for which the event loop would wait with all of them. `width` as in `send_bytes`.

    Raises RequestError as `packed` does.
    """

    def written() -> list[Any]:
        if request.encoding_format == "base64":
            return [b64encode(packed(vector, request)).decode() for vector in answers.vectors]
        return [as_json(vector, width) for vector in answers.vectors]

    return await asyncio.to_thread(written)


def as_json(vector: bytes, width: int | None = None) -> Any:
    """A list of the vector's numbers, or, with the `width` of those of tokens, of these vectors;
    written already. No `Raw` to types: a response's struct says what it is to clients."""
    if width is None:
        return msgspec.Raw(msgspec.json.encode(floats(vector)))
    size = 4 * width
    parts = [as_json(vector[at : at + size]) for at in range(0, len(vector), size)]
    return msgspec.Raw(b"[" + b",".join(map(bytes, parts)) + b"]")


def packed(vector: bytes, request: EmbeddingRequest) -> bytes:
    """A vector of little-endian float32 in the type and order that `request` asks for.

    Raises RequestError for a number that is too large for float16.
    """
    big = request.endianness == "big" or (request.endianness == "native" and sys.byteorder == "big")
    match request.embed_dtype:
        case "float16":
            numbers = floats(vector)
            try:
                return struct.pack(f"{'>' if big else '<'}{len(numbers)}e", *numbers)
            except OverflowError:
                raise RequestError(
                    "A number of the vector is too large for float16; ask for bfloat16 or float32.",
                    "embed_dtype",
                ) from None
        case "bfloat16":
            words = array("H", map(_rounded, array("I", vector)))
        case _:
            words = array("I", vector)
    if big:
        words.byteswap()
    return words.tobytes()


def _rounded(bits: int) -> int:
    """The upper half of a float32, to the nearest, and of two equally near to the even one."""
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF


async def send_bytes(
    send: Send,
    answers: Answers,
    request: EmbeddingRequest,
    name: str,
    model: str,
    width: int | None = None,
) -> None:
    """All vectors one after another; "bytes_only" without what describes them. `width`: of the
    vectors of tokens that each of them consists of.

    Raises RequestError for more vectors than a header can describe.
    """
    headers = [(b"content-type", b"application/octet-stream")]
    if request.encoding_format == "bytes" and len(answers.vectors) > MAX_DESCRIBED:
        raise RequestError(
            "encoding_format bytes describes each vector in a header, which holds "
            f"{MAX_DESCRIBED}; send fewer inputs, or bytes_only.",
            "encoding_format",
        )
    vectors = await asyncio.to_thread(lambda: [packed(v, request) for v in answers.vectors])
    if request.encoding_format == "bytes":
        shapes = [_shape(vector, width) for vector in answers.vectors]
        metadata = {
            "id": name,
            "created": int(time.time()),
            "model": model,
            "data": _described(vectors, shapes, request),
            "usage": msgspec.to_builtins(answers.usage),
        }
        headers.append((b"metadata", json.dumps(metadata).encode("ascii")))
    body = b"".join(vectors)
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send_body(send, body)


def _shape(vector: bytes, width: int | None) -> list[int]:
    size = len(vector) // 4
    return [size] if width is None else [size // width, width]


def _described(
    vectors: list[bytes], shapes: list[list[int]], request: EmbeddingRequest
) -> list[dict[str, Any]]:
    """Where each of the vectors is, and what."""
    described, start = [], 0
    for index, (vector, shape) in enumerate(zip(vectors, shapes, strict=True)):
        described.append(
            {
                "index": index,
                "embed_dtype": request.embed_dtype or "float32",
                "endianness": request.endianness or "little",
                "start": start,
                "end": start + len(vector),
                "shape": shape,
            }
        )
        start += len(vector)
    return described
