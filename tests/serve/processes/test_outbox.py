"""What cannot be said to the engine, or understood of it, harms nobody but who is at fault."""

import asyncio
from typing import Any

import msgspec
import pytest

from engine.config import EngineConfig
from engine.messages import AbortRequests, AddRequest, EngineStats, RequestDelta, StepReport
from engine.sampling.params import SamplingParams
from engine.tokenizers.detokenizer import Detokenizer
from engine.wire import to_frame
from serve.engine_process import EngineProcess
from serve.outbox import Outbox
from tests.fake_server import FAKE_ENGINE
from tests.serve.attacks.harm import assert_unharmed, beside_a_neighbour
from tests.serve.served import PATIENCE, Serve, until

pytestmark = pytest.mark.anyio
PARAMS = SamplingParams(max_tokens=1)


def request(number: int, token: int) -> AddRequest:
    return AddRequest(request_id=number, prompt_token_ids=[token], params=PARAMS)


async def test_a_message_that_cannot_be_written_takes_no_other_along() -> None:
    engine = await EngineProcess.start(EngineConfig(), FAKE_ENGINE)
    try:
        await engine.receive()
        unsent: list[Any] = []
        outbox = Outbox(lambda message, error: unsent.append((message, error)))
        outbox.link = engine
        outbox.put([request(1, 7), request(2, 2**64), request(3, 9)])
        assert not outbox.is_owed
        ended: set[int] = set()
        async with asyncio.timeout(PATIENCE):
            while ended != {1, 3}:
                report = await engine.receive()
                assert isinstance(report, StepReport)
                ended |= {each.request_id for each in report.deltas if each.finish_reason}
        [(message, error)] = unsent
        assert message.request_id == 2 and isinstance(error, OverflowError)
        assert outbox.is_owed
        outbox.is_owed = False
        outbox.put([AbortRequests([2**64])])
        await asyncio.sleep(0)
        assert not outbox.is_owed and len(unsent) == 2
    finally:
        await engine.stop()


async def test_its_client_is_told_and_nobody_else_is(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as served:
        link: Any = served.engine._outbox.link
        send = link.send
        monkeypatch.setattr(link, "send", lambda message: (to_frame([message]), send(message)))
        monkeypatch.setattr("serve.openai.completions.check_ids", lambda *_: None)
        async with beside_a_neighbour(served), asyncio.timeout(PATIENCE):
            refused = await served.complete(prompt=[[5], [2**70]], max_tokens=3)
        assert refused.status_code == 400 and "cannot be told" in refused.text
        await assert_unharmed(served)


async def test_a_text_that_cannot_be_read_is_its_own_request_s_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Detokenizer.append

    def fail(self: Detokenizer, ids: Any) -> str:
        if 7 in (ids := list(ids)):
            raise KeyError("a mistake of ours")
        return append(self, ids)

    monkeypatch.setattr(Detokenizer, "append", fail)
    async with serve() as served:
        async with beside_a_neighbour(served), asyncio.timeout(PATIENCE):
            failed = await served.complete(prompt=[5, 6, 7], max_tokens=30)
            streamed = await served.complete(prompt=[5, 6, 7], max_tokens=30, stream=True)
        assert failed.status_code == 500 and "mistake" not in failed.text
        assert '"internal_server_error"' in streamed.text
        assert served.engine.state == "ready"
        await until(lambda: not served.core.has_work)
        assert len(served.core.aborted) == 2
        await assert_unharmed(served)


async def test_a_report_that_cannot_be_delivered_ends_the_engine_and_not_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The life of engines goes on from there: `pump` says why it ended and raises nothing."""

    def fail(*_: object) -> None:
        raise msgspec.DecodeError("a mistake of theirs")

    async with serve() as served:
        monkeypatch.setattr(served.engine._metrics, "engine_report", fail)
        assert (await served.complete(prompt="ab", max_tokens=2)).status_code == 500
        assert served.engine.state == "dead"


async def test_a_delta_of_nobody_is_nothing(serve: Serve) -> None:
    async with serve() as served:
        stray = RequestDelta(request_id=10**6, new_token_ids=[1])
        served.engine._deliver(StepReport(deltas=[stray], stats=EngineStats()))
        await assert_unharmed(served)
