"""Frames on the socket between the front and the engine: a length, then one msgpack message.

    | length: uint32, little-endian | message: msgpack of the structs in engine.messages |

Owns bytes only; both ends use it, one with asyncio and one with plain sockets.
"""

import struct
from typing import Any

import msgspec

MAX_FRAME_BYTES = 1 << 30
HEADER = struct.Struct("<I")

_encoder = msgspec.msgpack.Encoder()


class FrameError(Exception):
    """The other end sent something that is no frame."""


def to_frame(message: Any) -> bytearray:
    """One message of engine.messages, or a list of them, with its length in front."""
    frame = bytearray(HEADER.size)
    _encoder.encode_into(message, frame, HEADER.size)
    HEADER.pack_into(frame, 0, payload_size(len(frame) - HEADER.size))
    return frame


def payload_size(size: int) -> int:
    """`size` itself; raises FrameError if no frame may be that long."""
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"A frame of {size} bytes exceeds the limit of {MAX_FRAME_BYTES}.")
    return size


class FrameBuffer:
    """Bytes that arrived, cut into the messages that are complete."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages, still encoded, that `data` completes; raises FrameError."""
        self._bytes += data
        messages, start = [], 0
        while len(self._bytes) - start >= HEADER.size:
            end = start + HEADER.size + payload_size(HEADER.unpack_from(self._bytes, start)[0])
            if end > len(self._bytes):
                break
            messages.append(bytes(self._bytes[start + HEADER.size : end]))
            start = end
        del self._bytes[:start]
        return messages
