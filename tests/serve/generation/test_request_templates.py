"""`chat_template` in a request: taken where the server says so, in the sandbox, with its bounds."""

import openai
import pytest

from serve.generation.request_templates import MAX_TEMPLATE_CHARS
from serve.settings import ServerSettings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
SHOUT = "{{ messages[0].content }}!{{ mood }}"
TRUSTING = ServerSettings(trust_request_chat_template=True)


async def test_a_template_of_the_request_goes_before_the_models(serve: Serve) -> None:
    async with serve(TRUSTING) as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        answer = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=6,
            n=2,
            extra_body={"chat_template": SHOUT, "chat_template_kwargs": {"mood": "?"}},
        )
        others = await served.chat("Hi")
        ids = await served.post(
            "/tokenize", messages=[{"role": "user", "content": "Hi"}], chat_template=SHOUT
        )
    assert [choice.message.content for choice in answer.choices] == ["Hi!?Hi", "Hi!?Hi"]
    assert others.json()["choices"][0]["message"]["content"] == "user\nHi"
    assert ids.json()["count"] == 3


async def test_its_own_variables_count(serve: Serve) -> None:
    """Efforts and documents are for the template that is used."""
    source = "{{ reasoning_effort }} {% for d in documents %}{{ d.text }}{% endfor %}"
    async with serve(TRUSTING) as served:
        given = {"reasoning_effort": "low", "documents": [{"text": "doc"}], "max_tokens": 7}
        answer = await served.chat("Hi", chat_template=source, **given)
        refused = await served.chat("Hi", chat_template="x", reasoning_effort="low")
    assert answer.json()["choices"][0]["message"]["content"] == "low doc"
    assert refused.json()["error"]["param"] == "reasoning_effort"


async def test_without_the_flag_it_is_refused_by_its_name(serve: Serve) -> None:
    async with serve() as served:
        response = await served.chat("Hi", chat_template=SHOUT)
        nothing = await served.chat("Hi", chat_template=None)
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == "chat_template"
    assert "--trust-request-chat-template" in error["message"]
    assert nothing.status_code == 200


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{% if %}", "invalid in line 1"),
        ("{{ x | no_such_filter }}", "no_such_filter"),
        ("{% if a %}" * 3000 + "{% endif %}" * 3000, "nested too deeply"),
        ("x" * (MAX_TEMPLATE_CHARS + 1), "at most 65536"),
        ("{{ messages.__class__.__mro__ }}", "out of reach"),
        ("{{ 'a' * 10 ** 9 }}", "more than"),
        ("{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}", "steps"),
        ("{{ raise_exception('No.') }}", "No."),
        ("", "empty"),
    ],
)
async def test_the_sandbox_is_the_same(serve: Serve, source: str, part: str) -> None:
    async with serve(TRUSTING) as served:
        response = await served.chat("Hi", chat_template=source)
        good = await served.chat("Hi", chat_template=SHOUT, max_tokens=2)
    assert response.status_code == 400 and part in response.json()["error"]["message"]
    assert good.status_code == 200
