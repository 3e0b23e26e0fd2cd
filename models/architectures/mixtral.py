"""Mixtral: Mistral with eight experts in the place of each MLP, of which a token takes two."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("MixtralForCausalLM",)
DEFAULTS = {"rope_theta": 1e6, "rms_norm_eps": 1e-5, "num_local_experts": 8}
MOE = f"{llama.LAYER}.block_sparse_moe"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.router": f"{MOE}.gate",
    "layers.*.mlp.experts.gate_up": (f"{MOE}.experts.#.w1", f"{MOE}.experts.#.w3"),
    "layers.*.mlp.experts.down": f"{MOE}.experts.#.w2",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    experts = fields.integer("num_local_experts", high=MAX_EXPERTS)
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts, default=2),
        intermediate_size=fields.integer("intermediate_size"),
        activation=read_activation(fields),
    )
    windows = read_windows(fields, lambda _: "sliding_window" in fields)
    return llama.dense(fields, windows=windows, experts=[True] * len(windows), mixture=mixture)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
