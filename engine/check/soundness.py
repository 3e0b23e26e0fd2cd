"""What can be said of a model without another to compare it with.

Owns the questions: are all activations numbers, do texts survive their tokens, does the chat
template take a conversation? Knows nothing of how the answers are shown.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.check.trace import Trace
from engine.errors import RequestError
from engine.templates.chat_template import ChatTemplate
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def f(x):\n    return x ** 2  # 3.14\n\n",
    "Größe, 東京, привет, 👩‍🚀, naïve",
    "1234567890 + 0.5e-3 = ?",
)
HELLO = "Hello!"


@dataclass(frozen=True)
class Finding:
    """One answer; "skipped" says in `text` what the model does not have."""

    name: str
    verdict: Literal["ok", "failed", "skipped"]
    text: str


def check_activations(trace: Trace) -> Finding:
    """Whether every layer gives numbers, and which is the first that does not."""
    for name, state in [*trace.states.items(), (trace.what, trace.logits)]:
        if not np.isfinite(state).all():
            share = float(np.mean(~np.isfinite(state)))
            return Finding("activations", "failed", f"{name}: {share:.0%} are no finite numbers")
    largest = max(float(np.abs(state).max()) for state in trace.states.values())
    layers = sum(not name.endswith("embedding") for name in trace.states)
    return Finding("activations", "ok", f"finite in {layers} layers, at most {largest:.3g}")


def check_tokens(tokenizer: Tokenizer | None) -> Finding:
    """Whether the text of a text's tokens has the same tokens."""
    if tokenizer is None:
        return Finding("token ids", "skipped", "the model has no tokenizer")
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        again = tokenizer.decode(ids, skip_special_tokens=False)
        if tokenizer.encode(again, add_special_tokens=False) != ids:
            return Finding("token ids", "failed", f"{text!r} comes back as {again!r}")
    return Finding("token ids", "ok", f"{len(TEXTS)} texts survive their tokens")


def check_template(tokenizer: Tokenizer | None) -> Finding:
    """Whether the chat template renders a conversation."""
    if tokenizer is None or not tokenizer.chat_templates:
        return Finding("chat template", "skipped", "the model has none")
    try:
        template = ChatTemplate(tokenizer.chat_templates, tokenizer.special_tokens)
        rendered = template.render([{"role": "user", "content": HELLO}])
    except (RequestError, CheckpointError) as error:
        return Finding("chat template", "failed", str(error))
    if HELLO not in rendered:
        return Finding("chat template", "failed", "what the user says is not in the prompt")
    ids = tokenizer.encode(rendered, add_special_tokens=False)
    return Finding("chat template", "ok", f"renders; {HELLO!r} becomes {len(ids)} tokens")
