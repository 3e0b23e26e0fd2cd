"""How a model marks its reasoning, for those who call it from Python: vLLM's `ReasoningConfig`.

Owns the two strings and what becomes of a budget with them; the server knows more formats, and what
they look like in full (`serve.reply`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.errors import ConfigError, RequestError
from engine.misfit import misfit
from engine.reasoning.thinking import ThinkingBudget
from engine.reasoning.thoughts import ThoughtMarks
from engine.tokenizers.tokenizer import Tokenizer

_FIELD = "thinking_token_budget"
_LAST_TOKENS = 16  # of a prompt, in which it shows whether the model is to think


class ReasoningConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What reasoning begins and ends with; the end is also what a budget ends it with.

    That may say more than the mark by which a model ends it, "That will do.</think>": where it ends
    with the mark that belongs to the beginning, this alone is an end too.
    """

    reasoning_start_str: str
    reasoning_end_str: str

    def budget(
        self, max_tokens: int, prompt_token_ids: Sequence[int], tokenizer: Tokenizer
    ) -> ThinkingBudget:
        """At most `max_tokens` tokens of reasoning in the answer to a prompt."""
        prompt = tokenizer.decode(prompt_token_ids[-_LAST_TOKENS:], False).rstrip()
        begin, end = self.reasoning_start_str, self.reasoning_end_str
        return ThinkingBudget(
            max_tokens=max_tokens,
            end_token_ids=tokenizer.encode(end, add_special_tokens=False),
            marks=ThoughtMarks(
                begin=begin, ends=self._ends, is_open=prompt.endswith(begin.strip())
            ),
        )

    @property
    def _ends(self) -> tuple[str, ...]:
        begin, end = self.reasoning_start_str.strip(), self.reasoning_end_str
        mark = f"{begin[:1]}/{begin[1:]}"
        return (end, mark) if end != mark and end.rstrip().endswith(mark) else (end,)


THINK = ReasoningConfig(reasoning_start_str="<think>", reasoning_end_str="</think>")


def reasoning_config(given: Any, templates: Iterable[str]) -> ReasoningConfig | None:
    """From the struct, or from a dict of its fields; None is what the chat templates show, if
    they show the marks that most models have.

    Raises `ConfigError`.
    """
    if given is None:
        return THINK if any(THINK.reasoning_end_str in each for each in templates) else None
    try:
        found = msgspec.convert(
            msgspec.to_builtins(given) if isinstance(given, ReasoningConfig) else given,
            ReasoningConfig,
        )
    except msgspec.ValidationError as error:
        place, what = misfit(error, ReasoningConfig, "reasoning_config")
        raise ConfigError(f"{place} {what}.") from None
    if not found.reasoning_start_str.strip() or not found.reasoning_end_str.strip():
        raise ConfigError("reasoning_config needs two strings that are not blank.")
    return found


def thinking_budget(
    wanted: int | None,
    config: ReasoningConfig | None,
    prompt_token_ids: Sequence[int],
    tokenizer: Tokenizer | None,
    context: int,
) -> ThinkingBudget | None:
    """What `thinking_token_budget` means for one prompt; None is no limit.

    Raises `RequestError` where it is not known how the model marks its reasoning.
    """
    if wanted is None or wanted == -1:
        return None
    if config is None or tokenizer is None:
        raise RequestError(
            f"{_FIELD} needs to know how this model marks its reasoning; pass reasoning_config="
            '{"reasoning_start_str": ..., "reasoning_end_str": ...} to LLM.',
            _FIELD,
        )
    return config.budget(min(wanted, context), prompt_token_ids, tokenizer)
