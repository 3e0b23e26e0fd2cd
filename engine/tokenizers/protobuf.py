"""Protocol buffers as they lie in files: the numbers of fields and their values, one after another.

    0a 05 "hello"    field 1, five bytes
    18 2a            field 3, the number 42

Owns the wire format and its bounds. Knows no message, and so neither names nor types.
Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

_FIXED = {1: 8, 5: 4}  # bytes of a value, by wire type
_VARINT, _SIZED = 0, 2
_MAX_VARINT = 10  # bytes


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number of each field with its value: varints as numbers below 2**64, all others as bytes.

    Raises ValueError where `data` is no message.
    """
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _read_varint(data, place)
            yield key >> 3, value
            continue
        size = _FIXED.get(kind)
        if size is None:
            if kind != _SIZED:
                raise ValueError(f"a field has wire type {kind}")
            size, place = _read_varint(data, place)
        if place + size > len(data):
            raise ValueError("a field goes on after the end")
        yield key >> 3, data[place : place + size]
        place += size


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the number, and the place after it."""
    value = 0
    for count, byte in enumerate(data[place : place + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place + count + 1
    raise ValueError("a number does not end")
