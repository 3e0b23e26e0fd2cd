"""The model as the front knows it: names, tokenizer, chat template and sampling defaults.

Read once, from small files of the checkpoint folder; no weights and no JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.chat_template import ChatTemplate
from engine.errors import ConfigError, RequestError
from engine.sampling_defaults import sampling_defaults
from engine.tokenizer import Tokenizer
from models.checkpoint import find_folder, read_config, read_generation_config
from serve.protocol_chat import ChatRequest
from serve.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model; `tokenizer` and `template` are None for models that have none."""

    names: tuple[str, ...]
    root: str  # as it was given on the command line
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    sampling_defaults: Mapping[str, Any]
    default_max_tokens: int | None

    def render(self, request: ChatRequest) -> str:
        """The prompt of a conversation; raises RequestError."""
        if self.template is None:
            raise RequestError(
                "This model has no chat template; use /v1/completions, or start the server with "
                "--chat-template.",
                "messages",
            )
        return self.template.render(
            [message.for_template() for message in request.turns],
            add_generation_prompt=request.generation_prompt,
            continue_final_message=bool(request.continue_final_message),
            variables=request.chat_template_kwargs,
        )


def model_folder(model: str) -> Path:
    """Where `model` lies; raises CheckpointError if it is no checkpoint."""
    folder = find_folder(model)
    read_config(folder)
    return folder


def load_served_model(folder: Path, name: str, settings: ServerSettings) -> ServedModel:
    """Raises CheckpointError for files that are malformed, ConfigError for a wrong template."""
    tokenizer = Tokenizer.load(folder)
    generation = read_generation_config(folder) if settings.generation_config == "auto" else {}
    longest = generation.get("max_new_tokens")
    return ServedModel(
        names=settings.served_model_names or (name,),
        root=name,
        tokenizer=tokenizer,
        template=_template(tokenizer, settings.chat_template),
        sampling_defaults=sampling_defaults(generation),
        default_max_tokens=longest if isinstance(longest, int) else None,
    )


def _template(tokenizer: Tokenizer | None, wanted: str | None) -> ChatTemplate | None:
    if tokenizer is None:
        if wanted is not None:
            raise ConfigError("--chat-template needs a model with a tokenizer.")
        return None
    sources = tokenizer.chat_templates if wanted is None else {"default": _source(wanted)}
    return ChatTemplate(sources, tokenizer.special_tokens) if sources else None


def _source(wanted: str) -> str:
    """`wanted` is a file, or the template itself, which no file name looks like."""
    if "{{" in wanted or "{%" in wanted:
        return wanted
    try:
        return Path(wanted).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the chat template {wanted!r}: {error}.") from None
