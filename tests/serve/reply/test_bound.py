"""Replies whose calls are bound: what random choices write, read by the format's own parser."""

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.errors import RequestError
from engine.grammar.matcher import Constraint, Vocabulary, compile_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.reply.after_reasoning import after_reasoning
from serve.reply.bound import BindsCalls, CallsOrAnswer, Wish
from serve.reply.registry import thinking_format, tool_format
from serve.reply.reply import ReplyParser
from tests.engine.grammar.conftest import EOS, allowed
from tests.serve.reply.replies import summary
from tests.serve.reply.test_formats import REPLIES

WEATHER = {
    "type": "object", "additionalProperties": False, "required": ["city", "day"],
    "properties": {"city": {"enum": ["Rome", "<b>"]}, "day": {"$ref": "#/$defs/day"}},
    "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 31}},
}  # fmt: skip
TOOLS = {"get_weather": WEATHER, "get": {"type": "object", "properties": {}, "maxProperties": 0}}
ANSWER = {
    "type": "object", "properties": {"name": {"enum": ["get", "x"]}, "yes": {"type": "boolean"}},
    "required": ["name", "yes"], "additionalProperties": False,
}  # fmt: skip
MARKS = {
    "hermes": ["<tool_call>"], "llama3_json": ["<|python_tag|>"],
    "mistral": ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
    "deepseek_v3": ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
                    "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"],
    "kimi_k2": ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
                "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"],
    "granite": ["<|tool_call|>"], "phi4_mini_json": ["functools", "<|/tool_call|>"],
    "cohere_command3": ["<|START_ACTION|>", "<|END_ACTION|>"], "command_r": ["Action: ```json\n"],
    "functionary": ["<function="], "internlm": ["<|action_start|>", "<|action_end|>", "<|plugin|>"],
    "apertus": ["<|tools_prefix|>", "<|tools_suffix|>"], "jamba": ["<tool_calls>"],
    "nemotron_json": ["<TOOLCALL>"], "functionary_v3_2": [">>>", "all\n", "get_weather\n", "get\n"],
    "longcat": ["<longcat_tool_call>"],
    "gigachat3": ["<|message_sep|>", "<|role_sep|>", "<|function_call|>"],
    "solar": ["<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>",
              "<|tool_call:end|>", "<|tool_calls|>", "<|calls|>"],
    "openai": ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>",
               "<|channel|>final<|message|>", "<|channel|>commentary to=functions.get json"],
}  # fmt: skip
MARKS["deepseek_v31"] = MARKS["deepseek_v3"]
TAGGED = {
    "qwen3_coder": ["<tool_call>", "</tool_call>", "<function=", "</parameter>"],
    "seed_oss": ["<seed:tool_call>", "<function=", "</parameter>"],
    "minimax_m2": ["<minimax:tool_call>", '<invoke name="', "</parameter>"],
    "glm45": ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>",
              "</arg_value>"],
    "deepseek_v32": ["<｜DSML｜function_calls>", '<｜DSML｜invoke name="', "</｜DSML｜parameter>"],
}  # fmt: skip
ELSEWHERE = {
    "lfm2": ["<|tool_call_start|>", "<|tool_call_end|>"], "olmo3": [], "gemma3": [], "pythonic": [],
    "llama4_pythonic": [],
    "gemma4": ["<|tool_call>", "<tool_call|>", '<|"|>'], "functiongemma": ["<escape>"],
}  # fmt: skip  # of test_argument_grammars.py
NOTE = {
    "type": "object", "additionalProperties": False, "required": ["text", "by", "tags", "hours"],
    "properties": {
        "text": {"type": "string", "description": "Any"}, "by": {"type": ["string", "null"]},
        "tags": {"type": ["array", "null"], "items": {"type": "boolean"}, "maxItems": 2},
        "colour": {"$ref": "#/$defs/colour"}, "hours": {"$ref": "#/$defs/hours"},
    },
    "$defs": {
        "colour": {"type": "string", "enum": ["red", "dark red"]},
        "hours": {"type": "integer", "maximum": 3, "minimum": 0},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The demo's, with the marks that are tokens of their models."""
    made = json.loads(Tokenizer.load(DEMO_FOLDER).to_json())
    known = {token["content"] for token in made["added_tokens"]}
    named = {
        mark for each in [*MARKS.values(), *TAGGED.values(), *ELSEWHERE.values()] for mark in each
    }
    marks = {mark for mark in named - known if mark[0] in "<[" and mark[-1] in ">]"}
    usual = made["added_tokens"][0]
    for number, mark in enumerate([*sorted(marks), "plain"]):
        special = {"id": 2048 + number, "content": mark, "special": mark[0] == "["}
        made["added_tokens"].append({**usual, **special})
    folder = tmp_path_factory.mktemp("marks")
    for path in DEMO_FOLDER.iterdir():
        if path.name.endswith("config.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def marked(tokenizer: Tokenizer) -> Vocabulary:
    return make_vocabulary(tokenizer, tokenizer.vocab_size, [EOS])


def test_marks_are_what_llguidance_takes_for_no_text(
    tokenizer: Tokenizer, marked: Vocabulary
) -> None:
    marks, plain = tokenizer.mark_ids, tokenizer.token_id("plain")
    for token in range(2046, tokenizer.vocab_size):
        assert marked.tokens.is_special_token(token) == (token in marks.values())
    assert {"<tool_call>", "[ARGS]", "<|im_end|>"} < marks.keys() and plain not in marks.values()


def written(
    part: Any, marks: list[str], tokenizer: Tokenizer, marked: Vocabulary, chance: random.Random
) -> tuple[str, bool]:
    """What random choices among allowed tokens write, marks being likely, and whether it ended."""
    tag = StructuredOutputsParams(structural_tag={"format": part})
    source = grammar_source(tag, tokenizer.mark_ids)
    constraint = Constraint(marked, compile_grammar(marked, source))
    liked = [tokenizer.encode(mark, add_special_tokens=False) for mark in marks]
    ids, plan = constraint.begin(), []
    for _ in range(250):
        if constraint.finished:
            return tokenizer.decode(ids, skip_special_tokens=False), True
        tokens = allowed(constraint)
        if not plan or plan[0] not in tokens:
            fitting = [mark for mark in liked if mark[0] in tokens]
            likely = fitting and chance.random() < 0.3
            plan = list(chance.choice(fitting)) if likely else [chance.choice(tokens)]
        token = plan.pop(0)
        if token != EOS:
            ids.append(token)
        ids += constraint.advance(token)
    return tokenizer.decode(ids, skip_special_tokens=False), False


def checked(
    reply: str, whole: bool, name: str, calls: Any, thinking: Any = None
) -> tuple[Any, int]:
    """The reply's parts, and how many calls are complete, all of which are valid."""
    parser = ReplyParser(prompt="", reasoning=thinking, calls=calls, tools=TOOLS)
    events = parser.feed(reply) + (parser.finish() if whole else [])
    if not whole:
        events = events[: max([i for i, e in enumerate(events) if hasattr(e, "id")], default=0)]
    found = summary(events)
    for tool, arguments in found["calls"]:
        Draft202012Validator(TOOLS[tool]).validate(arguments)
    return found, len(found["calls"])


BINDING = sorted({name for name, *_ in REPLIES if name in MARKS})


@pytest.mark.parametrize("name", BINDING)
def test_every_call_is_valid(name: str, tokenizer: Tokenizer, marked: Vocabulary) -> None:
    grammar, chance, count = tool_format(name, ()).grammar, random.Random(1), 0
    part = grammar.bound(Wish(TOOLS, excludes=("<think>",)))
    for _ in range(6):
        reply, whole = written(part, MARKS[name], tokenizer, marked, chance)
        found, number = checked(reply, whole, name, grammar)
        assert "<think>" not in found["content"]
        count += number
    assert count > 2


@pytest.mark.parametrize("name", BINDING)
def test_calls_or_an_answer(name: str, tokenizer: Tokenizer, marked: Vocabulary) -> None:
    grammar, chance, answers, count = tool_format(name, ()).grammar, random.Random(2), 0, 0
    answer = StructuredOutputsParams(json=ANSWER).as_format()
    part = grammar.bound(Wish(TOOLS, answer=answer, one_call=True))
    for _ in range(10):
        reply, whole = written(part, ["{", *MARKS[name]], tokenizer, marked, chance)
        found, number = checked(reply, whole, name, grammar.chosen())
        assert number < 2
        if whole and not number:
            Draft202012Validator(ANSWER).validate(json.loads(found["content"]))
            answers += 1
        count += number
    assert answers > 0 and count > 0


@pytest.mark.parametrize("name", sorted(TAGGED))
def test_values_between_tags_are_valid(name: str, tokenizer: Tokenizer, marked: Vocabulary) -> None:
    grammar, chance, seen = tool_format(name, ()).grammar, random.Random(3), []
    tools = {"note": NOTE, "free": {"type": "object"}}
    answer = StructuredOutputsParams(json=ANSWER).as_format()
    for wish in (Wish({"free": tools["free"]}, answer=answer), Wish(tools), Wish({"note": NOTE})):
        part = grammar.bound(wish)
        for _ in range(6):
            reply, _ = written(
                part, ["note", "free", "null", *TAGGED[name]], tokenizer, marked, chance
            )
            parser = ReplyParser(prompt="", calls=grammar, tools=tools)
            found = summary_of_all_but_the_last(parser.feed(reply))
            seen += found
    for tool, arguments in seen:
        Draft202012Validator(NOTE if tool == "note" else tools[tool]).validate(arguments)
    notes = [arguments for tool, arguments in seen if tool == "note"]
    assert len(notes) > 2 and len(seen) > len(notes), seen


@pytest.mark.parametrize(
    ("text", "fits"),
    [("null", True), (" null\n", True), ("nullify", True), ("", True), ('"5"', True), ("5 x", True),
     ("5", False), (" -1.5e3\n", False), ("true", False), ("[a", False), ("\x1cNaN", False)],
)  # fmt: skip
def test_a_text_that_may_be_null_is_read_as_nothing_else(
    text: str, fits: bool, tokenizer: Tokenizer, marked: Vocabulary
) -> None:
    schema = {"properties": {"by": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    part = tool_format("qwen3_coder", ()).grammar.bound(Wish({"f": schema}))
    tag = StructuredOutputsParams(structural_tag={"format": part})
    matcher = compile_grammar(marked, grammar_source(tag, {}))
    call = f"<function=f><parameter=by>{text}</parameter></function>"
    ids = [id for letter in call for id in tokenizer.encode(letter, add_special_tokens=False)]
    assert (matcher.try_consume_tokens(ids) == len(ids)) == fits


def summary_of_all_but_the_last(events: Any) -> Any:
    """Its arguments may not be complete."""
    starts = [index for index, event in enumerate(events) if hasattr(event, "id")]
    return summary(events[: starts[-1]] if starts else [])["calls"]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"pattern": "a"}, "note.x: pattern"), ({"const": 5}, "note.x: its reader"),
        ({"enum": ["a", " b"]}, "note.x: one of"), ({"type": ["string", "integer"]}, "note.x: its"),
        ({"type": ["string", "null"], "maxLength": 3}, "note.x: maxLength"),
    ],
)  # fmt: skip
def test_values_that_tags_cannot_keep_to_are_refused(schema: Any, says: str) -> None:
    grammar = tool_format("qwen3_coder", ()).grammar
    if "pattern" in schema:
        schema = {"type": "string", **schema}
    for wrong, message in (
        ({"properties": {"x": schema}}, says),
        ({"properties": {}, "minProperties": 1}, "note: minProperties"),
        ({"properties": {"a b": {}}}, "'a b'"),
        ({"properties": {}, "required": ["x"]}, "required"),
        ({"additionalProperties": {"type": "integer"}}, "note: additionalProperties"),
    ):
        with pytest.raises(RequestError, match=message):
            grammar.bound(Wish({"note": wrong}))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("lfm2", '<|tool_call_start|>[get_weather(city="Rome", day=31)]<|tool_call_end|>'),
        ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,day:31}<tool_call|>'),
    ],
)
def test_marks_around_arguments_are_tokens(
    name: str, call: str, tokenizer: Tokenizer, marked: Vocabulary
) -> None:
    part = tool_format(name, ()).grammar.bound(Wish({"get_weather": WEATHER}))
    tag = StructuredOutputsParams(structural_tag={"format": part})
    source = grammar_source(tag, tokenizer.mark_ids)
    call = f"So {call} Done."
    for text, fits in ((call, True), (call.replace("31", "32"), False), (call[:3], True)):
        matcher = compile_grammar(marked, source)
        ids = tokenizer.encode(text, add_special_tokens=False)
        whole = matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
        assert whole == fits


