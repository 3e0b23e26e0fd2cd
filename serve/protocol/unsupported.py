"""Fields that clients of OpenAI, vLLM and SGLang know and Ingot, or one of its routes, does not
serve.

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
        "chunking_strategy": ("auto",),
        "context_management": (),
        "context": ([],),  # Ollama's, likewise some below
        "conversation": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "max_tool_calls": (),  # of OpenAI's own tools
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "prompt": (),  # of OpenAI's own store of prompts
        "prompt_cache_options": (),
        "prompt_cache_retention": ("in_memory",),
        "reasoning_effort": (),
        "tool_choice": ("none", "auto"),
        "tools": (),
        "verbosity": ("medium",),
        "web_search_options": (),
        # vLLM
        "chat_template": (),  # of completions; likewise others that only chats have
        "continue_final_message": (False,),
        "documents": ([],),
        "ec_transfer_params": (),
        "enable_response_messages": (False,),
        "guided_decoding_backend": ("auto", "guidance"),
        "hotwords": (),
        "include_reasoning": (True,),
        "include": (),  # of transcriptions
        "instruction": (),  # of pairs; likewise SGLang's instruct
        "include_stop_str_in_output": (False,),
        "is_3d_lora_weight": (False,),
        "kv_transfer_params": (),
        "length_penalty": (1.0,),  # of routes that search no beams
        "logits_processors": ([],),
        "media_io_kwargs": (),
        "mm_payload": ("tensors",),
        "mm_processor_kwargs": (),
        "n": (1,),  # of routes that give one answer
        "output_mode": ("tokens",),
        "padding": ("do_not_pad",),
        "previous_input_messages": (),
        "prompt_embeds": (),  # of routes that take none
        "return_mm_kwargs": (False,),
        "return_prompt_text": (False,),  # of routes that make no text
        "return_token_offsets": (False,),
        "return_weight_versions": (False,),  # likewise
        "session_id": (),  # likewise
        "routed_experts_prompt_start": (0,),  # of other routes than vLLM's
        "skip_special_tokens": (True,),
        "stream_continuous_usage_stats": (False,),
        "stream_include_usage": (False, True),  # the end of a stream has it anyway
        "to_language": (),
        "use_beam_search": (False,),
        "vllm_xargs": ({},),
        "watermarking": (False,),  # of routes that write no text
        # SGLang
        "audio_data": (),
        "background": (False,),
        "betas": ([],),
        "bootstrap_host": (),
        "bootstrap_port": (),
        "bootstrap_room": (),
        "custom_labels": ({},),
        "custom_logit_processor": (),
        "detailed_annotations": (False,),
        "data_parallel_rank": (0,),  # the only one, under both names
        "disagg_prefill_dp_rank": (),
        "embed_overrides": (),
        "image_data": (),
        "images": ([],),
        "images_config": (),
        "input_embeds": (),  # likewise
        "instruct": (),
        "log_metrics": (True,),
        "is_cross_encoder_request": (False,),
        "is_async": (False,),  # of /update_weights_from_disk, likewise others below
        "manifest": (),
        "require_reasoning": (False,),
        "recapture_cuda_graph": (False,),
        "token_step": (0,),
        "torch_empty_cache": (False,),
        "merge_profiles": (False,),  # of /start_profile, likewise profile_by_stage, record_shapes
        "max_dynamic_patch": (),
        "min_dynamic_patch": (),
        "ngram_corpus_id": (),
        "lora_path": (),  # of routes that write no text
        "no_logs": (False,),
        "pinned": (False,),
        "profile_by_stage": (False,),
        "raw": (False,),
        "record_shapes": (False,),
        "return_blocks": (False,),
        "return_bytes": (False,),
        "return_cached_tokens_details": (False,),  # of other routes than OpenAI's
        "return_entropy": (False,),
        "return_flat_raw_output_top_logprobs": (False,),  # of routes but chats and /generate
        "return_flat_raw_top_logprobs": (False,),  # of routes but /generate
        "return_flat_raw_top_logprobs_b64": (True, False),  # how those would be written
        "return_hidden_states": (False,),  # of routes that give none
        "return_indexer_topk": (False,),
        "return_meta_info": (False,),  # of routes but chats
        "return_pooled_hidden_states": (False,),
        "return_prompt_token_ids": (False,),  # of routes but chats and /generate
        "return_routed_experts": (False,),  # of routes but these and /generate
        "return_sampling_mask": (False,),  # of routes but chats and /generate
        "return_spec_tokens_details": (False,),  # of routes but chats and completions
        "return_token_logprobs": (False,),
        "routed_dp_rank": (0,),
        "routed_experts_start_len": (0,),  # likewise
        "sampling_logprobs_mode": (),
        "separate_reasoning": (True,),
        "session_params": (),  # of routes but chats, completions and /generate
        "stream_reasoning": (True,),
        "suffix": ("",),
        "task": (),  # of chats
        "template": ("",),
        "use_audio_in_video": (False,),
        "video_config": (),
        "video_data": (),
        "watermark": (),  # of routes but chats, completions and /generate
    }
)


def harmless_values(name: str) -> tuple[Any, ...]:
    """What may be sent of a field that is not served, besides null."""
    return _NEUTRAL.get(name, ())


def is_harmless(name: str, value: Any) -> bool | None:
    """Whether `value` leaves field `name` at its default; None for a name nobody knows."""
    if name not in _NEUTRAL:
        return None
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in _NEUTRAL[name]
    )
