"""The front's histogram against prometheus_client's own."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from serve.operations.histogram import Histogram

NAME, BOUNDS = "ingot:chunk_delay_seconds", (0.001, 0.02, 1, 5)


def exposed(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


@given(st.lists(st.floats(0, 10) | st.sampled_from(BOUNDS)))
def test_it_says_what_the_original_says(amounts: list[float]) -> None:
    registry, original = CollectorRegistry(), CollectorRegistry()
    mine = Histogram(NAME, {"model_name": "m", "engine": "0"}, BOUNDS)
    registry.register(mine)
    theirs = prometheus_client.Histogram(
        NAME, "delay", ("model_name", "engine"), buckets=BOUNDS, registry=original
    ).labels("m", "0")
    for amount in amounts:
        mine.observe(amount)
        theirs.observe(amount)
    assert exposed(registry) == exposed(original)
