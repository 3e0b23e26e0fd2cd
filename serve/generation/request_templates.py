"""Chat templates that requests bring: `chat_template`, behind `--trust-request-chat-template`.

Owns whether they are taken, how long they may be, and the last few that were compiled. They run in
the sandbox of the model's own (`engine.templates.template_sandbox`), with its bounds; the flag is
there because even so a render may take seconds of a processor.
"""

from functools import lru_cache

from engine.errors import RequestError
from engine.templates.chat_template import ChatTemplate
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError

MAX_TEMPLATE_CHARS = 65_536  # a model's own has some 20,000 at most; this many compile in 1.3 s
_FIELD = "chat_template"
_REMEMBERED = 8


class RequestTemplates:
    """What requests may bring to one model with this tokenizer."""

    def __init__(self, tokenizer: Tokenizer, *, trusted: bool) -> None:
        self._tokenizer = tokenizer
        self._trusted = trusted
        self._compile = lru_cache(_REMEMBERED)(self._compiled)

    def of(self, source: str) -> ChatTemplate:
        """The template; raises RequestError where it is not taken or not one."""
        if not self._trusted:
            raise RequestError(
                f"{_FIELD} is not taken from requests here; leave it out, or start the server with "
                "--trust-request-chat-template.",
                _FIELD,
            )
        if len(source) > MAX_TEMPLATE_CHARS:
            raise RequestError(
                f"{_FIELD} may have at most {MAX_TEMPLATE_CHARS} characters, got {len(source)}.",
                _FIELD,
            )
        return self._compile(source)

    def _compiled(self, source: str) -> ChatTemplate:
        try:
            return ChatTemplate(
                {"default": source},
                self._tokenizer.special_tokens,
                guard=self._tokenizer.guard,
            )
        except CheckpointError as error:
            raise RequestError(f"{_FIELD} is wrong: {error}", _FIELD) from None
