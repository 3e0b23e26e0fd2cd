"""The rows of the table that take images, of which the text model is read; `cases.py` says how rows
are made. transformers runs the whole model, without images; its tower is as small as can be."""

from typing import Any

from tests.parity.case import GEMMA, TIED, Case, sizes

_MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}
_VISION = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
_QWEN_VISION = {
    "depth": 1, "num_heads": 2, "hidden_size": 16, "intermediate_size": 8, "out_hidden_size": 40,
    "patch_size": 2, "spatial_merge_size": 1,
}  # fmt: skip


def _text(model_type: str, **changes: Any) -> dict[str, Any]:
    keys = {"model_type": model_type, "head_dim": 16, "vocab_size": 31, "num_hidden_layers": 2}
    return {**sizes(**keys | changes)}


def _wrapped(
    name: str, model_type: str, text: dict[str, Any], vision: str, **changes: Any
) -> dict[str, Any]:
    return {
        "architectures": [f"{name}ForConditionalGeneration"], "model_type": model_type,
        "text_config": text, "vision_config": {"model_type": vision, **_VISION}, **changes,
    }  # fmt: skip


WITH_IMAGES = {
    "gemma3_images": Case(_wrapped(
        "Gemma3", "gemma3",
        _text("gemma3_text", query_pre_attn_scalar=20, num_key_value_heads=1, sliding_window=9,
              num_hidden_layers=3, layer_types=["sliding_attention", "full_attention",
              "sliding_attention"], tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh",
              rope_scaling={"factor": 8.0, "rope_type": "linear"}, rope_theta=1000000.0,
              rope_local_base_freq=10000.0),
        "siglip_vision_model", mm_tokens_per_image=4), spread=GEMMA),
    "ministral3_images": Case(_wrapped(
        "Mistral3", "mistral3",
        _text("ministral3", sliding_window=None, tie_word_embeddings=True, rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "mscale": 1.0,
            "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0,
            "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}),
        "pixtral", tie_word_embeddings=True), spread=TIED),
    "llava": Case(_wrapped("Llava", "llava", _text("llama"), "clip_vision_model")),
    "qwen2_vl": Case({
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
        "text_config": _text("qwen2_vl_text", head_dim=None, hidden_size=64, rope_parameters={
            **_MROPE, "rope_type": "default", "rope_theta": 1e6}),
        "vision_config": {**_QWEN_VISION, "embed_dim": 16, "hidden_size": 64}}, seed=1),
    "qwen2_5_vl": Case({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
        **{key: one for key, one in _text("qwen2_5_vl", hidden_size=64, rope_theta=1e6).items()
           if key not in ("model_type", "head_dim")},
        "rope_scaling": _MROPE, "vision_config": {**_QWEN_VISION, "out_hidden_size": 64,
                                                  "fullatt_block_indexes": [0]}}, seed=3),
    "qwen3_vl": Case({
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
        "text_config": _text("qwen3_vl_text", tie_word_embeddings=True, rope_theta=5e6,
                             rope_scaling={"mrope_interleaved": True, "mrope_section": [3, 3, 2],
                                           "rope_type": "default"}),
        "vision_config": {**_QWEN_VISION, "num_position_embeddings": 4,
                          "deepstack_visual_indexes": [0]},
        "tie_word_embeddings": True}, spread=TIED),
}  # fmt: skip
