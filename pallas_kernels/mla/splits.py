"""Into how many blocks a row's latents are divided in a decode step."""

from collections.abc import Mapping

from pallas_kernels.dispatch import traced_device
from pallas_kernels.mla.groups import heads_of_block
from pallas_kernels.mla.sizes import TILE
from pallas_kernels.tuning import tuned

SPLITS: tuple[int, ...] = (
    *range(1, 9),
    *range(10, 17, 2),
    *range(20, 33, 4),
    44,
    52,
    64,
    88,
    104,
    132,
)
_START = 4  # tiles in the time that a block takes for queries, first tiles, results


def decode_splits(B: int, N: int, keys: int, S: int) -> int:
    """On the GPU traced for: as measured, or by rule."""
    gpu = traced_device()
    found = tuned("mla_decode", decode_facts(B, N, keys, S), gpu.kind)
    return found["splits"] if found else choose_splits(decode_blocks(B, N), keys, gpu.num_cores)


def decode_facts(B: int, N: int, keys: int, S: int) -> Mapping[str, int]:
    """What a measured number of splits depends on."""
    return {"blocks": decode_blocks(B, N), "keys": keys, "S": S}


def decode_blocks(B: int, N: int) -> int:
    """Blocks of a step whose rows are not divided."""
    heads = heads_of_block(N)
    return B * -(-N // heads)


def choose_splits(blocks: int, keys: int, num_cores: int) -> int:
    """The rule: the one that is done first, if each core runs one block at a time.

    64 blocks of 64 tiles on 132 cores:  1 takes 64 + 4,  2 takes 32 + 4,  4 takes 2 x (16 + 4)
    """
    tiles = -(-keys // TILE)

    def turns(splits: int) -> int:
        return -(-blocks * splits // num_cores) * (-(-tiles // splits) + _START)

    return min((n for n in SPLITS if n <= tiles), key=turns)
