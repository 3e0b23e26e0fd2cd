"""Templates render as transformers renders them, within a sandbox and a budget."""

import json

import pytest

from engine.errors import RequestError
from engine.templates.chat_template import ChatTemplate
from models.errors import CheckpointError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
USER = [{"role": "user", "content": "first question"}]
TALK = [
    *USER,
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question <é>"},
]
SYSTEM = [{"role": "system", "content": "be brief"}, *USER]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather <b> in é",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Where"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}
CALLED = [
    *USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "22 degrees"},
]
# Templates that transformers cannot render either, and why.
BROKEN = {
    "Kimi-K2-Instruct.jinja": "list.append, which changes a value",
    "Kimi-K2-Thinking.jinja": "list.append, which changes a value",
    "fireworks-ai-llama-3-firefunction-v2.jinja": "a variable `functions` that it needs",
    "llama-cpp-deepseek-r1.jinja": "tojson of a generator",
}
NEED_TOOLS = "-tool_use.jinja"
NEXT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def template(source, **named):
    return ChatTemplate({"default": source, **named}, SPECIAL)


def _paths(shared_data):
    return sorted((shared_data / "templates").glob("*.jinja"))


def _outcome(render):
    """The text, or that there is none."""
    try:
        return render()
    except Exception:
        return None


def test_special_tokens_and_the_generation_prompt_are_variables():
    made = template(
        "{{ bos_token }}{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    )
    assert made.render(USER) == "<s>first question>"
    assert made.render(USER, add_generation_prompt=False) == "<s>first question"


def test_blocks_are_trimmed_and_loops_controlled_as_in_transformers():
    source = (
        "{% for m in messages %}\n    {% if loop.index == 2 %}{% break %}{% endif %}\n"
        "{{ m.role }}\n{% endfor %}"
    )
    assert template(source).render(TALK) == "user\n"


def test_tojson_keeps_letters_and_takes_transformers_arguments():
    value = {"b": "<é>", "a": [1]}
    made = template("{{ value|tojson }}{{ value|tojson(indent=2, sort_keys=true) }}")
    expected = json.dumps(value, ensure_ascii=False)
    expected += json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    assert made.render(USER, variables={"value": value}) == expected


def test_generation_blocks_render_their_body():
    assert template("a{% generation %}b{% endgeneration %}").render(USER) == "ab"


def test_the_templates_own_refusal_is_the_error():
    with pytest.raises(RequestError, match=r"^Roles must alternate$") as caught:
        template("{{ raise_exception('Roles must alternate') }}").render(USER)
    assert caught.value.param == "messages"


def test_any_error_of_a_template_is_the_requests():
    with pytest.raises(RequestError, match="cannot render"):
        template("{{ messages[0].content + 1 }}").render(USER)


def test_tools_choose_the_template_that_is_named_so():
    made = template("plain", tool_use="{{ tools[0].function.name }}")
    assert made.render(USER) == "plain"
    assert made.render(USER, tools=TOOLS) == "get_weather"
    with pytest.raises(CheckpointError, match="default"):
        ChatTemplate({"rag": "a", "tool_use": "b"}, SPECIAL)


@pytest.mark.parametrize("name", ["messages", "tools", "bos_token", "tokenize", "content", "other"])
def test_only_variables_that_the_template_asks_for_can_be_set(name):
    source = (
        "{% if thinking is not defined %}{% set thinking = true %}{% endif %}"
        "{{ style }}{{ thinking }}"
        "{% if messages %}{% set content = '' %}{% endif %}{{ content }}{{ tools }}"
    )
    made = template(source)
    assert made.render(USER, variables={"style": "short ", "thinking": False}) == "short FalseNone"
    with pytest.raises(RequestError, match="style, thinking") as caught:
        made.render(USER, variables={name: "x"})
    assert caught.value.param == "chat_template_kwargs"


def test_content_parts_become_text_where_a_template_takes_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert template(NEXT).render([{"role": "user", "content": parts}]) == "[user]a\nb"
    with pytest.raises(RequestError, match="text only"):
        template(NEXT).render([{"role": "user", "content": [{"type": "image_url"}]}])


def test_text_becomes_parts_where_a_template_takes_parts():
    source = (
        "{% for m in messages %}{% for p in m.content %}({{ p['text'] }}){% endfor %}{% endfor %}"
    )
    assert template(source).render(TALK[:2]) == "(first question)(first answer)"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("f.arguments|tojson", '{"city": "Paris"}'),  # takes an object
        ("'<' + f.arguments + '>'", '<{"city": "Paris"}>'),  # takes JSON text
    ],
)
def test_arguments_of_a_call_come_in_the_form_that_the_template_takes(shown, expected):
    source = "{% for m in messages %}{% for c in m.tool_calls %}{% set f = c.function %}"
    source = f"{{{{ messages[0].content }}}}{source}{{{{ {shown} }}}}{{% endfor %}}{{% endfor %}}"
    as_object = {**CALL, "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    for call in (CALL, as_object):
        talk = [*USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
        assert template(source).render(talk) == "first question" + expected


def test_a_message_without_content_has_the_form_that_shows_its_calls():
    source = (
        "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls|tojson }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert "get_weather" in template(source).render(CALLED)


def test_a_message_is_left_open_to_be_continued():
    source = NEXT + "{% if add_generation_prompt %}[assistant]{% endif %}</s>"
    made = template(source)
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert made.render(TALK[:2], **options) == "[user]first question[assistant]first answer"
    parts = [*USER, {"role": "assistant", "content": [{"type": "text", "text": "so "}]}]
    assert made.render(parts, **options).endswith("[assistant]so ")
    trimmed = template(source.replace("m.content", "m.content|trim"))
    assert trimmed.render(parts, **options).endswith("[assistant]so")
    with pytest.raises(RequestError, match="add_generation_prompt"):
        made.render(TALK[:2], continue_final_message=True)
    with pytest.raises(RequestError, match="does not keep"):
        template("nothing").render(TALK[:2], **options)


@pytest.mark.parametrize("messages", ["text", [1], [["role"]], None, {"role": "user"}])
def test_messages_that_are_none_are_refused(messages):
    with pytest.raises(RequestError):
        template(NEXT).render(messages)


def test_objects_do_not_reach_a_template():
    with pytest.raises(RequestError, match="plain JSON"):
        template("{{ style }}").render(USER, variables={"style": object()})


def test_messages_are_not_changed():
    before = json.dumps(CALLED)
    template(NEXT).render(CALLED)
    assert json.dumps(CALLED) == before


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'other' %}",
        "{% import 'other' as other %}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a'|nothing }}",
    ],
)
def test_a_template_that_cannot_run_is_refused_when_it_is_loaded(source):
    with pytest.raises(CheckpointError, match="'default' is invalid in line 1"):
        template(source)


