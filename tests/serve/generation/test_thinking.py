"""How long a reply may think, as each API says it, and how long it did."""

import pytest

from engine.config import EngineConfig
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.reply.harmony import Harmony
from serve.reply.reasoning import ReasoningFormat
from serve.reply.registry import thinking_format
from serve.settings import ServerSettings
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
SAYS = "{{ messages[-1].content }}<|im_end|>"
THINKS = ServerSettings(chat_template=SAYS, reasoning_parser="qwen3")
CONFIG = EngineConfig(max_model_len=1024)
REPLY = "<think>abc</think>Rome"
PATHS = {
    "/v1/chat/completions": ("thinking_token_budget", "thinking_token_budget", "messages"),
    "/v1/responses": ("thinking_token_budget", "thinking_token_budget", "input"),
    "/v1/messages": ("thinking", "thinking.budget_tokens", "messages"),
}


def asked(path: str, budget: int) -> dict:
    """A request for a reply of so many tokens of reasoning."""
    field, _, conversation = PATHS[path]
    value = {"type": "enabled", "budget_tokens": budget} if field == "thinking" else budget
    return {
        "model": "tiny", conversation: [{"role": "user", "content": REPLY}], field: value,
        "max_output_tokens" if conversation == "input" else "max_tokens": 99,
    }  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_the_engine_is_told(serve: Serve, path: str) -> None:
    async with serve(THINKS, CONFIG) as served:
        for budget in (7, 0, 10**30, -1):
            answer = await served.post(path, **asked(path, budget))
            assert answer.status_code == 200, answer.text
        first, none, most, free = (request.thinking for request in served.core.added)
    assert (first.max_tokens, none.max_tokens, most.max_tokens) == (7, 0, 1024)
    assert free is None
    assert first.marks.begin == "<think>" and not first.marks.is_open
    assert len(first.end_token_ids) == len("</think>")  # letters are this model's tokens


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_thinks_in_no_known_way(serve: Serve, path: str) -> None:
    template = SAYS + "{{ '' if enable_thinking else '' }}"
    async with serve(ServerSettings(chat_template=template), CONFIG) as served:
        refused = await served.post(path, **asked(path, 7))
        wrong = await served.post(path, **asked(path, -2))
        assert not served.core.added
    assert (refused.status_code, wrong.status_code) == (400, 400)
    param = PATHS[path][1]
    assert refused.json()["error"]["param"] == wrong.json()["error"]["param"] == param
    assert refused.json()["error"]["message"].startswith(f"{param} needs a model")


async def test_completions_have_budgets_too(serve: Serve) -> None:
    """Whether one begins within reasoning is seen at the end of its prompt, of ids as well."""
    async with serve(THINKS, CONFIG) as served:
        for prompt in ("<think>", [ord("a") - 33, 64], ["a", "b<think>"]):
            options = {"thinking_token_budget": 5, "max_tokens": 2, "n": 2}
            assert (await served.complete(prompt=prompt, **options)).is_success
        ids = served.core.added[0].prompt_token_ids
        again = await served.complete(prompt=ids, thinking_token_budget=0, max_tokens=1)
        free = await served.complete(prompt="a", thinking_token_budget=-1, max_tokens=1)
        wrong = await served.complete(prompt="a", thinking_token_budget=-2)
        beams = await served.complete(prompt="a", thinking_token_budget=2, use_beam_search=True)
        told = [each.thinking for each in served.core.added]
    assert again.is_success and free.is_success and told.pop() is None
    assert [each.marks.is_open for each in told] == [
        True, True, False, False, False, False, True, True, True
    ]  # fmt: skip
    assert [each.max_tokens for each in told] == [5] * 8 + [0]
    for refused in (wrong, beams):
        assert refused.json()["error"]["param"] == "thinking_token_budget"


async def test_a_completion_of_a_model_that_thinks_in_no_known_way(serve: Serve) -> None:
    async with serve() as served:
        refused = await served.complete(prompt="a", thinking_token_budget=3)
    assert refused.json()["error"]["param"] == "thinking_token_budget"


async def test_reasoning_is_counted(serve: Serve) -> None:
    """Three letters, whole and streamed; of n replies, all."""
    async with serve(THINKS, CONFIG) as served:
        whole = (await served.chat(REPLY, max_tokens=99, n=2)).json()
        streamed = await served.chat(
            REPLY, max_tokens=99, stream=True, stream_options={"include_usage": True}
        )
        other = (await served.post("/v1/responses", input=REPLY)).json()
        plain = (await served.chat("Rome", max_tokens=9)).json()
    assert whole["choices"][0]["message"]["reasoning"] == "abc"
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}
    last = event_data(streamed.text)[-2]
    assert last["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert other["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert plain["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


async def test_there_is_no_count_where_no_format_is_known(serve: Serve) -> None:
    async with serve() as served:
        usage = (await served.chat("Rome", max_tokens=9)).json()["usage"]
    assert "completion_tokens_details" not in usage


async def test_beams_have_no_budget(serve: Serve) -> None:
    async with serve(THINKS, CONFIG) as served:
        answer = await served.chat("a", use_beam_search=True, n=2, thinking_token_budget=4)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "thinking_token_budget"


def test_marks_are_those_that_replies_are_read_by() -> None:
    form = ReasoningFormat("<think>", "</think>", also_ends=("<call>",))
    assert form.marks("user: hi <think>\n").is_open
    assert not form.marks("user: hi <think></think>").is_open
    assert form.marks("").ends == ("</think>", "<call>")
    tokenizer = Tokenizer.load(DEMO_FOLDER)
    for name in ("qwen3", "deepseek_r1", "granite", "mistral", "gemma4", "kimi_k2", "openai"):
        reasoning = thinking_format(name, ()).reasoning
        assert tokenizer.encode(reasoning.forced_end, add_special_tokens=False)
        assert any(reasoning.forced_end.startswith(end) for end in reasoning.marks("").ends)
    assert Harmony().marks("").answer in Harmony.forced_end
