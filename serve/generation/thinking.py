"""How long a reply may think, and how long it did: `thinking_token_budget`, and counts for usage.

Where reasoning is marked is the format's to say (`serve.reply.reasoning`); the engine forces its
end (`engine.reasoning.thinking`).
"""

from engine.errors import RequestError
from engine.reasoning.thinking import ThinkingBudget
from engine.reasoning.thoughts import Thoughts
from serve.model import ServedModel
from serve.protocol.decoding import GenerationRequest

_FIELD = "thinking_token_budget"
_NO_LIMIT = -1


def thinking_budget(
    request: GenerationRequest, model: ServedModel, prompt: str, context: int
) -> ThinkingBudget | None:
    """What `request` allows a reply to `prompt`; None is no limit.

    Raises RequestError, also for a model of which nobody knows how it thinks.
    """
    wanted = request.thinking_token_budget
    if wanted is None or wanted == _NO_LIMIT:
        return None
    if wanted < 0:
        raise RequestError(
            f"{_FIELD} must be at least 0, or -1 for no limit, got {str(wanted)[:40]}.", _FIELD
        )
    if model.thinking is None or model.tokenizer is None:
        raise RequestError(
            f"{_FIELD} needs a model of which it is known how it writes its reasoning, and this "
            "one's is not; leave it out, or start the server with --reasoning-parser.",
            _FIELD,
        )
    reasoning = model.thinking.reasoning
    end = model.tokenizer.encode(reasoning.forced_end, add_special_tokens=False)
    return ThinkingBudget(
        max_tokens=min(wanted, context), end_token_ids=end, marks=reasoning.marks(prompt)
    )


def thoughts_of(model: ServedModel, prompt: str) -> Thoughts | None:
    """What counts the reasoning of one reply to `prompt`; None where no format is known."""
    if model.thinking is None or model.tokenizer is None:
        return None
    return Thoughts(model.thinking.reasoning.marks(prompt), model.tokenizer.token_bytes)