def test_every_format_can_be_bound() -> None:
    names = {name for name, *_ in REPLIES}
    assert all(isinstance(tool_format(n, ()).grammar, BindsCalls) for n in names)
    assert names <= {*BINDING, *TAGGED, *ELSEWHERE}


@pytest.mark.parametrize(
    ("reply", "fits"),
    [
        ("all\nHm >> a >>", True), ("all\nHm>>>get\n{}", True), (">>>get\n{}>>>all\nDone.", True),
        ("get\n{}\n>>>get\n{}", True), ("all\n>>>get\n{}", True), ("all\na>>>>get\n{}", False),
        ("all\na>>>", False), ('get\n{"a": 1}', False), ("other\n{}", False), ("Hm", False),
        ("all\na>>>other\n", False), ("get\n{}get\n{}", False),
    ],
)  # fmt: skip
def test_a_text_ends_where_its_reader_ends_it(
    reply: str, fits: bool, tokenizer: Tokenizer, marked: Vocabulary
) -> None:
    """Three marks of `>`, the first that there are, begin what is for somebody else."""
    part = tool_format("functionary_v3_2", ()).grammar.bound(Wish({"get": TOOLS["get"]}))
    tag = StructuredOutputsParams(structural_tag={"format": part})
    matcher = compile_grammar(marked, grammar_source(tag, tokenizer.mark_ids))
    ids = tokenizer.encode(reply, add_special_tokens=False)
    assert (matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()) == fits


