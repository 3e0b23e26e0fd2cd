"""What the tensors of BART and mBART are called."""

from models.weights.encoder import EncoderNames
from models.weights.sources import Names

ENCODER, DECODER = "model.encoder.layers.*", "model.decoder.layers.*"
SHARED = "model.shared"
IGNORED = ("*coder.embed_tokens.weight", "*coder.version", "lm_head.weight")
ENCODER_NAMES: EncoderNames = {
    "position_embedding": "model.encoder.embed_positions",
    "embedding_norm": "model.encoder.layernorm_embedding",
    "layers.*.qkv": tuple(f"{ENCODER}.self_attn.{x}_proj" for x in "qkv"),
    "layers.*.o": f"{ENCODER}.self_attn.out_proj",
    "layers.*.attention_norm": f"{ENCODER}.self_attn_layer_norm",
    "layers.*.up": f"{ENCODER}.fc1",
    "layers.*.down": f"{ENCODER}.fc2",
    "layers.*.mlp_norm": f"{ENCODER}.final_layer_norm",
    "norm": "model.encoder.layer_norm",
}
NAMES: Names = {
    "embedding": SHARED,
    "head": "lm_head",
    "position_embedding": "model.decoder.embed_positions",
    "embedding_norm": "model.decoder.layernorm_embedding",
    "layers.*.attention_norm": f"{DECODER}.self_attn_layer_norm",
    "layers.*.attention.qkv": tuple(f"{DECODER}.self_attn.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{DECODER}.self_attn.out_proj",
    "layers.*.cross_norm": f"{DECODER}.encoder_attn_layer_norm",
    "layers.*.cross.q": f"{DECODER}.encoder_attn.q_proj",
    "layers.*.cross.kv": tuple(f"{DECODER}.encoder_attn.{x}_proj" for x in "kv"),
    "layers.*.cross.o": f"{DECODER}.encoder_attn.out_proj",
    "layers.*.mlp_norm": f"{DECODER}.final_layer_norm",
    "layers.*.mlp.up": f"{DECODER}.fc1",
    "layers.*.mlp.down": f"{DECODER}.fc2",
    "norm": "model.decoder.layer_norm",
}
