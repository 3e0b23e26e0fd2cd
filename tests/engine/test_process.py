"""The engine's side of the socket: what a message does that goes wrong."""

import socket
from pathlib import Path

import msgspec
import pytest

from engine.beams.core import BeamCore
from engine.config import EngineConfig, ProfilerConfig
from engine.errors import EngineDeadError
from engine.messages import AddRequest, EngineStats, StartProfile, StepReport, StopProfile
from engine.process import Connection, apply, turn
from engine.profiling.profiler import Profiler
from engine.profiling.request import ProfileRequest
from engine.sampling.params import SamplingParams
from engine.wire import FrameBuffer, to_frame
from tests.fake_engine import REFUSE, FakeCore


def request(number: int, token: int) -> AddRequest:
    params = SamplingParams(max_tokens=2)
    return AddRequest(request_id=number, prompt_token_ids=[token], params=params)


class Failing(FakeCore):
    """A mistake of ours at requests that begin with 13, and no engine any more at 14."""

    def add(self, request: AddRequest, arrival: int | None = None) -> int:
        place = super().add(request, arrival)
        if request.prompt_token_ids[0] == 13:
            raise KeyError("a mistake of ours")
        if request.prompt_token_ids[0] == 14:
            raise EngineDeadError("It is gone.")
        return place


def test_a_request_that_cannot_be_begun_is_the_only_one(caplog: pytest.LogCaptureFixture) -> None:
    core = Failing(EngineConfig())
    messages = [request(1, 5), request(2, REFUSE), request(3, 13), request(4, 6)]
    refused, failed = apply(BeamCore(core), [*messages])[0]
    assert (refused.request_id, refused.error_param, refused.internal) == (2, "prompt", False)
    assert (failed.request_id, failed.finish_reason, failed.internal) == (3, "error", True)
    assert failed.error is not None and "mistake" not in failed.error
    assert "a mistake of ours" in caplog.text
    assert sorted(core.waiting) == [1, 4]


def test_an_engine_that_is_gone_takes_nothing() -> None:
    with pytest.raises(EngineDeadError):
        apply(BeamCore(Failing(EngineConfig())), [request(1, 14)])


def test_a_trace_is_answered_and_is_no_step(tmp_path: Path) -> None:
    """An engine at rest answers at once, and counts nothing."""
    core = FakeCore(EngineConfig())
    profiler = Profiler(ProfilerConfig(torch_profiler_dir=str(tmp_path)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in (StartProfile(ProfileRequest(), 1), StopProfile(2), StopProfile(3)):
            ours.sendall(to_frame([message]))
            assert turn(core, Connection(theirs), EngineStats(), profiler).num_steps == 0
        frames = FrameBuffer().feed(ours.recv(1 << 20))
    reports = [msgspec.msgpack.decode(each, type=StepReport) for each in frames]
    [(begun,), (written,), (over,)] = [report.answers for report in reports]
    assert (begun.call_id, begun.error, written.error) == (1, None, None)
    assert over.call_id == 3 and over.error is not None and "/start_profile" in over.error
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
