"""`ingot bench predicted`: how much sooner an answer is whole of which something is known before.

Streams are written without a prediction, and with predictions of which a share of the tokens is
right: the answer itself, with other tokens in places that are drawn. They take turns, so that times
are compared within a round; all write the same tokens, which is checked.
"""

import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from serve.bench.target import BenchError

if TYPE_CHECKING:
    from engine.core import EngineCore

SHARES = (1.0, 0.95, 0.8, 0.0)  # of a prediction's tokens
_PROMPT_LEN = 32


@dataclass(frozen=True)
class Load:
    """Streams at once, tokens of an answer, and rounds that count."""

    streams: int = 1
    tokens: int = 128
    rounds: int = 5


@dataclass(frozen=True)
class Turn:
    """What one run of all streams took."""

    seconds: float
    steps: int
    answers: list[list[int]]


def measure_predicted(settings: Mapping[str, Any], load: Load) -> dict[str, Any]:
    """Of each share that is right, by round, the time and the steps over those without a
    prediction.

    Raises:
        BenchError: the engine refused a request, or a prediction changed an answer.
    """
    from engine import LLM

    # what a run leaves in the prefix cache would be found by the next
    with LLM(**settings, max_num_seqs=16 * load.streams, enable_prefix_caching=False) as llm:
        llm.core.wait_for_programs()
        rounds = list(_rounds(llm.core, load))[1:]
    return {
        "streams": load.streams, "tokens": load.tokens,
        "ratios": {share: [each[share][0] for each in rounds] for share in SHARES},
        "steps": {share: [each[share][1] for each in rounds] for share in SHARES},
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> Table:
    """A row for each share."""
    title = f"right, of {found['tokens']} tokens"
    made = Table(title, "time", "least", "most", "steps", box=None, pad_edge=False)
    for share, ratios in found["ratios"].items():
        spread = (statistics.median(ratios), min(ratios), max(ratios))
        steps = statistics.median(found["steps"][share])
        made.add_row(f"{share:.0%}", *(f"{each:.3f}" for each in (*spread, steps)))
    return made


def _rounds(core: "EngineCore", load: Load) -> Iterator[dict[float, tuple[float, float]]]:
    """The first, which finds nothing warm, does not count."""
    draw, ids = random.Random(0), count()
    most = core.info.vocab_size - 1
    prompts = [[draw.randint(0, most) for _ in range(_PROMPT_LEN)] for _ in range(load.streams)]
    for _ in range(load.rounds + 1):
        plain = _run(core, ids, load, [(prompt, []) for prompt in prompts])
        found = {}
        for share in SHARES:
            said = [_blurred(answer, share, most, draw) for answer in plain.answers]
            turn = _run(core, ids, load, list(zip(prompts, said, strict=True)))
            if turn.answers != plain.answers:
                raise BenchError(f"A prediction of which {share:.0%} was right changed an answer.")
            found[share] = turn.seconds / plain.seconds, turn.steps / plain.steps
        yield found


def _blurred(answer: Sequence[int], share: float, most: int, draw: random.Random) -> list[int]:
    return [token if draw.random() < share else draw.randint(0, most) for token in answer]


def _run(
    core: "EngineCore",
    ids: Iterator[int],
    load: Load,
    asked: Sequence[tuple[list[int], list[int]]],
) -> Turn:
    """Answers to prompts with predictions, at a temperature at which little repeats itself."""
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=load.tokens, ignore_eos=True)
    answers: dict[int, list[int]] = {}
    start, steps = perf_counter(), core.stats.num_steps
    for prompt, said in asked:
        request_id = next(ids)
        answers[request_id] = []
        core.add(
            AddRequest(
                request_id=request_id, prompt_token_ids=prompt, params=params,
                prediction_token_ids=said,
            )
        )  # fmt: skip
    while core.has_work:
        for delta in core.step().deltas:
            if delta.error is not None:
                raise BenchError(delta.error)
            answers[delta.request_id] += delta.new_token_ids
    return Turn(perf_counter() - start, core.stats.num_steps - steps, list(answers.values()))
