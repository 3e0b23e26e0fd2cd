"""Kernels that somebody wrote in Triton and calls by jax-triton, as they lie in a lowered program.

    custom call triton_kernel_call_ffi ─ zlib ─ protobuf { call { kernel { PTX, shared memory } } }

A call that chooses among configurations when it runs (Triton's autotuner) has no one kernel, and is
left out. Needs no jax-triton.
"""

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jaxlib.mlir import ir

_TARGET = "triton_kernel_call_ffi"
_CALL, _KERNEL, _SHARED, _PTX = 1, 1, 3, 4  # numbers of fields, each in the one before it
_BYTES = 2  # the wire type of what has a length; all others here are numbers


class TritonCall(NamedTuple):
    """What jax-triton hands to XLA."""

    ptx: str
    shared_bytes: int  # of a block


def triton_calls(lowered: jax.stages.Lowered) -> list[TritonCall]:
    """The calls of a program, each kernel once."""
    messages: dict[bytes, None] = {}

    def visit(operation: Any) -> Any:
        given = operation.attributes
        if operation.name == "stablehlo.custom_call" and given["call_target_name"].value == _TARGET:
            packed = given["mhlo.backend_config"]["opaque"].value_bytes
            messages[zlib.decompress(packed)] = None
        return ir.WalkResult.ADVANCE

    module: Any = lowered.compiler_ir()
    module.operation.walk(visit)
    return list(dict.fromkeys(call for message in messages for call in parse_call(message)))


def parse_call(message: bytes) -> Iterator[TritonCall]:
    """The kernel of one call, if it has one."""
    call = fields(message).get(_CALL)
    kernel = fields(fields(call).get(_KERNEL, b"")) if call else {}
    if _PTX in kernel:
        yield TritonCall(kernel[_PTX].decode(), kernel.get(_SHARED, 0))


def fields(message: bytes) -> dict[int, Any]:
    """A protobuf message's fields by number: integers, or bytes; the last of those that repeat."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        found[key >> 3] = value
        if key & 7 == _BYTES:
            found[key >> 3] = message[at : at + value]
            at += value
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, least first, for as long as the eighth is set; and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        if message[at] < 128:
            return value, at + 1
        at, shift = at + 1, shift + 7
