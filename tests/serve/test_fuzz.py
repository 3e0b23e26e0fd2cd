"""Made-up requests of every operation in /openapi.json: none is answered with 5xx."""

import json
import warnings

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from serve.app import OPERATIONS, READABLE
from serve.bench import front

EXAMPLES = 10  # of each operation
SOUND = {
    "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "text": "Hi",
    "tokens": [5], "max_tokens": 4,
}  # fmt: skip
TAKES = {operation.path: operation.takes.__struct_fields__ for operation in OPERATIONS}


@pytest.fixture(scope="module")
def server():
    with front.running("--max-model-len", "64", "--max-num-seqs", "64") as running:
        running.wait_for("/health")
        yield running


def statuses(operation, url):
    """What the server answers to made-up requests of an operation."""
    found = []

    @settings(
        max_examples=EXAMPLES, database=None, derandomize=True, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(), few=st.none() | st.sets(st.integers(0, 60), max_size=3))
    def ask(case, few):
        if few is not None and isinstance(case.body, dict):  # of many fields one is always wrong
            sound = {name: SOUND[name] for name in TAKES[case.path] if name in SOUND}
            rest = [item for at, item in enumerate(case.body.items()) if at in few]
            case.body = sound | {name: value for name, value in rest if name not in sound}
        answer = case.call(base_url=url, timeout=90)
        found.append(answer.status_code)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask()
    return set(found)


def test_no_operation_answers_with_5xx(server):
    schema = schemathesis.openapi.from_dict(json.loads(server.get("/openapi.json")))
    url = f"http://127.0.0.1:{server.port}"
    seen = {each.ok().label: statuses(each.ok(), url) for each in schema.get_all_operations()}
    assert len(seen) == len(OPERATIONS) + len(READABLE)
    assert {200, 400} <= set.union(*seen.values())
    server.get("/health")
