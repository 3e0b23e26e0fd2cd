"""Families whose latent attention sees what an index has chosen: DeepSeek V3.2 and GLM-5.

Owns a row for each. Refuses to know the file, and JAX.
Source: `DeepseekV32Model` and `GlmMoeDsaModel` of llama.cpp's `conversion/`.
"""

from collections.abc import Mapping

from models.config.fields import Fields
from models.errors import CheckpointError
from models.gguf.families.mixtures import LATENT, LATENT_CONVERTED, LATENT_FLAGS, YARN, latent
from models.gguf.families.stated import SIGMOID, Found, Stated, Tensors
from models.gguf.tensors.names import LAYER, Converted

_INDEXER = f"{LAYER}.self_attn.indexer"
_INDEXED = Converted(
    {
        **LATENT_CONVERTED.names,
        "blk.*.indexer.attn_q_b": f"{_INDEXER}.wq_b",
        "blk.*.indexer.attn_k": f"{_INDEXER}.wk",
        "blk.*.indexer.k_norm": f"{_INDEXER}.k_norm",
        "blk.*.indexer.proj": f"{_INDEXER}.weights_proj",
    },
    joined=LATENT_CONVERTED.joined,
    behind=True,
)
_KEYS = {
    **LATENT,
    "attention.indexer.head_count": "index_n_heads",
    "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
}
_TYPES, _FAR = "attention.indexer.types", 2**20


def _glm_5(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Layers without an index of their own see what the one before them has chosen."""
    said = latent(fields, tensors, found)
    layers, types = found["num_hidden_layers"], fields.raw.get(_TYPES)
    if types is None and found["max_position_embeddings"] >= _FAR:
        raise CheckpointError(
            f"{fields.where} has no {_TYPES}, and a GLM with so long a context needs one; convert "
            "the model again."
        )
    own = [True] * layers if types is None else list(fields.integers(_TYPES, high=1))
    return said | {"indexer_types": ["full" if one else "shared" for one in own[:layers]]}


INDEXED: Mapping[str, Stated] = {
    "deepseek32": Stated(
        "DeepseekV32ForCausalLM", _INDEXED, _KEYS, LATENT_FLAGS, more=latent, reads=(YARN,),
        gating=SIGMOID,
    ),
    "glm-dsa": Stated(
        "GlmMoeDsaForCausalLM", _INDEXED, _KEYS, LATENT_FLAGS, more=_glm_5,
        reads=(YARN, "rope.dimension_sections"), gating=SIGMOID,
    ),
}  # fmt: skip