@pytest.mark.parametrize("depth", [150, 5000])
def test_a_template_that_is_nested_too_deeply_is_refused(depth):
    with pytest.raises(CheckpointError, match="too deeply"):
        template("{% if x %}" * depth + "{% endif %}" * depth)


GROWING = (
    "{%% set n = namespace(v='a') %%}{%% for i in range(60) %%}{%% set n.v = %s %%}{%% endfor %%}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ 7 ** 1000000000 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.encode().zfill(10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ ('a' * 60000).replace('a', 'b' * 60000) }}",
        "{{ ('a' * 60000)|replace('a', 'b' * 60000) }}",
        "{{ ('b' * 60000).join(['a'] * 60000) }}",
        "{{ (['a'] * 60000)|join('b' * 60000) }}",
        "{{ ('a\n' * 1000)|indent(60000) }}",
        "{{ [1]|tojson(indent=10**4) }}",
        GROWING % "n.v ~ n.v",
        GROWING % "n.v + n.v",
        GROWING % "[n.v, n.v]" + "{{ n.v|tojson }}",
        GROWING % "dict(a=n.v, b=n.v)" + "{{ n.v }}",
        GROWING.replace("'a'", "10") % "n.v * n.v",
        "{% set n = namespace(v=[]) %}{% for i in range(99999) %}"
        "{% set n.v = n.v + ['a' * 100000] %}{% endfor %}",
    ],
)
def test_a_template_that_explodes_is_an_error_of_the_request(source):
    with pytest.raises(RequestError) as caught:
        template(source).render(USER)
    assert caught.value.param == "messages" and len(str(caught.value)) < 500


def test_a_long_conversation_stays_within_the_budget():
    made = template(NEXT)
    assert len(made.render(TALK * 2000)) > 100_000


def test_real_templates_render(shared_data):
    paths = _paths(shared_data)
    assert len(paths) > 50
    for path in paths:
        made = template(path.read_text(encoding="utf-8"))
        if path.name in BROKEN:
            continue
        tools = TOOLS if path.name.endswith(NEED_TOOLS) else None
        text = made.render(TALK, tools=tools)
        assert all(message["content"] in text for message in TALK), path.name


def test_real_templates_show_tools_or_refuse_them(shared_data):
    for path in _paths(shared_data):
        if path.name in BROKEN:
            continue
        made = template(path.read_text(encoding="utf-8"))
        try:
            text = made.render(CALLED, tools=TOOLS)
        except RequestError as error:
            assert "cannot render" not in str(error), path.name  # its own raise_exception
        else:
            assert "first question" in text, path.name


@pytest.mark.parity
def test_real_templates_render_as_in_transformers(shared_data):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    for path in _paths(shared_data):
        source = path.read_text(encoding="utf-8")
        made = template(source)
        for messages, tools in ((TALK, None), (SYSTEM, None), (CALLED, TOOLS)):
            form = made._choose(False).adapted(json.loads(json.dumps(messages)))
            theirs = _outcome(
                lambda form=form, tools=tools, source=source: utils.render_jinja_template(
                    [form], tools, chat_template=source, add_generation_prompt=True, **SPECIAL
                )[0][0]
            )
            ours = _outcome(lambda made=made, m=messages, t=tools: made.render(m, tools=t))
            assert ours == theirs, path.name


@pytest.mark.parity
@pytest.mark.parametrize("name", ["Qwen-Qwen2.5-7B-Instruct", "google-gemma-2-2b-it"])
def test_open_messages_end_as_in_transformers(shared_data, name):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    path = shared_data / "templates" / f"{name}.jinja"
    source = path.read_text(encoding="utf-8")
    talk = [*USER, {"role": "assistant", "content": "It is so "}]
    theirs = utils.render_jinja_template(
        [talk], chat_template=source, continue_final_message=True, **SPECIAL
    )[0][0]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert template(source).render(talk, **options) == theirs
