"""Fields that clients of vLLM, SGLang, OpenAI and Anthropic send with the value that is their
default: each is taken, whether Ingot serves it or not."""

from typing import Any

import pytest

from tests.serve.served import Serve

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "a"}]
NULL = dict.fromkeys
BOTH = {
    "n": 1, "seed": None, "stop": [], "stream": False, "stream_options": None, "temperature": None,
    "top_p": None, "user": None, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "logit_bias": None, "response_format": None, "max_tokens": None,
    # vLLM
    "use_beam_search": False, "length_penalty": 1.0, "include_stop_str_in_output": False,
    "spaces_between_special_tokens": True, "allowed_token_ids": None, "bad_words": [],
    "truncate_prompt_tokens": None, "truncation_side": None, "prompt_logprobs": None,
    "structured_outputs": None, "priority": 0, "return_token_ids": None, "vllm_xargs": None,
    "return_tokens_as_token_ids": None, "cache_salt": None, "repetition_detection": None,
    "logits_processors": None, "return_prompt_text": False, "echo": False, "request_id": "x",
    **NULL(("kv_transfer_params", "ec_transfer_params", "session_id", "return_weight_versions")),
    "watermarking": None, "return_token_offsets": False, "routed_experts_prompt_start": 0,
    "mm_payload": "tensors", "return_mm_kwargs": False,
    # SGLang
    "top_k": -1, "min_p": 0.0, "min_tokens": 0, "regex": None, "ebnf": None, "stop_regex": None,
    "repetition_penalty": 1.0, "stop_token_ids": None, "no_stop_trim": False, "ignore_eos": False,
    "skip_special_tokens": True, "custom_params": None, "rid": None, "extra_key": None,
    "return_hidden_states": False, "return_routed_experts": False,
    "return_cached_tokens_details": False, "return_prompt_token_ids": False,
    "routed_experts_start_len": 0, "custom_labels": None, "return_spec_tokens_details": False,
    "watermark": None,
    **NULL(("lora_path", "session_params", "custom_logit_processor", "data_parallel_rank")),
    **NULL(("bootstrap_host", "bootstrap_port", "bootstrap_room", "some_name_of_tomorrow")),
}  # fmt: skip
CHAT = {
    **BOTH, "logprobs": False, "top_logprobs": 0, "tools": None, "parallel_tool_calls": True,
    "max_completion_tokens": None, "reasoning_effort": None, "include_reasoning": True,
    "separate_reasoning": True, "stream_reasoning": True, "tool_choice": "auto",
    "add_generation_prompt": True, "continue_final_message": False, "add_special_tokens": False,
    "documents": None, "chat_template": None, "chat_template_kwargs": None, "input_ids": None,
    "thinking_token_budget": None, "media_io_kwargs": None, "mm_processor_kwargs": None,
    "audio": None, "metadata": None, "modalities": ["text"], "prediction": None, "store": False,
    "prompt_cache_key": None, "safety_identifier": None, "service_tier": "auto",
    "verbosity": "medium", "web_search_options": None, "functions": None, "function_call": "none",
    "use_audio_in_video": False, "return_meta_info": False, "task": None,
    "max_dynamic_patch": None, "images_config": None, "ngram_corpus_id": None,
    "return_input_ids_in_sglext": False, "return_output_ids_in_sglext": False,
    "return_sampling_mask": False, "sampling_logprobs_mode": None, "thinking": None,
    "return_flat_raw_output_top_logprobs": False, "return_flat_raw_top_logprobs_b64": True,
}  # fmt: skip
COMPLETION = {
    **BOTH, "best_of": 1, "logprobs": None, "suffix": None, "add_special_tokens": True,
    "prompt_embeds": None, "json_schema": None,
}  # fmt: skip
GENERATE = {
    "input_ids": None, "input_embeds": None, "image_data": None, "video_data": None,
    "audio_data": None, "rid": None, "return_logprob": False, "logprob_start_len": -1,
    "top_logprobs_num": 0, "token_ids_logprob": None, "return_text_in_logprobs": False,
    "stream": False, "log_metrics": True, "modalities": None, "background": False,
    "no_logs": False, "return_bytes": False, "return_entropy": False, "extra_key": None,
    "require_reasoning": False, "session_id": None, "max_thinking_tokens": None,
    "return_prompt_token_ids": False, "return_indexer_topk": False,
    "return_sampling_mask": False, "watermark": None,
    "return_flat_raw_top_logprobs": False, "return_flat_raw_output_top_logprobs": False,
    "return_flat_raw_top_logprobs_b64": False,
    "sampling_params": {
        "max_new_tokens": 16, "min_new_tokens": 0, "temperature": 1.0, "top_p": 1.0, "top_k": -1,
        "min_p": 0.0, "n": 1, "json_schema": None, "structural_tag": None, "ignore_eos": False,
        "skip_special_tokens": True, "no_stop_trim": False, "custom_params": None,
        "stream_interval": None, "logit_bias": None, "sampling_seed": None, "beam_width": 1,
        "watermark": None,
    },
}  # fmt: skip
RESPONSES = {
    "background": False, "include": None, "instructions": None, "max_tool_calls": None,
    "metadata": None, "parallel_tool_calls": True, "previous_response_id": None, "prompt": None,
    "reasoning": None, "service_tier": "auto", "store": True, "stream": False, "text": None,
    "tool_choice": "auto", "tools": [], "top_logprobs": 0, "truncation": "disabled",
    "conversation": None, "context_management": None, "skip_special_tokens": True, "stop": [],
    "include_stop_str_in_output": False, "enable_response_messages": False, "min_p": 0.0,
    "repetition_penalty": 1.0, "presence_penalty": 0.0, "ignore_eos": False, "priority": 0,
    "stop_token_ids": [], "structured_outputs": None, "session_id": None, "watermarking": None,
    "previous_input_messages": None, "mm_payload": "tensors", "return_mm_kwargs": False,
    "include_reasoning": True, "request_id": None,
}  # fmt: skip
MESSAGE = {
    "metadata": None, "stop_sequences": None, "stream": False, "system": None, "thinking": None,
    "tool_choice": None, "tools": None, "top_k": None, "service_tier": "auto", "container": None,
    "mcp_servers": None, "output_config": None, "chat_template_kwargs": None, "vllm_xargs": None,
    "watermarking": None, "betas": [], "cache_control": {"type": "ephemeral"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "asked", "fields"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}, CHAT),
        ("/v1/completions", {"prompt": "a"}, COMPLETION),
        ("/generate", {"text": "a"}, GENERATE),
        ("/v1/responses", {"input": "a"}, RESPONSES),
        ("/v1/messages", {"model": "tiny", "max_tokens": 4, "messages": MESSAGES}, MESSAGE),
    ],
)
async def test_defaults_are_taken(
    serve: Serve, path: str, asked: dict[str, Any], fields: dict[str, Any]
) -> None:
    async with serve() as served:
        refused = {}
        for name, value in fields.items():
            answer = await served.post(path, **asked, **{name: value})
            if answer.status_code != 200:
                refused[name] = answer.json()["error"]["message"]
        together = await served.post(path, **asked, **fields)
    assert refused == {}
    assert together.status_code == 200, together.text
