"""Whether a file of XLA's tilings can be read again: text in which protocol buffers are written.

    run_time { nanos: 34816 }
    triton { block_m: 16 block_n: 32 ... }

XLA refuses to compile for a GPU with one that it cannot read. Owns as much of the language as XLA
writes; what the numbers mean is unknown here. A field is looked up at the top only, and one known
name is enough there: newer versions of XLA have more.
"""

import re

# of xla.AutotuneResult, xla.AutotuneResults and xla.autotuner.AutotuneCache, in XLA of JAX 0.11
_KNOWN = {
    "scratch_bytes", "run_time", "failure", "conv", "gemm", "triton", "cuda_conv_plan",
    "custom_kernel_fusion", "algorithm", "other", "version", "results", "device_scope",
    "explicit_version_scope", "entries",
}  # fmt: skip
_PART = re.compile(
    r"""\s*(?:
        (?P<name> [A-Za-z_]\w* | \[[\w./-]+\] ) \s* (?:
            :? \s* (?P<begin> \{ )
          | : \s* (?: "(?:[^"\\\n]|\\.)*" \s* )+
          | : \s* [-+\w.]+ (?![^\s;,}])
        )
      | (?P<end> \} )
    ) \s* [;,]?""",
    re.VERBOSE,
)


def is_whole(text: str) -> bool:
    """Whether this is a message from its first field to its last."""
    place, depth, known = 0, 0, False
    while found := _PART.match(text, place):
        place = found.end()
        known |= depth == 0 and found["name"] in _KNOWN
        depth += bool(found["begin"]) - bool(found["end"])
        if depth < 0:
            return False
    return known and depth == 0 and not text[place:].strip()
