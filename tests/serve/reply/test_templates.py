"""Real chat templates write calls as their models do: what they write is parsed back.

The formats are found by the templates alone.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RequestError
from engine.templates.chat_template import ChatTemplate
from models.errors import CheckpointError
from serve.reply.events import Content, Event, merged
from serve.reply.registry import thinking_format, tool_format
from serve.reply.reply import ReplyParser
from tests.serve.reply.replies import TOOLS, WEATHER, summary

FORMATS = {
    "Apertus-8B-Instruct": "apertus",
    "Apriel-1.6-15b-Thinker-fixed": "jamba",
    "Bielik-11B-v3.0-Instruct": "hermes",
    "ByteDance-Seed-OSS": "seed_oss",
    "CohereForAI-c4ai-command-r-plus-tool_use": "command_r",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "cohere_command3",
    "GLM-4.6": "glm45",
    "GLM-4.7-Flash": "glm45",
    "GigaChat3-10B-A1.8B": "gigachat3",
    "GigaChat3.1-10B-A1.8B": "gigachat3",
    "LFM2.5-8B-A1B": "lfm2",
    "MiMo-VL": "hermes",
    "MiniMax-M2": "minimax_m2",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3_coder",
    "NVIDIA-Nemotron-Nano-v2": "nemotron_json",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-QwQ-32B": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen3_coder",
    "Qwen3.5-4B": "qwen3_coder",
    "Reka-Edge": "hermes",
    "StepFun3.5-Flash": "qwen3_coder",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek_v3",
    "deepseek-ai-DeepSeek-V3.1": "deepseek_v31",
    "deepseek-ai-DeepSeek-V3.2": "deepseek_v32",
    "google-gemma-4-31B-it": "gemma4",
    "google-gemma-4-31B-it-interleaved": "gemma4",
    "ibm-granite-granite-4.0": "hermes",
    "ibm-granite-granite-4.1": "hermes",
    "meetkai-functionary-medium-v3.1": "functionary_v3_llama_31",
    "meetkai-functionary-medium-v3.2": "functionary_v3_2",
    "meta-llama-Llama-3.1-8B-Instruct": "llama3_json",
    "meta-llama-Llama-3.2-3B-Instruct": "llama3_json",
    "meta-llama-Llama-3.3-70B-Instruct": "llama3_json",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "moonshotai-Kimi-K2": "kimi_k2",
    "openai-gpt-oss-120b": "openai",
    "stepfun-ai-Step-3.5-Flash": "qwen3_coder",
    "unsloth-Apriel-1.5": "jamba",
    "unsloth-mistral-Devstral-Small-2507": "mistral",
    "upstage-Solar-Open-100B": "solar",
}
SPECIAL = {name: f"<{name}>" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
USER = {"role": "user", "content": "Hi"}
OFFERED = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER},
    }
]
ARGUMENTS: list[dict[str, Any]] = [
    {"city": 'Pa{r}is "x" 数', "days": 3},
    {"city": "Rome"},
]
ENDS = (
    "<eos_token>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "[e~[", "<turn|>",
    "<|tool_response>", "<｜end▁of▁sentence｜>", "<seed:eos>", "<SPECIAL_12>", "<|end|>", "<sep>",
    "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|message_sep|>",
)  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_templates_own_calls_are_parsed_back(shared_data: Path, name: str) -> None:
    source = (shared_data / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    calls, thinking = tool_format("auto", [source]), thinking_format("auto", [source])
    assert calls is not None and calls.names[0] == FORMATS[name]
    prompt, reply, count = _written(source)
    parts: list[list[Event]] = []
    for pieces in ([reply], list(reply)):
        parser = ReplyParser(
            prompt=prompt,
            reasoning=thinking.reasoning if thinking else None,
            calls=None if thinking and thinking.takes_calls else calls.grammar,
            tools=TOOLS,
            make_id=lambda name, index: f"id{index}",
        )
        events = [event for piece in pieces for event in parser.feed(piece)]
        parts.append(merged(events + parser.finish()))
    whole, in_pieces = parts
    assert whole == in_pieces
    assert summary(whole)["calls"] == [("get_weather", each) for each in ARGUMENTS[:count]]
    assert not any(isinstance(event, Content) for event in whole)


def _written(source: str) -> tuple[str, str, int]:
    """What the template writes before and of a turn with as many calls as it takes."""
    template = ChatTemplate({"default": source}, SPECIAL)
    prompt = template.render([USER], tools=OFFERED)
    for count in (2, 1):
        turn = {"role": "assistant", "content": None, "tool_calls": _called(count)}
        try:
            text = template.render([USER, turn], tools=OFFERED, add_generation_prompt=False)
        except RequestError:  # one call at a time, says the template
            continue
        break
    begin = next(i for i in range(len(text)) if text[: i + 1] != prompt[: i + 1])
    while text[begin - 1] not in ">]:\n":
        begin -= 1  # the turn begins in the middle of no mark
    reply = text[begin:].removeprefix("assistant").removeprefix("<|CHATBOT_TOKEN|>")
    reply = reply.split("<|START_OF_TURN_TOKEN|>")[0]  # Cohere's go on with instructions
    for end in ENDS:
        place = reply.rfind(end)
        reply = reply[:place] if place > 0 else reply
    return text[:begin], reply, 1 + ("Rome" in reply)  # some keep the first call only


def _called(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call0000{index}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps(ARGUMENTS[index])},
        }
        for index in range(count)
    ]


def test_every_template_loads_or_says_why_not(shared_data: Path) -> None:
    """None of them may break the search for a format."""
    for path in sorted((shared_data / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        tool_format("auto", [source])
        thinking_format("auto", [source])
        try:
            ChatTemplate({"default": source}, SPECIAL).render([USER])
        except (RequestError, CheckpointError) as error:
            assert str(error).endswith(".")