def test_a_tool_that_is_called_as_the_answer_is_cannot_be_bound() -> None:
    with pytest.raises(RequestError, match="tools: all: "):
        tool_format("functionary_v3_2", ()).grammar.bound(Wish({"all": {}}))


def test_an_answer_behind_its_recipient_may_hold_the_mark() -> None:
    reader = tool_format("functionary_v3_2", ()).grammar.chosen()
    for begin in ("", ">>>"):
        parser = ReplyParser(prompt="", calls=reader)
        events = parser.feed(begin + 'all\n{"a": ">>>get\n{}"}') + parser.finish()
        assert "".join(event.text for event in events) == '{"a": ">>>get\n{}"}'


def test_reasoning_is_free_and_ends_where_the_parser_ends_it(
    tokenizer: Tokenizer, marked: Vocabulary
) -> None:
    """What begins a call binds nothing within thoughts, where the parser reads no call."""
    grammar = tool_format("hermes", ()).grammar
    reasoning = thinking_format("qwen3", ()).reasoning
    part = after_reasoning(reasoning, "", grammar.bound(Wish(TOOLS, excludes=("<think>",))))
    source = grammar_source(
        StructuredOutputsParams(structural_tag={"format": part}), tokenizer.mark_ids
    )
    call = '<tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>'

    def accepts(text: str) -> bool:
        matcher = compile_grammar(marked, source)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    assert accepts(f"<think>It {{ may</think>\n\nWell. {call}\n{call}")
    assert accepts(call) and accepts("Well.") and not accepts("<think>Hm.")
    assert not accepts(call.replace("{}", '{"a": 1}'))
    letters = [tokenizer.encode(c, False)[0] for c in "<tool_call>"]
    assert compile_grammar(marked, source).try_consume_tokens(letters) == len(letters) - 1


def test_an_answer_may_hold_a_mark() -> None:
    reader = CallsOrAnswer(tool_format("hermes", ()).grammar, ("<tool_call>",))
    reply = '{"a": "<tool_call>{"name": "x", "arguments": {}}</tool_call>"}'
    for size in (1, 99):
        parser = ReplyParser(prompt="", calls=reader)
        pieces = [reply[i : i + size] for i in range(0, len(reply), size)]
        events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
        assert "".join(event.text for event in events) == reply
