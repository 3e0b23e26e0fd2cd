"""How layers whose heads differ in size or number lie in one paged pool.

    pool row of a page      |h0   |h1   |h2   |h3   |   4 heads of 256: a layer of 4 heads of 256,
    as a layer sees it      |head 0     |head 1     |   one of 2 heads of 512,
                            |h 0  |h 1  |h 0  |h 1  |   or two layers of 2 heads of 256

A row is as wide as the least common multiple of the layers' widths K H, so that a layer sees the
whole pool as pages of its own heads: the same bytes, no copy. Page p of all layers is row p of each
of `rows`, so who allocates, shares, copies and evicts pages knows nothing of this. It costs what is
left empty of the last row of each kind of heads: of Gemma 4's pool 1.8 % in 26B-A4B, and nothing in
E2B, E4B and 31B. Scales of eight bits have as many heads as a row has, and wide heads leave theirs
unused. Knows no arrays and no requests.
"""

import math
from dataclasses import dataclass

from models.config.decoder import ModelConfig
from pallas_kernels import Backend
from pallas_kernels.attention.limits import page_head_dim


@dataclass(frozen=True)
class Pool:
    """The axes of the pool [rows * P, K', S, H] of a model, and where its layers are.

    Raises:
        UnsupportedError: heads do not divide among the shards.
    """

    rows: int  # of each page
    heads: int  # K', on all devices
    head_dim: int  # as it lies in pages
    places: tuple[int, ...]  # of each layer in the pool as this layer sees it, in pages


def make_pool(config: ModelConfig, shards: int, backend: Backend) -> Pool:
    """The pool of a model cut into `shards` whose pages are read by `backend`."""
    kinds = {config.kv_heads_of(kind): kind for kind in config.layer_kinds}
    counts = dict.fromkeys(kinds, 0)
    for kind in config.layer_kinds:
        counts[config.kv_heads_of(kind)] += kind.attention and not kind.shared
    used = [heads for heads, count in counts.items() if count] or [next(iter(kinds))]
    sizes = {
        heads: (config.cache_kv_heads(shards, kinds[heads]), page_head_dim(heads[1], backend))
        for heads in used
    }
    head_dim = math.gcd(*(width for _, width in sizes.values()))
    entries = math.lcm(*(count * width for count, width in sizes.values()))  # of a row and slot
    first, rows = {}, 0
    for heads, (count, width) in sizes.items():
        layers = entries // (count * width)  # of such heads, in a row
        first[heads] = rows * layers
        rows += -(-counts[heads] // layers)
    places = tuple(
        first.get(config.kv_heads_of(kind), 0) + place
        for kind, place in zip(config.layer_kinds, config.kv_places, strict=True)
    )
    return Pool(rows, entries // head_dim, head_dim, places)
