"""Beginnings are told apart, found again as they grow, and forgotten in order."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve.router.prefixes import BLOCK_BYTES, SeenPrefixes, beginning_of, block_hashes


def body(*turns: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": turn} for turn in turns]
    return json.dumps({"stream": True, "messages": messages, **more}).encode()


def test_a_conversation_that_grows_begins_as_before() -> None:
    short, long = (beginning_of(body(*turns)).hashes for turns in (["a" * 300], ["a" * 300, "b"]))
    assert len(long) >= len(short) > 3 and list(long[: len(short)]) == list(short)
    other = beginning_of(body("a" * 300, cache_salt="x")).hashes
    assert not set(other) & set(long)


def test_options_do_not_count_and_models_do() -> None:
    plain = beginning_of(body("a" * 300)).hashes
    assert beginning_of(body("a" * 300, temperature=0.5)).hashes == plain
    assert not set(beginning_of(body("a" * 300, model="m")).hashes) & set(plain)


@given(st.binary(max_size=1000), st.binary(max_size=1000))
def test_as_many_blocks_match_as_are_equal(one: bytes, other: bytes) -> None:
    seen = SeenPrefixes()
    seen.add(block_hashes(one))
    equal = 0
    while len(one) >= (end := (equal + 1) * BLOCK_BYTES) <= len(other) and one[:end] == other[:end]:
        equal += 1
    assert seen.match(block_hashes(other)) == equal
    beginning_of(one)


def test_the_oldest_ends_are_forgotten_first() -> None:
    seen = SeenPrefixes(max_hashes=4)
    first, second = block_hashes(b"a" * 64 * 3), block_hashes(b"b" * 64 * 2)
    seen.add(first)
    seen.add(second)
    assert len(seen) == 4
    assert (seen.match(first), seen.match(second)) == (2, 2)


def test_what_is_no_request_has_no_beginning() -> None:
    for odd in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"messages":' * 10_000):
        assert not beginning_of(odd).hashes
