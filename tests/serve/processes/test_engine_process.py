"""Two real processes: the engine starts, works, fails, and never outlives its front."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import process as process_module
from engine.config import EngineConfig
from engine.errors import EngineDeadError
from engine.messages import AbortRequests, AddRequest, EngineFailed, ModelInfo, Speak, StepReport
from engine.sampling.params import SamplingParams
from serve.engine_process import EngineProcess
from tests.fake_engine import FAIL_STEP, KILL, REFUSE
from tests.fake_server import FAKE_ENGINE, ROOT
from tests.serve.served import PATIENCE

pytestmark = pytest.mark.anyio


def request(request_id: int, prompt: list[int], max_tokens: int = 3) -> AddRequest:
    params = SamplingParams(max_tokens=max_tokens, seed=2**64 - 1, logit_bias={5: 0.5})
    return AddRequest(request_id=request_id, prompt_token_ids=prompt, params=params)


async def test_requests_go_in_and_reports_come_out() -> None:
    engine = await EngineProcess.start(EngineConfig(max_num_seqs=2), FAKE_ENGINE)
    try:
        info = await engine.receive()
        assert isinstance(info, ModelInfo) and info.max_num_seqs == 2
        engine.send(Speak())
        said = await engine.receive()
        assert isinstance(said, StepReport) and said.stats.num_steps == 0  # and no map was drawn
        assert said.deltas == [] and said.pages is None
        engine.send(request(1, [10, 11]))
        engine.send(request(2, [20]))
        tokens: dict[int, list[int]] = {1: [], 2: []}
        while not all(len(each) == 3 for each in tokens.values()):
            report = await engine.receive()
            assert isinstance(report, StepReport)
            for delta in report.deltas:
                tokens[delta.request_id] += delta.new_token_ids
        assert tokens == {1: [10, 11, 10], 2: [20, 20, 20]}
    finally:
        await engine.stop()
    assert engine._process.returncode == 0


async def test_a_refused_request_and_an_abort_leave_the_rest_alone() -> None:
    engine = await EngineProcess.start(EngineConfig(), FAKE_ENGINE)
    try:
        await engine.receive()
        for message in (request(1, [REFUSE]), request(2, [7], 100), AbortRequests([2])):
            engine.send(message)
        engine.send(request(3, [9], 1))
        ends = {}
        while len(ends) < 2:
            report = await engine.receive()
            assert isinstance(report, StepReport)
            ends |= {d.request_id: d for d in report.deltas if d.finish_reason}
        assert ends[1].error_param == "prompt" and ends[1].finish_reason == "error"
        assert ends[3].finish_reason == "length"
        assert report.stats.num_running == 0
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("seed", "sentence", "user_error"),
    [
        (666, "--seed 666 is unlucky; use another.", True),
        (667, "The engine failed with RuntimeError: a bug.", False),
    ],
)
async def test_a_start_that_fails_says_why(seed: int, sentence: str, user_error: bool) -> None:
    engine = await EngineProcess.start(EngineConfig(seed=seed), FAKE_ENGINE)
    try:
        assert await engine.receive() == EngineFailed(sentence, user_error)
        with pytest.raises(EngineDeadError):
            await engine.receive()
    finally:
        await engine.stop()


@pytest.mark.parametrize(("command", "sentence"), [(FAIL_STEP, "its log says"), (KILL, "killed")])
async def test_the_end_of_the_engine_is_noticed(command: int, sentence: str) -> None:
    engine = await EngineProcess.start(EngineConfig(), FAKE_ENGINE)
    try:
        await engine.receive()
        engine.send(request(1, [command]))
        with pytest.raises(EngineDeadError, match=sentence):
            while True:
                message = await engine.receive()
                assert isinstance(message, StepReport | EngineFailed)
    finally:
        await engine.stop()


async def test_an_idle_engine_uses_no_processor() -> None:
    engine = await EngineProcess.start(EngineConfig(), FAKE_ENGINE)
    try:
        await engine.receive()
        engine.send(request(1, [7], 1))
        while not (await engine.receive()).deltas:  # all that a start does is done by then
            pass
        async with asyncio.timeout(PATIENCE):
            while await ticks_of_a_moment(engine.pid) > 2:  # of 30, which one that polls has always
                pass
    finally:
        await engine.stop()


async def ticks_of_a_moment(pid: int) -> int:
    used = processor_ticks(pid)
    await asyncio.sleep(0.3)
    return processor_ticks(pid) - used


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_engine_dies_with_its_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front is killed, so it cannot say goodbye; the engine is in a step that never ends."""
    front = f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from engine.config import EngineConfig
from serve.engine_process import EngineProcess
from tests.serve.processes.test_engine_process import request

async def main():
    engine = await EngineProcess.start(EngineConfig(), {FAKE_ENGINE!r})
    await engine.receive()
    engine.send(request(1, [5], 100))
    print(engine.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    monkeypatch.setenv("FAKE_STEP_SECONDS", "60")
    with subprocess.Popen(
        [sys.executable, "-c", front], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + process_module.ORPHAN_SECONDS + 30  # the step takes 60
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """A zombie, which waits for a parent to read its exit code, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
