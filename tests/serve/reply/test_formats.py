"""Each format by hand: what models write, and what it means."""

from typing import Any

import pytest

from engine.errors import ConfigError
from serve.reply.events import CallStart
from serve.reply.registry import thinking_format, tool_format
from tests.serve.reply.replies import parse, summary

ROME = ("get_weather", {"city": "Rome"})
LONG = ("get_weather", {"city": 'Paris "x"', "days": 3})
TIME = ("get_time", {})
ARGUMENTS = '{"city": "Paris \\"x\\"", "days": 3}'

REPLIES: list[tuple[str, str, str, list[Any]]] = [
    ("hermes", f'Sure.\n<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n'
     '</tool_call>\n<tool_call>{"arguments": {}, "name": "get_time"}</tool_call>',
     "Sure.", [LONG, TIME]),
    ("hermes", '<tool_call>{"name": "get_time"}</tool_call>\nDone.', "Done.", [TIME]),
    ("longcat", '<longcat_tool_call>{"name": "get_time"}</longcat_tool_call>', "", [TIME]),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}', "",
     [ROME]),
    ("hermes", "a <tool_call> is a tag", "a <tool_call> is a tag", []),
    ("hermes", 'x <tool_call>{"nom": 1}</tool_call>', 'x <tool_call>{"nom": 1}</tool_call>', []),
    ("llama3_json", f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}', "", [LONG]),
    ("llama3_json", '<|python_tag|>{"name": "get_time", "parameters": {}}; '
     '{"name": "get_weather", "parameters": {"city": "Rome"}}', "", [TIME, ROME]),
    ("llama3_json", ' {"answer": {"deep": [1, 2]}} ', ' {"answer": {"deep": [1, 2]}} ', []),
    ("llama3_json", "No { here", "No { here", []),
    ("pythonic", "[get_weather(city='Paris \"x\"', days=3), get_time()]", "", [LONG, TIME]),
    ("pythonic", "[1] says (x=2)", "[1] says (x=2)", []),
    ("pythonic", "[f(a=[1, {'b': (None, True)}], c=-1.5, d=false, e=g(1))]", "",
     [("f", {"a": [1, {"b": [None, True]}], "c": -1.5, "d": False, "e": "g(1)"})]),
    ("llama4_pythonic", " <|python_start|>[get_weather(city='Rome'), get_time()]<|python_end|> Ok.",
     "Ok.", [ROME, TIME]),
    ("llama4_pythonic", "<|python_start|>[no calls]", "<|python_start|>[no calls]", []),
    ("mistral", f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "x"}}, '
     '{"name": "get_time", "arguments": {}}]', "", [LONG, TIME]),
    ("mistral", f"Well[TOOL_CALLS]get_weather[CALL_ID]abc[ARGS]{ARGUMENTS}[TOOL_CALLS]get_time{{}}",
     "Well", [LONG, TIME]),
    ("qwen3_coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis \"x\"\n"
     "</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
     "<tool_call><function=get_time></function></tool_call>", "", [LONG, TIME]),
    ("qwen3_coder", "<function=get_weather><parameter=city>\n\na\n\n</parameter></function>", "",
     [("get_weather", {"city": "\na\n"})]),
    ("qwen3_coder", "<function=get_weather><parameter=days>\nsome\n</parameter></function>", "",
     [("get_weather", {"days": "some"})]),
    ("seed_oss", "<seed:tool_call><function=get_weather><parameter=city>Rome</parameter>"
     "</function></seed:tool_call>", "", [ROME]),
    ("minimax_m2", 'Ok <minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">'
     'Paris "x"</parameter>\n<parameter name="days">3</parameter>\n</invoke>\n'
     "</minimax:tool_call>", "Ok", [LONG]),
    ("minimax_m2", '<invoke name="get_weather"><parameter name="city">\na\n</parameter>', "",
     [("get_weather", {"city": "\na\n"})]),
    ("glm45", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n"
     "</tool_call><tool_call>get_time</tool_call>", "", [ROME, TIME]),
    ("deepseek_v3", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
     f"```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
     "get_time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "", [LONG, TIME]),
    ("deepseek_v31", "A<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
     f"{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "A", [LONG]),
    ("deepseek_v32", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
     '<｜DSML｜parameter name="city" string="true">3</｜DSML｜parameter>\n'
     '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
     "</｜DSML｜invoke>\n</｜DSML｜function_calls>", "",
     [("get_weather", {"city": "3", "days": 3})]),
    ("kimi_k2", "Hm<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
     f"<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>", "Hm",
     [LONG]),
    ("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]', "",
     [ROME]),
    ("phi4_mini_json", 'functools[{"name": "get_time", "arguments": {}}]', "", [TIME]),
    ("cohere_command3", 'I plan.<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": '
     '"get_weather", "parameters": {"city": "Rome"}}]<|END_ACTION|>', "I plan.", [ROME]),
    ("command_r", 'Action: ```json\n[{"tool_name": "get_time", "parameters": {}}]```', "",
     [TIME]),
    ("functionary", f"<function=get_weather>{ARGUMENTS}</function>"
     "<function=get_time>{}</function>", "", [LONG, TIME]),
    ("functionary_v3_2", f"all\nLet me see.>>>get_weather\n{ARGUMENTS}>>>get_time\n{{}}",
     "Let me see.", [LONG, TIME]),
    ("internlm", 'Ok.<|action_start|><|plugin|>\n{"name": "get_weather", "parameters": '
     '{"city": "Rome"}}<|action_end|>', "Ok.", [ROME]),
    ("olmo3", '<function_calls>\nget_weather(city="Rome")\nget_time()\n</function_calls>', "",
     [ROME, TIME]),
    ("olmo3", "<function_calls>none</function_calls>", "<function_calls>none</function_calls>", []),
    ("lfm2", "<|tool_call_start|>[get_weather(city='Rome')]<|tool_call_end|>Now.", "Now.", [ROME]),
    ("gemma3", "```tool_code\nget_weather(city='Rome')\n```", "", [ROME]),
    ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Paris "x"<|"|>,days:3}<tool_call|>', "",
     [LONG]),
    ("functiongemma", "<start_function_call>call:f{a:[1,{b:<escape>c,}<escape>}],d:null}"
     "<end_function_call>", "", [("f", {"a": [1, {"b": "c,}"}], "d": None})]),
    ("gemma4", '<|tool_call>call:f{"a b": ["x, {y}",{c:"<|\\"|>"}],d:"q" r,e:NaN,f:null}'
     "<tool_call|>", "",
     [("f", {"a b": ["x, {y}", {"c": '<|"|>'}], "d": '"q" r', "e": "NaN", "f": None})]),
    ("apertus", '<|tools_prefix|>[{"get_weather": {"city": "Rome"}}, {"get_time": {}}]'
     "<|tools_suffix|>", "", [ROME, TIME]),
    ("jamba", '<tool_calls>[{"name": "get_time", "arguments": {}}]</tool_calls>', "", [TIME]),
    ("nemotron_json", '<TOOLCALL>[{"name": "get_time", "arguments": {}}]</TOOLCALL>', "", [TIME]),
    ("gigachat3", '<|function_call|>{"name": "get_time", "arguments": {}}', "", [TIME]),
    ("solar", "<|tool_calls|><|tool_call:begin|>x1<|tool_call:name|>get_time<|tool_call:args|>{}"
     "<|tool_call:end|><|calls|>", "", [TIME]),
    ("openai", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>'
     f"{ARGUMENTS}<|call|>", "", [LONG]),
    ("openai", "plain", "plain", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reply", "content", "calls"), REPLIES)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_what_models_write(
    name: str, reply: str, content: str, calls: list[Any], size: int
) -> None:
    pieces = [reply[i : i + size] for i in range(0, len(reply), size)]
    found = summary(parse(pieces, tools=name))
    assert found == {"content": content, "reasoning": "", "calls": calls}


THOUGHTS = [
    ("qwen3", "", "<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
    ("qwen3", "...<think>\n", "Hm.\n</think>\n\nYes.", "Hm.", "Yes."),
    ("qwen3", "<think>\n\n</think>\n\n", "Yes.", "", "Yes."),
    ("qwen3", "", " Yes </think> no ", "", " Yes </think> no "),
    ("qwen3", "", "<think>never ends ", "never ends", ""),
    ("deepseek_r1", "", "Hm.</think>Yes.", "Hm.", "Yes."),
    ("qwen3-thinking", "", "Hm.</think>Yes.", "Hm.", "Yes."),
    ("glm45", "", "<think>Hm.</think>\nYes.", "Hm.", "Yes."),
    ("minimax", "", "Hm.\n</think>\n\nYes.", "Hm.", "Yes."),
    ("kimi_k2", "", "<think>Hm.</think>Yes.", "Hm.", "Yes."),
    ("kimi", "", "◁think▷Hm.◁/think▷Yes.", "Hm.", "Yes."),
    ("mistral", "", "[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes."),
    ("granite", "", "Here is my thought process: Hm. Here is my response: Yes.", "Hm.", "Yes."),
    ("cohere", "", "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
     "Hm.", "Yes."),
    ("seed_oss", "", "<seed:think>Hm.</seed:think>Yes.", "Hm.", "Yes."),
    ("hunyuan_a13b", "", "<think>\nHm.\n</think>\n<answer>\nYes.\n</answer>", "Hm.", "Yes.\n"),
    ("apriel", "Here are my reasoning steps:\n", "Hm.\n[BEGIN FINAL RESPONSE]\nYes.", "Hm.",
     "Yes."),
    ("gemma4", "", "<|channel>thought\nHm.<channel|>Yes.", "Hm.", "Yes."),
    ("openai", "", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
     "<|message|>Yes.<|return|>", "Hm.", "Yes."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "prompt", "reply", "reasoning", "content"), THOUGHTS)
@pytest.mark.parametrize("size", [1, 10_000])
def test_where_reasoning_ends(
    name: str, prompt: str, reply: str, reasoning: str, content: str, size: int
) -> None:
    pieces = [reply[i : i + size] for i in range(0, len(reply), size)]
    found = summary(parse(pieces, thinking=name, prompt=prompt))
    assert found == {"content": content, "reasoning": reasoning, "calls": []}


def test_a_call_within_reasoning_ends_it() -> None:
    call = (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_time:7"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    )
    events = parse([f"<think>Hm. {call}"], thinking="kimi_k2", tools="kimi_k2")
    assert summary(events) == {"content": "", "reasoning": "Hm.", "calls": [TIME]}
    assert CallStart(0, "functions.get_time:7", "get_time") in events


def test_an_unfinished_call_is_shown_as_far_as_it_goes() -> None:
    events = parse(['<tool_call>{"name": "get_weather", "arguments": {"city": "Ro'], tools="hermes")
    assert [getattr(event, "text", None) for event in events] == [None, '{"city": "Ro']


def test_what_tools_are_called_is_the_models_choice_and_names_are_bounded() -> None:
    long = "x" * 300
    assert summary(parse([f"[TOOL_CALLS]{long}[ARGS]{{}}"], tools="mistral"))["calls"] == []
    unknown = '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>'
    assert summary(parse([unknown], tools="hermes"))["calls"] == [("nobody", {})]


def test_names_of_parsers_are_looked_up() -> None:
    with pytest.raises(ConfigError, match=r"--tool-call-parser 'hermse' is not known.*hermes"):
        tool_format("hermse", ())
    with pytest.raises(ConfigError, match="--reasoning-parser"):
        thinking_format("hermes", ())
    assert tool_format("auto", ["no tools here"]) is None
