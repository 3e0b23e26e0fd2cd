"""The table of tiny pooling models that are compared with transformers.

Owns configurations, as config.json would hold them, and the sequences that are pooled. Lengths are
mixed and lie on both sides of the programs' sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.parity import stand_ins
from tests.parity.case import StandIn
from tests.parity.weights import Spread

LENGTHS = (5, 1, 16, 17, 40, 9, 33)
VOCAB = 67
ENCODER = Spread(gain=1.0, embedding=0.5)
LABELS_3 = {"0": "joy", "1": "anger", "2": "awe"}


@dataclass(frozen=True)
class PoolingCase:
    """One row. `pooling` is what the reference takes; classifiers give their scores.

    body: transformers' model that gives the states which a reward model's head reads.
    """

    config: Mapping[str, Any]
    pooling: Literal["CLS", "LAST", "MEAN", "ALL", "STEP"] = "CLS"
    seed: int = 0
    spread: Spread = ENCODER
    body: StandIn | None = None
    step_tag_id: int | None = None

    @property
    def classifies(self) -> bool:
        return self.config["architectures"][0].endswith("ForSequenceClassification")

    def inputs(self) -> list[list[int]]:
        """Token ids of each sequence, none of them the padding's."""
        return [
            [
                3 + (11 * number + 29 * place + place * place) % (VOCAB - 3)
                for place in range(length)
            ]
            for number, length in enumerate(LENGTHS)
        ]

    def types(self) -> list[list[int]]:
        """Each sequence as a pair whose second text is its latter half; empty without types."""
        if self.config.get("type_vocab_size", 0) < 2:
            return [[] for _ in LENGTHS]
        return [[int(place >= length / 2) for place in range(length)] for length in LENGTHS]


def _bert(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        **changes,
    }


def _roberta(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    sizes = {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5, **changes}
    return _bert(architecture, model_type, max_position_embeddings=50, **sizes)


def _distilbert(architecture: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "distilbert",
        "vocab_size": VOCAB,
        "dim": 40,
        "hidden_dim": 56,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 48,
        "activation": "gelu",
        "pad_token_id": 0,
        **changes,
    }


def _modernbert(architecture: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "modernbert",
        "vocab_size": VOCAB,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "pad_token_id": 0,
        "cls_token_id": 1,
        "bos_token_id": 1,
        "sep_token_id": 2,
        "eos_token_id": 2,
        **changes,
    }


def _nomic(architecture: str, **changes: Any) -> dict[str, Any]:
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
    return _bert(architecture, "nomic_bert", hidden_act="silu", **rope, **changes)


def _decoder(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 48,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "pad_token_id": 0,
        **changes,
    }


def _t5(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB,
        "d_model": 40,
        "d_kv": 12,
        "d_ff": 56,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 30,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "n_positions": 48,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "is_encoder_decoder": False,
        **changes,
    }


_QWEN2 = _decoder("Qwen2ForCausalLM", "qwen2", hidden_size=64)
_INTERNLM2 = _decoder("LlamaForCausalLM", "llama")

CASES: Mapping[str, PoolingCase] = {
    "bert": PoolingCase(_bert("BertModel", "bert"), "MEAN"),
    "bert_classifier": PoolingCase(
        _bert("BertForSequenceClassification", "bert", id2label=LABELS_3, num_attention_heads=5)
    ),
    "bert_cross_encoder": PoolingCase(
        _bert("BertForSequenceClassification", "bert", id2label={"0": "LABEL_0"}, hidden_act="relu")
    ),
    "roberta": PoolingCase(_roberta("RobertaModel", "roberta")),
    "xlm_roberta_reranker": PoolingCase(
        _roberta("XLMRobertaForSequenceClassification", "xlm-roberta", id2label={"0": "LABEL_0"})
    ),
    "distilbert": PoolingCase(_distilbert("DistilBertModel"), "MEAN"),
    "distilbert_classifier": PoolingCase(_distilbert("DistilBertForSequenceClassification")),
    "modernbert": PoolingCase(_modernbert("ModernBertModel")),
    "modernbert_classifier": PoolingCase(
        _modernbert("ModernBertForSequenceClassification", classifier_pooling="mean"), "MEAN"
    ),
    "nomic": PoolingCase(_nomic("NomicBertModel"), "MEAN"),
    "nomic_classifier": PoolingCase(
        _nomic("NomicBertForSequenceClassification", id2label=LABELS_3), seed=1
    ),
    "t5_encoder": PoolingCase(_t5("T5EncoderModel", "t5"), "MEAN"),
    "umt5_encoder": PoolingCase(
        _t5("UMT5EncoderModel", "umt5", feed_forward_proj="gated-gelu"), "MEAN", seed=1
    ),
    "qwen3_embedding": PoolingCase(_decoder("Qwen3Model", "qwen3"), "LAST"),
    "llama_mean": PoolingCase(_decoder("LlamaModel", "llama"), "MEAN"),
    "qwen3_reward": PoolingCase(
        _decoder("Qwen3ForSequenceClassification", "qwen3", id2label={"0": "LABEL_0"}), "LAST"
    ),
    "qwen2_reward": PoolingCase(
        _QWEN2 | {"architectures": ["Qwen2ForRewardModel"]}, "ALL",
        body=StandIn(_QWEN2, stand_ins.same_names, zeros=("lm_head",)),
    ),
    "qwen2_process_reward": PoolingCase(
        _QWEN2 | {"architectures": ["Qwen2ForProcessRewardModel"]}, "STEP", step_tag_id=11,
        body=StandIn(_QWEN2, stand_ins.same_names, zeros=("lm_head",)),
    ),
    "internlm2_reward": PoolingCase(
        _INTERNLM2 | {"architectures": ["InternLM2ForRewardModel"], "model_type": "internlm2"},
        "ALL", body=StandIn(_INTERNLM2, stand_ins.internlm2, zeros=("lm_head",)),
    ),
}  # fmt: skip
