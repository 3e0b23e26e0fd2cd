"""How long a request took, in its response."""

import pytest

from serve.generation.timing import timing_of
from serve.operations.metrics import Timeline
from serve.settings import ServerSettings
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
TIMED = ServerSettings(enable_per_request_metrics=True)
NAMES = {
    "time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms",
    "tokens_per_second",
}  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("path", "prompt"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "ab"})]
)
async def test_responses_of_one_answer_tell_it(serve: Serve, path: str, prompt: dict) -> None:
    body = {**prompt, "max_tokens": 4}
    async with serve(TIMED) as served:
        whole = (await served.post(path, **body)).json()
        several = (await served.post(path, **body, n=2)).json()
        events = event_data((await served.post(path, **body, stream=True)).text)[:-1]
    assert set(whole["metrics"]) == NAMES and "metrics" not in several
    assert whole["metrics"]["generation_time_ms"] > 0
    assert [set(event["metrics"]) for event in events if "metrics" in event] == [NAMES]
    [last] = [event for event in events if "metrics" in event]
    assert last["choices"][0]["finish_reason"] == "length"


async def test_nobody_is_told_who_does_not_ask(serve: Serve) -> None:
    async with serve() as served:
        assert "metrics" not in (await served.complete(prompt="a", max_tokens=2)).json()


def test_times() -> None:
    timeline = Timeline(3, arrival=10.0, first_token=10.5, last_token=12.5, tokens=5)
    timeline.queue_seconds = 0.2
    times = timing_of(timeline)
    assert times.time_to_first_token_ms == 300
    assert (times.generation_time_ms, times.queue_time_ms) == (2000, 200)
    assert (times.mean_itl_ms, times.tokens_per_second) == (500, 2.5)
    one = timing_of(Timeline(3, arrival=10.0, first_token=10.5, last_token=10.5, tokens=1))
    assert (one.mean_itl_ms, one.tokens_per_second, one.queue_time_ms) == (None, None, None)
