"""`best_of`: as many continuations of each prompt are drawn, and the n likeliest are answered.

As OpenAI has it: likely is what has the highest mean log-probability of its tokens. A beam search
takes the same field for its width, which is `serve.generation.beams`'s.
"""

from collections.abc import Mapping

from engine.errors import RequestError
from engine.outputs import OutputDelta
from serve.protocol.completions import CompletionRequest


def drawn(request: CompletionRequest) -> int:
    """How many continuations of each prompt are drawn; raises RequestError."""
    wanted = 1 if request.n is None else request.n
    drawn = request.best_of
    if drawn is None or request.use_beam_search:
        return wanted
    if drawn < wanted:
        raise RequestError(f"best_of must be at least n, which is {wanted}.", "best_of")
    if drawn > wanted and request.stream:
        raise RequestError(
            "The best_of several texts is known at their end; leave out stream.", "best_of"
        )
    return drawn


def likeliest(deltas: Mapping[int, OutputDelta], drawn: int, wanted: int) -> list[int]:
    """Of choices that have ended, `drawn` for each prompt, the `wanted` best of each; the likeliest
    first, where not all are wanted."""
    choices = sorted(deltas)
    if wanted == drawn:
        return choices
    kept: list[int] = []
    for first in range(0, len(choices), drawn):
        own = choices[first : first + drawn]
        kept += sorted(own, key=lambda choice: -_mean(deltas[choice]))[:wanted]
    return kept


def _mean(delta: OutputDelta) -> float:
    chosen = [next(iter(position.values())).logprob for position in delta.logprobs or ()]
    return sum(chosen) / len(chosen) if chosen else 0.0
