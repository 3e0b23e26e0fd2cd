"""The model as the front knows it: names, tokenizer, chat template and sampling defaults.

Read once, from small files of the checkpoint folder; no weights and no JAX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ConfigError, RequestError
from engine.sampling.defaults import sampling_defaults
from engine.templates.chat_template import ChatTemplate, Rendered
from engine.tokenizers.tokenizer import Tokenizer
from models.checkpoints.checkpoint import (
    GENERATION_CONFIG,
    find_folder,
    read_config,
    read_generation_config,
)
from models.checkpoints.sentence_transformers import read_prompts
from serve.audio.tokens import SpeechTokens, speech_tokens
from serve.generation.request_templates import RequestTemplates
from serve.protocol.chat import ChatRequest
from serve.protocol.tool_choices import plain_turns
from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.registry import thinking_format, tool_format
from serve.settings import ServerSettings

_SWITCHES = ("enable_thinking", "thinking")  # of which templates know on and off
_EFFORTS = ("reasoning_effort", *_SWITCHES)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model; `tokenizer` and `template` are None for models that have none."""

    names: tuple[str, ...]
    root: str  # as it was given on the command line
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    templates: RequestTemplates | None  # those of requests
    tools: ToolFormat | None
    thinking: ThinkingFormat | None
    sampling_defaults: Mapping[str, Any]
    default_max_tokens: int | None
    speech: SpeechTokens | None = None  # of a model that hears
    template_defaults: Mapping[str, Any] = field(default_factory=dict)  # unless a request says it
    text_kinds: Mapping[str, str] = field(default_factory=dict)  # what goes before texts to embed

    def render(self, request: ChatRequest) -> Rendered:
        """The prompt of a conversation; raises RequestError."""
        template = self._template_of(request)
        return template.write(
            [message.for_template() for message in plain_turns(request.turns)],
            tools=msgspec.to_builtins(request.tools),
            add_generation_prompt=request.generation_prompt,
            continue_final_message=bool(request.continue_final_message),
            variables={
                **self._defaults(template, with_tools=bool(request.tools)),
                **_effort(request, template),
                **_documents(request, template),
                **(request.chat_template_kwargs or {}),
            },
        )

    def _defaults(self, template: ChatTemplate, *, with_tools: bool) -> dict[str, Any]:
        """What is passed to any template that reads it."""
        known = self.template_defaults.items()
        return {name: value for name, value in known if template.reads(name, with_tools=with_tools)}

    def _template_of(self, request: ChatRequest) -> ChatTemplate:
        """The request's own, else the model's."""
        if request.chat_template is not None:
            if self.templates is None:
                raise RequestError("This model has no tokenizer; send token ids.", "chat_template")
            return self.templates.of(request.chat_template)
        if self.template is None:
            raise RequestError(
                "This model has no chat template; use /v1/completions, or start the server with "
                "--chat-template.",
                "messages",
            )
        return self.template

    def has_effort(self, *, with_tools: bool) -> bool:
        """Whether the template can be told how much to think."""
        template = self.template
        return template is not None and _name_in(template, with_tools, _EFFORTS) is not None

    def check_thinks(self, wanted: bool) -> None:
        """Raise RequestError if a model that cannot be told how much to think does otherwise."""
        thinks = self.thinking is not None
        if wanted != thinks:
            always = "always" if thinks else "never"
            raise RequestError(f"This model {always} thinks; leave out thinking.", "thinking")


def _documents(request: ChatRequest, template: ChatTemplate) -> dict[str, Any]:
    """`documents`, if there are some and the template shows them."""
    if not request.documents:
        return {}
    if template.reads("documents", with_tools=bool(request.tools)):
        return {"documents": request.documents}
    raise RequestError(
        "The chat template shows no documents; write them into a message.", "documents"
    )


