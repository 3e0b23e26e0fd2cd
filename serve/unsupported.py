"""Fields that clients of OpenAI, vLLM and SGLang know and Ingot does not serve.

Each is refused by name, never ignored in silence, unless its value asks for nothing: null, or one
of the values listed here. A feature that arrives takes its row out of this table.
"""

from types import MappingProxyType
from typing import Any

# Labels for OpenAI's own records; they have no meaning in a server that keeps none.
IGNORED = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "store"}
)

_NEUTRAL: MappingProxyType[str, tuple[Any, ...]] = MappingProxyType(
    {
        # OpenAI
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "prompt_cache_options": (),
        "prompt_cache_retention": (),
        "reasoning_effort": (),
        "tool_choice": ("none", "auto"),
        "tools": (),
        "verbosity": (),
        "web_search_options": (),
        # vLLM
        "chat_template": (),  # of completions; likewise others that only chats have
        "ec_transfer_params": (),
        "guided_decoding_backend": ("auto", "guidance"),
        "include_reasoning": (True,),
        "kv_transfer_params": (),
        "logits_processors": ([],),
        "media_io_kwargs": (),
        "mm_processor_kwargs": (),
        "prompt_embeds": (),
        "return_prompt_text": (False,),
        "return_weight_versions": (False,),
        "session_id": (),
        "watermarking": (),
        # SGLang
        "custom_logit_processor": (),
        "lora_path": (),
        "separate_reasoning": (True,),
    }
)


def is_harmless(name: str, value: Any) -> bool | None:
    """Whether `value` leaves field `name` at its default; None for a name nobody knows."""
    if name not in _NEUTRAL:
        return None
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in _NEUTRAL[name]
    )
