"""A conversation as the prompt text that a model was trained on.

Owns which template is used, what a request may pass to it, and the form its messages take. The
sandbox and its limits are `template_sandbox`; tokens are somebody else's.

Templates differ in what they take, and do not say so. It is found out by rendering small
conversations once: whether `content` is a string or a list of parts, and how a message that only
calls tools has to look (no content is "" or null, arguments are an object or JSON text).
Messages are brought into that form.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from jinja2 import TemplateError, TemplateSyntaxError

from engine.errors import RequestError
from engine.templates.template_sandbox import (
    SandboxedEnvironment,
    SandboxedTemplate,
    TemplateLimitError,
    TemplateRefusal,
)
from engine.tokenizers.token_guard import TokenGuard, without_marks
from models.errors import CheckpointError

RESERVED = frozenset((
    "messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template",
    "tokenize", "return_tensors", "return_dict", "bos_token", "eos_token", "unk_token",
    "sep_token", "pad_token", "cls_token", "mask_token",
))  # fmt: skip
_END = "\ue000final message ends here\ue001 "  # the space shows whether the template trims
_PROBE = "ingot-probe"
_ARGUMENTS = {_PROBE: _PROBE}
_FORMS = (("", True), (None, True), ("", False), (None, False))  # no content; arguments an object

Message = Mapping[str, Any]
ContentFormat = Literal["auto", "string", "openai"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt. `marked` is the same for a tokenizer, where texts in it spell special tokens."""

    text: str
    marked: str | None = None


