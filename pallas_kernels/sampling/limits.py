"""Which vocabularies the kernel takes: a row must fit into a cluster's shared memory."""

from pallas_kernels.errors import KernelError

BLOCKS = 8  # of a cluster
WIDTH = 64  # tokens in a line, the unit of the copies
CHUNK = 16  # lines that are in registers together
PIECES = 4  # of a block, each of which is waited for once
_SHARED_BYTES = 224 * 1024


def lines_of_block(V: int, blocks: int = BLOCKS, chunk: int = CHUNK) -> int:
    """Lines of a row in a block's shared memory.

    Raises:
        KernelError: the kernel does not take this vocabulary.
    """
    unit = PIECES * chunk
    lines = -(-V // (WIDTH * blocks * unit)) * unit
    most = _SHARED_BYTES // 4 // WIDTH // unit * unit * WIDTH * blocks
    limits = [
        (V % WIDTH == 0, f"that is a multiple of {WIDTH}"),
        (lines * WIDTH <= V, f"of at least {lines * WIDTH}"),
        (most >= V, f"of at most {most}"),
    ]
    for holds, limit in limits:
        if not holds:
            raise KernelError(
                f"The kernel that draws tokens takes a vocabulary {limit}, not {V}; XLA takes any."
            )
    return lines


def check_vocabulary(V: int, devices: int) -> None:
    """Raise KernelError, naming the limit, if the kernel does not draw from V tokens there."""
    lines_of_block(V)
    if V % devices:
        raise KernelError(
            f"The kernel that draws tokens takes a vocabulary that {devices} devices divide, "
            f"not {V}; XLA takes any."
        )
