"""GGUF files of models that read whole sequences at once: BERT and its relatives, and T5.

    bert           BERT and DistilBERT; RoBERTa and XLM-R, whose positions begin with the first row;
                   classifiers of all but BERT, of which DistilBERT's have no types of tokens
    nomic-bert     Nomic's, without experts
    modern-bert    ModernBERT
    t5, t5encoder  are `t5.py`'s

Owns the names of their tensors, what config.json says of them, and which states are pooled. Refuses
to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `conversion/bert.py` and `src/models/`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.families import t5
from models.gguf.tensors.names import Converted, restored
from models.gguf.tensors.undoing import Row
from models.quantised.tensors import Readable

Tensors = Mapping[str, Readable]

_LAYER = "encoder.layer.*"
_BERT = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    **{
        f"blk.*.attn_{name[0]}": f"{_LAYER}.attention.self.{name}"
        for name in ("query", "key", "value")
    },
    "blk.*.attn_output": f"{_LAYER}.attention.output.dense",
    "blk.*.attn_output_norm": f"{_LAYER}.attention.output.LayerNorm",
    "blk.*.ffn_up": f"{_LAYER}.intermediate.dense",
    "blk.*.ffn_down": f"{_LAYER}.output.dense",
    "blk.*.layer_output_norm": f"{_LAYER}.output.LayerNorm",
    "cls": "classifier.dense",
    "cls.output": "classifier.out_proj",
}
_DISTIL = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    **{f"blk.*.attn_{x}": f"transformer.layer.*.attention.{x}_lin" for x in "qkv"},
    "blk.*.attn_output": "transformer.layer.*.attention.out_lin",
    "blk.*.attn_output_norm": "transformer.layer.*.sa_layer_norm",
    "blk.*.ffn_up": "transformer.layer.*.ffn.lin1",
    "blk.*.ffn_down": "transformer.layer.*.ffn.lin2",
    "blk.*.layer_output_norm": "transformer.layer.*.output_layer_norm",
    "cls": "pre_classifier",
    "cls.output": "classifier",
}
_DISTIL_KEYS = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
}
_NOMIC = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "emb_ln",
    "blk.*.attn_qkv": "encoder.layers.*.attn.Wqkv",
    "blk.*.attn_output": "encoder.layers.*.attn.out_proj",
    "blk.*.attn_output_norm": "encoder.layers.*.norm1",
    "blk.*.ffn_up": "encoder.layers.*.mlp.fc11",
    "blk.*.ffn_gate": "encoder.layers.*.mlp.fc12",
    "blk.*.ffn_down": "encoder.layers.*.mlp.fc2",
    "blk.*.layer_output_norm": "encoder.layers.*.norm2",
}
_MODERN = {
    "token_embd": "embeddings.tok_embeddings",
    "token_embd_norm": "embeddings.norm",
    "output_norm": "final_norm",
    "blk.*.attn_norm": "layers.*.attn_norm",
    "blk.*.attn_qkv": "layers.*.attn.Wqkv",
    "blk.*.attn_output": "layers.*.attn.Wo",
    "blk.*.ffn_norm": "layers.*.mlp_norm",
    "blk.*.ffn_up": "layers.*.mlp.Wi",
    "blk.*.ffn_down": "layers.*.mlp.Wo",
    "cls": "head.dense",
    "cls.norm": "head.norm",
    "cls.output": "classifier",
}
NAMES = {"bert": _BERT, "nomic-bert": _NOMIC, "modern-bert": _MODERN}
ENCODERS = (*NAMES, *t5.ARCHITECTURES)
_CLASSES = "cls.output.weight"
_TYPES = "token_types.weight"  # which DistilBERT has none of
_ONE_ROW = (_CLASSES, _TYPES)  # matrices that may have one, and no axis for it then
_POOLINGS = (None, "MEAN", "CLS", "LAST", None)  # by llama.cpp's numbers: none, .., a classifier's
_RANK = 4


def encoder_tensors(name: str, tensors: Tensors) -> dict[str, Readable]:
    """The tensors as the Hugging Face checkpoint has them; raises CheckpointError."""
    if name in t5.ARCHITECTURES:
        return restored(t5.needed(tensors), Converted(t5.names(tensors)), Fields({}))
    whole = {
        key: Row(tensor) if key in _ONE_ROW and len(tensor.shape) == 1 else tensor
        for key, tensor in tensors.items()
    }
    names = _DISTIL if _is_distilled(name, tensors) else NAMES[name]
    return restored(whole, Converted(names), Fields({}))


def encoder_config(name: str, fields: Fields, tensors: Tensors) -> dict[str, Any]:
    """What config.json would say; `fields` are the keys of the architecture `name`.

    Raises CheckpointError and UnsupportedError.
    """
    words = {"vocab_size": tensors["token_embd.weight"].shape[0]}
    if name in t5.ARCHITECTURES:
        return words | t5.config(name, fields, tensors)
    fields.refuse("attention.causal", "expert_count", "moe_every_n_layers")
    return words | _sizes(fields) | _OWN[name](fields, tensors)


def pooling_type(fields: Fields, *, ranks: bool) -> dict[str, str]:
    """What `checkpoints/sentence_transformers.py` calls the pooling that the file names; {} if it
    names none.

    Raises UnsupportedError for a classifier's, unless the model `ranks`.
    """
    number = fields.integer("pooling_type", 0, low=0, high=_RANK)
    if number == _RANK and not ranks:
        raise UnsupportedError(
            f"{fields.where} ranks texts with a head that is not read from GGUF files of its "
            f"architecture; use the model's safetensors."
        )
    name = _POOLINGS[number]
    return {} if name is None else {"pooling_type": name}


def _sizes(fields: Fields) -> dict[str, Any]:
    return {
        "hidden_size": fields.integer("embedding_length"),
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_hidden_layers": fields.integer("block_count", high=MAX_LAYERS),
        "num_attention_heads": fields.integer("attention.head_count", high=MAX_HEADS),
        "max_position_embeddings": fields.integer("context_length", high=MAX_TOKENS),
        "layer_norm_eps": fields.number("attention.layer_norm_epsilon"),
    }


def _bert(fields: Fields, tensors: Tensors) -> dict[str, Any]:
    classifies = "cls.weight" in tensors or _CLASSES in tensors
    if classifies and not {_CLASSES, "cls.weight"} <= tensors.keys():
        raise UnsupportedError(
            f"{fields.where} has a classifier and lacks the pooler in front of it, which its "
            f"converter leaves out; use the model's safetensors."
        )
    if _is_distilled("bert", tensors):
        fields.constant("attention.layer_norm_epsilon", 1e-12)  # which its config.json does not say
        found = {ours: _sizes(fields)[key] for key, ours in _DISTIL_KEYS.items()}
        found["architectures"] = ["DistilBertForSequenceClassification"]
    else:  # RoBERTa's, of which no row of positions is padding's
        named = "XLMRobertaForSequenceClassification" if classifies else "BertModel"
        types = _rows(tensors[_TYPES]) if _TYPES in tensors else 0
        found = {"architectures": [named], "type_vocab_size": types}
    said = {"pad_token_id": -1, "id2label": _labels(fields, tensors)} if classifies else {}
    return {**found, **said}


def _is_distilled(name: str, tensors: Tensors) -> bool:
    """A classifier's; without one they are BERT's but for their names."""
    return name == "bert" and _CLASSES in tensors and _TYPES not in tensors


def _nomic(fields: Fields, tensors: Tensors) -> dict[str, Any]:
    types = tensors.get(_TYPES)
    return {
        "architectures": ["NomicBertModel"],
        "type_vocab_size": 0 if types is None else _rows(types),
        "rope_theta": fields.number("rope.freq_base", 1000.0),
        "hidden_act": "silu",
    }


def _modern(fields: Fields, tensors: Tensors) -> dict[str, Any]:
    fields.option("rope.scaling.type", ("none",), "none")
    norm = fields.number("attention.layer_norm_epsilon")
    found: dict[str, Any] = {
        "architectures": ["ModernBertModel"],
        "norm_eps": norm,
        "local_attention": fields.integer("attention.sliding_window", high=MAX_TOKENS),
        "global_rope_theta": fields.number("rope.freq_base", 160_000.0),
        "local_rope_theta": fields.number("rope.freq_base_swa", 10_000.0),
        "hidden_activation": fields.text("hidden_activation", "gelu"),
        **_slides(fields),
    }
    if _CLASSES in tensors:
        found |= {
            "architectures": ["ModernBertForSequenceClassification"],
            "classifier_pooling": _classifier_pooling(fields),
            "classifier_bias": "cls.bias" in tensors,
            "id2label": _labels(fields, tensors),
        }
    return found


_OWN: Mapping[str, Callable[[Fields, Tensors], dict[str, Any]]] = {
    "bert": _bert,
    "nomic-bert": _nomic,
    "modern-bert": _modern,
}


def _slides(fields: Fields) -> dict[str, Any]:
    """Which layers have windows: all but every third, or so many, or as listed."""
    key = "attention.sliding_window_pattern"
    listed = fields.raw.get(key)
    if not isinstance(listed, list):
        return {"global_attn_every_n_layers": fields.integer(key, 3, high=MAX_LAYERS)}
    return {"layer_types": [f"{'sliding' if one else 'full'}_attention" for one in listed]}


def _classifier_pooling(fields: Fields) -> str:
    known = {1: "mean", 2: "cls"}
    number = fields.integer("classifier.pooling_type", 1, low=1, high=2)
    return known[number]


def _labels(fields: Fields, tensors: Tensors) -> dict[str, str]:
    """The name of each class, {"0": "joy"}; of those that have none its number."""
    count, key = _rows(tensors[_CLASSES]), "classifier.output_labels"
    named = fields.texts(key) if key in fields else ()
    if named and len(named) != count:
        raise CheckpointError(
            f"{fields.where} names {len(named)} classes and has {count}; convert it again."
        )
    return {str(n): named[n] if named else f"LABEL_{n}" for n in range(count)}


def _rows(tensor: Readable) -> int:
    """Of a matrix; one row may have been written as a vector."""
    return tensor.shape[0] if len(tensor.shape) > 1 else 1
