"""Nomic's embeddings (arXiv 2402.01613): BERT with rotary positions, gated MLPs and few biases.

The first checkpoints write GPT-2's keys, with switches of everything their code can do; later ones
those of transformers. The tensors of both are called alike.
"""

from collections.abc import Mapping
from typing import Any

from models.config.encoder import ClassifierHead, EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.label_names import num_labels
from models.config.rope import read_rope
from models.layers.parts import ACTIVATIONS
from models.weights.encoder import EncoderNames, encoder_weights
from models.weights.sources import WeightMap

ENCODERS = ("NomicBertModel", "NomicBertForMaskedLM", "NomicBertForSequenceClassification")

LAYER = "nomic_bert.encoder.layers.*"
NAMES: EncoderNames = {
    "embedding": "nomic_bert.embeddings.word_embeddings",
    "type_embedding": "nomic_bert.embeddings.token_type_embeddings",
    "embedding_norm": "nomic_bert.emb_ln",
    "layers.*.qkv": f"{LAYER}.attn.Wqkv",
    "layers.*.o": f"{LAYER}.attn.out_proj",
    "layers.*.attention_norm": f"{LAYER}.norm1",
    "layers.*.up": (f"{LAYER}.mlp.fc12", f"{LAYER}.mlp.fc11"),  # gate and up
    "layers.*.down": f"{LAYER}.mlp.fc2",
    "layers.*.mlp_norm": f"{LAYER}.norm2",
    "head.first": "nomic_bert.pooler.dense",
    "head.last": "classifier",
}
IGNORED = ("*pooler.dense.*", "cls.*")
FIRST_KEYS = {
    "hidden_size": "n_embd", "intermediate_size": "n_inner", "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head", "max_position_embeddings": "max_trained_positions",
    "layer_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function",
    "rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_emb_fraction",
}  # fmt: skip
SWITCHES = (
    "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "prenorm", "parallel_block", "use_rms_norm",
    "rotary_emb_interleaved", "rotary_emb_scale_base", "causal", "moe_every_n_layers",
    "scale_attn_by_inverse_layer_idx",
)  # fmt: skip


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    first = raw.get("n_embd") is not None
    fields = Fields(raw, names=FIRST_KEYS if first else None)
    fields.refuse(*SWITCHES)
    activations = {"swiglu": "silu"} if first else {name: name for name in ACTIVATIONS}
    activation = fields.option("hidden_act", activations, "swiglu" if first else "silu")
    heads = fields.integer("num_attention_heads", high=MAX_HEADS)
    head_dim = fields.integer("head_dim", fields.integer("hidden_size") // heads, high=MAX_HEADS)
    rope = read_rope(fields.completed("rope_theta", 1000.0), head_dim)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    # of the first checkpoints, without the scaling that goes beyond
    positions = fields.integer("max_position_embeddings", 2048, high=MAX_TOKENS)
    architecture = fields.texts("architectures")[0]
    classifies = architecture.endswith("ForSequenceClassification")
    return EncoderConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=heads,
        head_size=head_dim,
        max_position_embeddings=positions,
        context_length=positions,
        layer_kinds=(EncoderLayerKind(rope=rope),) * layers,
        activation=activations[activation],
        gated_mlp=True,
        norm_eps=fields.number("layer_norm_eps", 1e-12, low=0.0, high=1.0),
        bias=False,
        positions="none",
        token_types=fields.integer("type_vocab_size", 2, low=0),
        head=ClassifierHead(num_labels(fields), "tanh") if classifies else None,
    )


def weights(config: EncoderConfig) -> WeightMap:
    return encoder_weights(config, NAMES, optional_prefix="nomic_bert.", ignored=IGNORED)
