"""Made-up requests of every operation in /openapi.json, half of them as it says and half against
it, NUL among their letters: none is answered with 5xx."""

import json
import warnings

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from serve.bench import front
from serve.paths import ACTIONS, OPERATIONS

EXAMPLES = 5  # of each operation, in each of the two ways
SOUND = {
    "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "text": "Hi",
    "tokens": [5], "max_tokens": 4,
}  # fmt: skip
TAKES = {
    each.path: each.takes.__struct_fields__ for each in [*OPERATIONS, *ACTIONS]
    if getattr(each, "takes", None)
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with front.running("--max-model-len", "64", "--max-num-seqs", "64") as running:
        running.wait_for("/health")
        yield running


def statuses(operation, url, mode):
    """What the server answers to made-up requests of an operation."""
    found = []
    cases = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES, database=None, derandomize=True, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, few=st.none() | st.sets(st.integers(0, 60), max_size=3))
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
    return found


def test_no_operation_answers_with_5xx(server):
    schema = schemathesis.openapi.from_dict(json.loads(server.get("/openapi.json")))
    assert schema.config.generation.allow_x00
    url = f"http://127.0.0.1:{server.port}"
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == len(OPERATIONS) + len(ACTIONS)
    seen: dict[GenerationMode, list[int]] = {mode: [] for mode in GenerationMode}
    kinds = set()
    for operation in operations:
        takes = TAKES.get(operation.path)
        if takes in kinds:  # a path that is another's second name
            continue
        kinds |= {takes} - {None}
        for mode in GenerationMode if takes else [GenerationMode.POSITIVE]:
            seen[mode] += statuses(operation, url, mode)
    assert {200, 400} <= set(seen[GenerationMode.POSITIVE])
    wrong = seen[GenerationMode.NEGATIVE]
    assert wrong.count(400) > 0.75 * len(wrong)  # `few` may leave out what is wrong
    server.get("/health")