class ChatTemplate:
    """The chat templates of a model: "default", and perhaps "tool_use" for requests with tools."""

    def __init__(
        self,
        sources: Mapping[str, str],
        special_tokens: Mapping[str, str],
        content_format: ContentFormat = "auto",
        guard: TokenGuard | None = None,
    ) -> None:
        """`sources` by name, `special_tokens` as {"bos_token": "<s>"}; `content_format` says what
        the content of a message is to be: text, a list of parts (openai), or what is found out.
        `guard` is the tokenizer's.

        Raises `CheckpointError` for a template that cannot be compiled or reaches for what the
        sandbox forbids.
        """
        environment = SandboxedEnvironment()
        self._guard = guard or TokenGuard(())
        self._templates = {
            name: _Template(name, source, environment, special_tokens, content_format)
            for name, source in sources.items()
        }
        if len(sources) > 1 and "default" not in sources:
            raise CheckpointError(
                f"The chat templates {sorted(sources)} do not include one that is named default."
            )

    def reads(self, variable: str, *, with_tools: bool = False) -> bool:
        """Whether a request may set `variable`."""
        return variable in self._choose(with_tools).variables

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """The text of the prompt that `write` gives for the same."""
        return self.write(messages, **options).text

    def write(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """The prompt of a conversation in OpenAI's form of messages and tools.

        What texts of the conversation spell is text, also if it is the name of a special token. In
        turns of the assistant's the names that the template itself looks for ("</think>") are what
        they say, for that is how it takes such a turn apart.

        `continue_final_message` leaves the last message open, for the model to go on with it;
        `variables` ({"enable_thinking": False}) must be names that the template reads. Special
        tokens are in the text: encode it with `add_special_tokens=False`.

        Raises `RequestError` for what the template refuses or cannot render.
        """
        if continue_final_message and add_generation_prompt:
            raise RequestError(
                "continue_final_message needs add_generation_prompt to be false.",
                "continue_final_message",
            )
        template, variables = self._choose(bool(tools)), variables or {}
        template.check_variables(variables)
        chat = template.adapted(_plain(messages, "messages"))
        if continue_final_message:
            _mark_end(chat)
        offered = _plain(tools, "tools") if tools else None
        given = _plain(variables, "chat_template_kwargs")
        if marked := self._guard.finds([chat, offered, given]):
            for message in chat:
                self._guard.mark(message, template.spared(message))
            self._guard.mark([offered, given])
        text = template.render(
            chat, tools=offered, add_generation_prompt=add_generation_prompt, **given
        )
        if continue_final_message:
            text = _cut_at_end(text)
        return Rendered(without_marks(text), text) if marked else Rendered(text)

    def _choose(self, with_tools: bool) -> "_Template":
        if with_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        return self._templates.get("default") or next(iter(self._templates.values()))


class _Template:
    """One template, and the form of messages that it takes."""

    def __init__(
        self,
        name: str,
        source: str,
        environment: SandboxedEnvironment,
        special_tokens: Mapping[str, str],
        content_format: ContentFormat,
    ) -> None:
        try:
            self._template: SandboxedTemplate = environment.compiled(source)
        except TemplateSyntaxError as error:
            raise CheckpointError(
                f"The chat template {name!r} is invalid in line {error.lineno}: "
                f"{(error.message or '').rstrip('.')}."
            ) from None
        except (SyntaxError, RecursionError, MemoryError):  # of the Python that it becomes
            raise CheckpointError(f"The chat template {name!r} is nested too deeply.") from None
        self._special_tokens = special_tokens
        self._takes_parts = False
        self._no_content: str | None
        self._no_content, self._takes_objects = _FORMS[0]
        with suppress(TemplateLimitError):  # renders nothing, as each request will be told
            self._find_form()
        if content_format != "auto":
            self._takes_parts = content_format == "openai"

    def _find_form(self) -> None:
        self._takes_parts = not self._shows(_user(_PROBE)) and self._shows(_user(_parts(_PROBE)))
        form = next(filter(self._takes_call, _FORMS), _FORMS[0])
        self._no_content, self._takes_objects = form

    def render(self, messages: list[dict[str, Any]], **variables: Any) -> str:
        try:
            return self._template.render(
                {**self._special_tokens, "messages": messages, **variables}
            )
        except TemplateRefusal as error:
            raise RequestError(without_marks(str(error)), "messages") from None
        except TemplateError as error:
            raise _unrenderable(str(error)) from None
        except Exception as error:  # templates run into any Python error
            raise _unrenderable(f"{type(error).__name__}: {error}") from None

    @property
    def variables(self) -> frozenset[str]:
        """What a request may set."""
        return self._template.variables - RESERVED

    def spared(self, message: Message) -> frozenset[str]:
        """Names of tokens that mean what they say in `message`."""
        return self._template.sought if message.get("role") == "assistant" else frozenset()

    def check_variables(self, variables: Mapping[str, Any]) -> None:
        allowed = self.variables
        for name in variables:
            if name not in allowed:
                raise RequestError(
                    f"The chat template has no variable {name[:40]!r} to set; "
                    f"it has {', '.join(sorted(allowed)) or 'none'}.",
                    "chat_template_kwargs",
                )

    def adapted(self, messages: Any) -> list[dict[str, Any]]:
        """`messages` in the form that this template takes."""
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise RequestError("messages must be a list of objects.", "messages")
        for message in messages:
            message["content"] = self._content(message.get("content"))
            for call in message.get("tool_calls") or ():
                self._adapt_call(call)
        return messages

    def _content(self, content: Any) -> Any:
        if content is None:
            return self._no_content
        if isinstance(content, str):
            return _parts(content) if self._takes_parts else content
        if isinstance(content, list) and not self._takes_parts:
            return "\n".join(map(_part_text, content))
        return content

    def _adapt_call(self, call: Any) -> None:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise RequestError("tool_calls must hold objects with a function.", "messages")
        arguments = function.get("arguments")
        if self._takes_objects and isinstance(arguments, str):
            function["arguments"] = _parsed(arguments)
        elif not self._takes_objects and isinstance(arguments, dict):
            function["arguments"] = json.dumps(arguments, ensure_ascii=False)

    def _takes_call(self, form: tuple[str | None, bool]) -> bool:
        content, is_object = form
        return self._shows(_tool_call(content, _ARGUMENTS if is_object else json.dumps(_ARGUMENTS)))

    def _shows(self, messages: list[dict[str, Any]]) -> bool:
        """Whether the probe is seen in the prompt, and neither as Python prints a container nor
        as text within JSON text."""
        variables = {"messages": messages, "tools": None, "add_generation_prompt": True}
        try:
            text = self._template.render({**self._special_tokens, **variables})
        except TemplateLimitError:
            raise
        except Exception:  # this form is not taken
            return False
        return _PROBE in text and f"'{_PROBE}'" not in text and f'\\"{_PROBE}' not in text


def _user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _tool_call(content: str | None, arguments: Any) -> list[dict[str, Any]]:
    function = {"name": "get", "arguments": arguments}
    call = {"id": "call00000", "type": "function", "function": function}
    return [*_user("Hello"), {"role": "assistant", "content": content, "tool_calls": [call]}]


def _part_text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise RequestError(
            "This model takes text only: each part of content must be "
            '{"type": "text", "text": "..."}.',
            "messages",
        )
    return text


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError("The arguments of a tool call must be a JSON object.", "messages")
    return value


def _plain(value: Any, param: str) -> Any:
    """A copy in lists, dicts and scalars: a template never sees an object with methods."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{param} must be plain JSON values: {error}.", param) from None


def _unrenderable(reason: str) -> RequestError:
    return RequestError(
        "The chat template cannot render this conversation: "
        f"{without_marks(reason)[:300].rstrip('.')}.",
        "messages",
    )


def _mark_end(chat: list[dict[str, Any]]) -> None:
    content = chat[-1]["content"] if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _END
        return
    for part in reversed(content or ()):
        if isinstance(part.get("text"), str):
            part["text"] += _END
            return
    raise RequestError("continue_final_message needs a last message with text.", "messages")


def _cut_at_end(text: str) -> str:
    """Up to the mark; where the template trims texts, the open one is trimmed too."""
    place = text.rfind(_END.rstrip())
    if place < 0:
        raise RequestError(
            "The chat template does not keep the last message as it is, so it cannot be continued.",
            "continue_final_message",
        )
    return text[:place] if text.startswith(_END, place) else text[:place].rstrip()
