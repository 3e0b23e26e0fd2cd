"""What a server is awaited for is given up once."""

import asyncio

import pytest

from serve.router.upstream import UpstreamError, Waiting

pytestmark = pytest.mark.anyio


async def test_what_is_given_up_is_over_at_once() -> None:
    waiting = Waiting()
    asyncio.get_running_loop().call_soon(waiting.give_up, 0)
    with pytest.raises(UpstreamError, match="too long"):
        async with waiting.at_most(None):
            await asyncio.Event().wait()


async def test_what_runs_out_of_time_just_then_is_no_error() -> None:
    """asyncio refuses to move a deadline that has passed and has not been noticed yet."""
    waiting, tried = Waiting(), list[str]()

    def give_up() -> None:
        waiting.give_up(0)
        tried.append("without an error")

    with pytest.raises(UpstreamError, match="too long"):
        async with waiting.at_most(0):
            asyncio.get_running_loop().call_soon(give_up)
            await asyncio.Event().wait()
    assert tried