def _effort(request: ChatRequest, template: ChatTemplate) -> dict[str, Any]:
    """How much to think, or whether to, as the template calls it."""
    found: dict[str, Any] = {}
    tools = bool(request.tools)
    if (thinks := request.thinks) is not None:
        field = "reasoning" if request.thinking is None else "thinking"
        name = _name_in(template, tools, _SWITCHES)
        if name is None:
            raise RequestError(
                f"The chat template cannot be told whether to think; leave out {field}.", field
            )
        found[name] = thinks
    if (effort := request.effort) is not None:
        name = _name_in(template, tools, _EFFORTS)
        if name is None:
            field = "reasoning" if request.reasoning_effort is None else "reasoning_effort"
            raise RequestError(
                f"The chat template knows no reasoning effort; leave out {field}.", field
            )
        found[name] = effort if name not in _SWITCHES else effort != "none"
    return found


def _name_in(template: ChatTemplate, tools: bool, names: Sequence[str]) -> str | None:
    """The first of `names` that the template reads."""
    return next((name for name in names if template.reads(name, with_tools=tools)), None)


def model_folder(model: str) -> Path:
    """Where `model` lies; raises CheckpointError if it is no checkpoint."""
    folder = find_folder(model)
    read_config(folder)
    return folder


def load_served_model(
    folder: Path, name: str, settings: ServerSettings, tokenizer_folder: Path | None = None
) -> ServedModel:
    """Raises CheckpointError for files that are malformed, ConfigError for a wrong template."""
    tokenizer = Tokenizer.load(tokenizer_folder or folder)
    generation = _generation_config(folder, settings)
    longest = generation.get("max_new_tokens")
    sources = _sources(tokenizer, settings.chat_template)
    templates = sources.values()
    form = settings.chat_template_content_format
    template = None
    if tokenizer and sources:
        template = ChatTemplate(sources, tokenizer.special_tokens, form, tokenizer.guard)
    return ServedModel(
        names=settings.served_model_names or (name,),
        root=name,
        tokenizer=tokenizer,
        template=template,
        templates=_request_templates(tokenizer, settings),
        tools=tool_format(settings.tool_call_parser, templates),
        thinking=thinking_format(settings.parser_of_reasoning, templates),
        sampling_defaults=sampling_defaults(generation, str(folder / GENERATION_CONFIG)),
        speech=speech_tokens(tokenizer, read_generation_config(folder)) if tokenizer else None,
        default_max_tokens=longest if isinstance(longest, int) else None,
        template_defaults=_template_defaults(template, settings),
        text_kinds=read_prompts(folder),
    )


def _generation_config(folder: Path, settings: ServerSettings) -> dict[str, Any]:
    """The model's, if it counts, with what the settings put before it."""
    read = read_generation_config(folder) if settings.generation_config == "auto" else {}
    return {**read, **(settings.override_generation_config or {})}


def _template_defaults(
    template: ChatTemplate | None, settings: ServerSettings
) -> Mapping[str, Any]:
    """Raises ConfigError for one that the model's template would ignore."""
    defaults = settings.default_chat_template_kwargs or {}
    for name in defaults:
        if template is None or not any(template.reads(name, with_tools=t) for t in (False, True)):
            raise ConfigError(
                f"--default-chat-template-kwargs: the chat template has no variable {name[:40]!r} "
                "to set."
            )
    return defaults


def _request_templates(
    tokenizer: Tokenizer | None, settings: ServerSettings
) -> RequestTemplates | None:
    if tokenizer is None:
        return None
    trusted = settings.trust_request_chat_template
    return RequestTemplates(tokenizer, trusted=trusted)


def _sources(tokenizer: Tokenizer | None, wanted: str | None) -> Mapping[str, str]:
    if tokenizer is None:
        if wanted is not None:
            raise ConfigError("--chat-template needs a model with a tokenizer.")
        return {}
    return tokenizer.chat_templates if wanted is None else {"default": _source(wanted)}


def _source(wanted: str) -> str:
    """`wanted` is a file, or the template itself, which no file name looks like."""
    if "{{" in wanted or "{%" in wanted:
        return wanted
    try:
        return Path(wanted).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the chat template {wanted!r}: {error}.") from None
