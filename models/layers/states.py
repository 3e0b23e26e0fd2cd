"""States of fixed size as a layer sees them: read what a row has kept, write what it keeps now.

    layer 0            layer 1
    slot 0 1 2 .. R    slot 0 1 2 .. R       R requests, and a slot that nobody reads

Layer l's slot r is row l * (R + 1) + r of the arrays of all layers, which are donated and never
sliced. Owns this arithmetic; every device computes all of it. Knows no projections and no requests.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32

from models.sharding import on_each_device
from pallas_kernels.state_space import ScanRows, Snapshots, causal_conv, ssm_scan
from pallas_kernels.state_space import linear_scan as scan_channels

_WHOLE = PartitionSpec()


class States(NamedTuple):
    """The states of all layers and slots. Donated, never sliced."""

    conv: Float[Array, "LZ W1 C"]  # the last W - 1 inputs of the short convolution
    scan: Float32[Array, "LZ N V S"] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StateRows:
    """Which tokens of a step belong to which slot of a layer."""

    rows: ScanRows
    slots_per_layer: int = field(metadata={"static": True})
    single: bool = field(metadata={"static": True}, default=False)  # row b has token b or none

    def of(self, layer: Int32[Array, ""]) -> ScanRows:
        """The slots of one layer."""
        rows, first = self.rows, layer * self.slots_per_layer
        sources, kept = rows.sources, rows.snapshots
        return rows._replace(
            slots=rows.slots + first,
            sources=None if sources is None else sources + first,
            snapshots=None if kept is None else kept._replace(slots=kept.slots + first),
        )


def state_rows(
    start: Int32[Array, " B"],
    count: Int32[Array, " B"],
    slots: Int32[Array, " B"],
    positions: Int32[Array, " T"],
    slots_per_layer: int,
    sources: Int32[Array, " B"] | None = None,
    snapshots: Snapshots | None = None,
) -> StateRows:
    """Row b owns tokens start[b] .. start[b]+count[b]-1; one that begins a sequence begins at 0.

    Others begin as the states in `sources`, or in `slots`; and leave `snapshots` on their way.
    """
    fresh = positions.at[start].get(mode="clip") == 0
    rows = ScanRows(start, count, slots, fresh, sources, snapshots)
    return StateRows(rows, slots_per_layer)


def short_conv(
    rows: StateRows,
    states: States,
    layer: Int32[Array, ""],
    x: Float[Array, "T C"],
    weight: Float[Array, "W C"],
    mesh: Mesh | None,
) -> tuple[Float[Array, "T C"], States]:
    """Each token's weighted sum of the last W inputs of its row."""
    run = on_each_device(partial(causal_conv, single=rows.single), mesh, _WHOLE, _WHOLE)
    y, conv = run(x, weight, states.conv, rows.of(layer))
    return y, states._replace(conv=conv)


def scan(
    rows: StateRows,
    states: States,
    layer: Int32[Array, ""],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N W"],
    mesh: Mesh | None,
    *,
    matrix: Float32[Array, "N V S"] | None = None,
    beta: Float32[Array, "T N"] | None = None,
) -> tuple[Float[Array, "T N V"], States]:
    """What each token reads from its row's state, to which it has added; as `ssm_scan`."""

    def run(pool: Array, *arrays: Array | ScanRows | None) -> tuple[Array, Array]:
        *others, matrix, beta = arrays
        kind = {"matrix": matrix, "beta": beta, "single": rows.single}
        return ssm_scan(pool, *others, **kind)  # type: ignore[arg-type]

    if states.scan is None:
        raise TypeError("this model's states have no scan")
    y, pool = on_each_device(run, mesh, _WHOLE, _WHOLE)(
        states.scan, values, keys, queries, rates, rows.of(layer), matrix, beta
    )
    return y, states._replace(scan=pool)


def linear_scan(
    rows: StateRows,
    states: States,
    layer: Int32[Array, ""],
    inputs: Float32[Array, "T C"],
    decay: Float32[Array, "T C"],
    mesh: Mesh | None,
) -> tuple[Float32[Array, "T C"], States]:
    """Each channel's state after each token, in states of 1 by 1 by C; as `pallas_kernels`'."""
    if states.scan is None:
        raise TypeError("this model's states have no scan")
    shape = states.scan.shape
    run = on_each_device(partial(scan_channels, single=rows.single), mesh, _WHOLE, _WHOLE)
    y, pool = run(states.scan.reshape(-1, shape[-1]), inputs, decay, rows.of(layer))
    return y, states._replace(scan=pool.reshape(shape))
