"""What SGLang tells of an answer: its `meta_info`, of `/generate` and of chats."""

from typing import Any

from msgspec import UNSET, Raw, UnsetType

from serve.native.flat_logprobs import FlatLogprobs


class MetaInfo(FlatLogprobs, kw_only=True):
    """Counts, the reason of the end, and log-probabilities."""

    id: str
    finish_reason: dict[str, Any] | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    weight_version: str  # those that the server has now
    input_token_logprobs: list[Any] | Raw | UnsetType = UNSET
    input_top_logprobs: list[Any] | Raw | UnsetType = UNSET
    output_token_logprobs: list[Any] | UnsetType = UNSET
    output_token_logprobs_length: int | UnsetType = UNSET
    output_top_logprobs: list[Any] | UnsetType = UNSET
    output_token_ids_logprobs: list[Any] | UnsetType = UNSET
    hidden_states: list[Raw] | UnsetType = UNSET
    output_token_sampling_mask: list[list[int]] | UnsetType = UNSET  # `serve.native.sampling_mask`
    output_token_sampling_logprobs: list[Any] | UnsetType = UNSET
    output_token_sampling_mask_length: int | UnsetType = UNSET
    routed_experts: str | UnsetType = UNSET  # of an answer that has ended
    spec_accept_rate: float | UnsetType = UNSET  # of guessed tokens: `SpecTokensDetails`
    spec_accept_length: float | UnsetType = UNSET
    spec_num_correct_drafts: int | UnsetType = UNSET
    spec_num_proposed_drafts: int | UnsetType = UNSET
    spec_verify_ct: int | UnsetType = UNSET
    spec_correct_drafts_histogram: list[int] | UnsetType = UNSET
