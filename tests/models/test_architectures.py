"""Every family: its config.json, its tensor names, and what it must not accept."""

import json
import math
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from models import architectures
from models.config.decoder import ModelConfig
from models.config.mixers import DualScan
from models.encoder_decoder import make_decoder
from models.errors import CheckpointError, ModelError, UnsupportedError
from models.layers.given import unable
from models.registry import find_architecture, supported
from models.weights.sources import Source, Stack, WeightMap
from tests.parity.alibi_cases import ALIBI
from tests.parity.cases import ARCHITECTURES, MIXTURES
from tests.parity.dense_cases import DENSE
from tests.parity.encdec_cases import CASES as ENCODED
from tests.parity.image_cases import WITH_IMAGES
from tests.parity.state_cases import STATES

CASES = ARCHITECTURES | DENSE | ALIBI | MIXTURES | STATES | WITH_IMAGES | ENCODED
RAW = {name: case.config for name, case in CASES.items()}
FOLDER = Path(architectures.__path__[0])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=4,
)


def parse(raw: Mapping[str, Any], **changes: Any) -> ModelConfig:
    raw = {**raw, **changes}
    return find_architecture(raw).config(raw)


def parameters(config: ModelConfig, shards: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
    decoder = nnx.eval_shape(lambda: make_decoder(config, dtype=jnp.bfloat16, shards=shards))
    flat = nnx.to_flat_state(nnx.state(decoder, nnx.Param))
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}


def weights(raw: Mapping[str, Any]) -> WeightMap:
    return find_architecture(raw).weights(parse(raw))


def test_every_architecture_has_a_case_here() -> None:
    assert {raw["architectures"][0] for raw in RAW.values()} == set(supported())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_family_is_a_short_file(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 90


def entries(source: Source | Stack) -> tuple[Source, ...]:
    return (source,) if isinstance(source, Source) else source.sources


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", RAW)
def test_each_parameter_has_a_source_that_fills_it(name: str, shards: int) -> None:
    config, sources = parse(RAW[name]), weights(RAW[name]).sources
    if config.mixture is not None and config.mixture.num_experts % shards:
        pytest.skip(f"{config.mixture.num_experts} experts")
    if shards > 1 and (config.encoder is not None or not config.num_attentions):
        pytest.skip("encoders, and states without attention, are on one device")
    made = parameters(config, shards)
    assert set(sources) == set(made)
    for path, source in sources.items():
        shape = made[path].shape
        if isinstance(source, Stack):
            assert len(source.sources) == shape[0]
            shape = shape[1:]
        for one in entries(source):
            at = 0
            zeros = sum(part.units * part.size for part in one.parts if not part.tensor)
            for piece in one.pieces(shards):
                assert at <= piece.at <= at + zeros
                at = piece.at + piece.count
            assert 0 <= shape[one.axis] - at < shards, path


@pytest.mark.parametrize("name", RAW)
def test_no_tensor_outputs_are_read_twice_or_forgotten(name: str) -> None:
    read: dict[tuple[str, int | None], list[int]] = {}
    lengths: dict[str, int] = {}
    for source in weights(RAW[name]).sources.values():
        for one in entries(source):
            lengths |= one.outputs()
            for piece in one.pieces():
                outputs = range(piece.start, piece.start + piece.count * piece.step, piece.step)
                read.setdefault((piece.tensor, one.entry), []).extend(outputs)
    for (tensor, _), outputs in read.items():
        assert sorted(outputs) == list(range(lengths[tensor])), tensor


def test_llama_3_1_is_built_without_data(shared_data: Path) -> None:
    raw = json.loads((shared_data / "configs" / "Llama-3.1-8B.json").read_text())
    made = parameters(parse(raw))
    assert all(isinstance(one, jax.ShapeDtypeStruct) for one in made.values())
    assert sum(math.prod(one.shape) for one in made.values()) == 8_030_261_248
    assert len(made) == 3 + 6 * 32


PUBLISHED = {
    "Llama-3.2-1B-Instruct": (16, 64, True, 1),
    "Qwen2.5-7B": (28, 128, False, 1),
    "Qwen3-8B": (36, 128, False, 1),
    "phi-4-mini-reasoning": (32, 128, True, 1),
    "phi3.5-mini-instruct": (32, 96, False, 1),
    "gemma2_2b_it": (26, 256, True, 2),
    "gemma3_1b_it": (26, 256, True, 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read(name: str, shared_data: Path) -> None:
    config = parse(json.loads((shared_data / "configs" / f"{name}.json").read_text()))
    kinds = len(set(config.layer_kinds))
    assert (config.num_layers, config.head_dim, config.tied_head, kinds) == PUBLISHED[name]


def test_mistral_without_the_key_has_its_first_window() -> None:
    raw = {key: value for key, value in RAW["mistral"].items() if key != "sliding_window"}
    assert {kind.window for kind in parse(raw).layer_kinds} == {4096}
    assert {kind.window for kind in parse(RAW["mistral"]).layer_kinds} == {None}


def test_qwen2_windows_begin_at_a_layer_and_only_when_asked_for() -> None:
    raw = {**RAW["qwen2"], "sliding_window": 9, "max_window_layers": 2}
    assert [kind.window for kind in parse(raw).layer_kinds] == [None] * 3
    used = parse(raw, use_sliding_window=True)
    assert [kind.window for kind in used.layer_kinds] == [None, None, 9]


def test_qwens_with_experts_slide_in_other_layers() -> None:
    use = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
    kinds = {name: parse(RAW[name], **use).layer_kinds for name in ("qwen2_moe", "qwen3_moe")}
    assert [kind.window for kind in kinds["qwen2_moe"]] == [9, None, None]
    assert [kind.window for kind in kinds["qwen3_moe"]] == [9] * 3


def test_layer_types_overrule_the_family_pattern() -> None:
    types = ["full_attention", "full_attention", "sliding_attention"]
    config = parse(RAW["gemma2"], layer_types=types)
    assert [kind.window for kind in config.layer_kinds] == [None, None, 10]


def test_gemma_3_has_two_bases_and_scales_only_one() -> None:
    raw, pattern = RAW["gemma3"], (True, True, False, True, True, False, True)
    kinds = parse(raw).layer_kinds
    assert tuple(kind.window == 12 for kind in kinds) == pattern
    assert (kinds[0].rope.theta, kinds[2].rope.theta) == (1e4, 1e6)
    newer = {key: value for key, value in raw.items() if not key.startswith("rope")}
    newer["rope_parameters"] = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    }
    assert parse(newer) == parse(raw)


def test_old_gemma_files_say_gelu_and_mean_its_tanh_form() -> None:
    assert parse(RAW["gemma"], hidden_act="gelu").activation == "gelu_pytorch_tanh"


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("llama2", {"hidden_act": "mish"}, UnsupportedError),
        ("llama2", {"hidden_size": 41}, CheckpointError),
        ("llama2", {"num_key_value_heads": 0}, CheckpointError),
        ("llama2", {"rms_norm_eps": math.nan}, CheckpointError),
        ("llama2", {"vocab_size": 1 << 40}, CheckpointError),
        ("llama2", {"num_hidden_layers": None}, CheckpointError),
        ("qwen2", {"use_mrope": True}, UnsupportedError),
        ("qwen3", {"layer_types": ["linear_attention"] * 3, "use_sliding_window": True,
                   "sliding_window": 4}, UnsupportedError),
        ("phi4", {"lm_head_bias": True}, UnsupportedError),
        ("gemma2", {"use_bidirectional_attention": True}, UnsupportedError),
        ("gemma3", {"attn_logit_softcapping": 50.0}, UnsupportedError),
        ("gpt2", {"n_head": 3}, CheckpointError),
        ("gpt2", {"n_embd": None}, CheckpointError),
        ("gpt2", {"activation_function": "xielu"}, UnsupportedError),
        ("gptj", {"rotary_dim": 5}, CheckpointError),
        ("gemma3n", {"intermediate_size": [56, 56, 56, 56, 24]}, UnsupportedError),
        ("gemma3n", {"activation_sparsity_pattern": [0.5, 0.5, 1.5, 0.0, 0.0]}, CheckpointError),
        ("gemma3n", {"altup_active_idx": 3}, CheckpointError),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, UnsupportedError),
        ("mpt", {"attn_config": {"alibi": False}}, UnsupportedError),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, UnsupportedError),
        ("phi", {"tie_word_embeddings": True}, UnsupportedError),
        ("smollm3", {"no_rope_layers": [1, 0]}, CheckpointError),
        ("cohere2", {"use_qk_norm": True}, UnsupportedError),
        ("gpt_neox", {"rotary_pct": 1.5}, CheckpointError),
        ("apertus", {"post_norm": True}, UnsupportedError),
        ("hunyuan_dense", {"use_qk_norm": False}, UnsupportedError),
        ("gpt_neo", {"attention_types": [[["global"], 4]]}, UnsupportedError),
        ("gpt_neo", {"attention_layers": ["global"] * 3 + ["none"]}, UnsupportedError),
        ("granite_swa", {"layer_rope_theta": [0, 0.5, 9, 9, 9]}, CheckpointError),
        ("granite", {"logits_scaling": 0}, CheckpointError),
        ("gpt2", {"add_cross_attention": True}, UnsupportedError),
        ("minimax_m2", {"attn_type_list": [1, 0, 1]}, UnsupportedError),
        ("minimax_m2", {"rotary_dim": 18}, CheckpointError),
        ("hunyuan_moe", {"moe_topk": [2, 2, 3]}, UnsupportedError),
        ("hunyuan_moe", {"num_shared_expert": [2, 2, 2]}, UnsupportedError),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, CheckpointError),
        ("deepseek_v2", {"rope_interleave": False}, UnsupportedError),
        ("glm_moe_dsa", {"rope_interleave": False}, UnsupportedError),
        ("ernie4_5_moe", {"moe_norm_min": 0.5}, UnsupportedError),
        ("phimoe", {"num_experts_per_tok": 3}, UnsupportedError),
        ("dbrx", {"attn_config": {"kv_n_heads": 0}}, CheckpointError),
        ("deepseek", {"topk_method": "group_limited_greedy"}, UnsupportedError),
        ("deepseek_v32", {"q_lora_rank": None}, CheckpointError),
        ("deepseek_v32", {"index_head_dim": 6}, CheckpointError),
        ("deepseek_v32", {"indexer_rope_interleave": True}, UnsupportedError),
        ("deepseek_v32", {"rope_interleave": False}, UnsupportedError),
        ("nemotron_h", {"time_step_limit": [0.0, 0.1]}, UnsupportedError),
        ("nemotron_h", {"mamba_dt_limit": [0.01, "Infinity"]}, UnsupportedError),
        ("zamba2", {"time_step_limit": [0.1]}, CheckpointError),
        ("exaone4", {"sliding_window_pattern": "LLXG", "layer_types": None}, UnsupportedError),
        ("qwen3_next", {"attn_output_gate": False}, UnsupportedError),
        ("qwen3_5", {"attn_output_gate": False}, UnsupportedError),
        ("kimi_linear", {"mla_use_nope": False}, UnsupportedError),
        *((name, {"hidden_act": "gelu_pytorch_tanh"}, UnsupportedError) for name in (
            "kimi_linear", "qwen3_next", "qwen3_5", "olmo_hybrid", "lfm2", "lfm2_moe", "jamba",
            "bamba", "granite_hybrid", "falcon_h1",
        )),
        ("kimi_linear", {"linear_attn_config": {"kda_layers": [1, 2, 4]}}, CheckpointError),
        ("glm_moe_dsa", {"index_topk_pattern": "FTF", "indexer_types": None}, UnsupportedError),
        ("glm_moe_dsa", {"index_topk_pattern": "FF", "indexer_types": None}, CheckpointError),
        ("glm_moe_dsa", {"indexer_types": ["full", "full", "none"]}, UnsupportedError),
    ],
)  # fmt: skip
def test_what_a_family_refuses(name: str, change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(change))):
        parse(RAW[name], **change)


def test_nemotron_h_has_a_shortest_step() -> None:
    for change in ({}, {"time_step_limit": [0.0, "Infinity"]}, {"time_step_limit": None}):
        mixer = parse(RAW["nemotron_h"], **change).mixer
        assert isinstance(mixer, DualScan) and mixer.step_limits == (1e-3, math.inf)
    older = parse(RAW["nemotron_h"], mamba_dt_min=0.25, time_step_min=0.5).mixer
    assert isinstance(older, DualScan) and older.step_limits == (0.25, math.inf)


def test_exaone_4_says_by_letters_which_layers_slide() -> None:
    raw = {key: one for key, one in RAW["exaone4"].items() if key != "layer_types"}
    raw |= {"num_hidden_layers": 6, "sliding_window": 9}

    def slides(pattern: str | int) -> list[bool]:
        kinds = parse(raw, sliding_window_pattern=pattern).layer_kinds
        assert [kind.rope is None for kind in kinds] == [kind.window is None for kind in kinds]
        return [kind.window == 9 for kind in kinds]

    assert slides("LLG") == slides(3) == [True, True, False, True, True, False]
    assert slides("LLLG") == [True, True, True, False, True, False]  # the last layer sees all
    assert parse(raw, sliding_window_pattern="LG", sliding_window=None).layer_kinds[0].rope


@pytest.mark.parametrize(
    "change, before",
    [
        ({}, [False] * 3),
        ({"index_topk_freq": 2}, [False, False, True]),
        ({"index_topk_freq": 3, "index_skip_topk_offset": 1}, [False, True, True]),
        ({"index_topk_pattern": "FSF"}, [False, True, False]),
        ({"indexer_types": ["full", "full", "shared"]}, [False, False, True]),
    ],
)
def test_glm_5_says_which_layers_choose(change: dict[str, Any], before: list[bool]) -> None:
    kinds = parse(RAW["glm_moe_dsa"], **{"indexer_types": None, **change}).layer_kinds
    assert [kind.chosen_before for kind in kinds] == before


def test_a_first_layer_has_none_before_it() -> None:
    with pytest.raises(CheckpointError, match="first layer that sees what the layer before it"):
        parse(RAW["glm_moe_dsa"], indexer_types=["shared", "full", "full"])


def test_baichuan_is_told_apart_by_its_keys() -> None:
    first, second = RAW["baichuan_13b"], RAW["baichuan2_7b"]
    assert parse(first).slopes and not parse(first).head_unit
    assert parse(second).slopes is None and parse(second).head_unit
    without = {key: value for key, value in second.items() if key != "z_loss_weight"}
    assert parse(without, vocab_size=125_696).head_unit and not parse(without).head_unit


def test_llama_4_has_positions_where_it_has_chunks() -> None:
    kinds = parse(RAW["llama4"]).layer_kinds
    assert [kind.chunk for kind in kinds] == [32, 32, 32, None, 32]
    assert [kind.rope is None for kind in kinds] == [False, False, False, True, False]
    assert [kind.experts for kind in parse(RAW["llama4_maverick"]).layer_kinds][:2] == [False, True]
    assert parse(RAW["llama4"], attn_temperature_tuning=4).score_growth is not None
    assert parse(RAW["llama4"], attn_temperature_tuning=False).score_growth is None


def test_llama_4_with_images_leaves_their_tensors_unread() -> None:
    ignored = weights(RAW["llama4_maverick"]).ignored
    assert any(fnmatch("vision_model.patch_embedding.linear.weight", one) for one in ignored)
    assert not any(fnmatch("language_model.model.norm.weight", one) for one in ignored)


def test_gemma_3n_shares_keys_with_the_last_layer_of_the_same_kind() -> None:
    config = parse(RAW["gemma3n"])
    assert config.kv_places == (0, 1, 2, 1, 2)
    assert config.num_attentions == 3
    assert parse(RAW["gemma3n"], num_kv_shared_layers=0).num_attentions == 5
    with pytest.raises(CheckpointError, match="none before them"):
        parse(RAW["gemma3n"], num_kv_shared_layers=4)


def test_gemma_4_states_the_heads_of_full_layers_in_two_ways() -> None:
    raw = RAW["gemma4_26b"]
    others = {"head_dim": 24, "num_key_value_heads": 1}
    older = parse(raw)
    newer = {key: value for key, value in raw.items() if "global" not in key}
    newer |= {"per_layer_config": {"2": others, "4": others, "5": others}}
    assert parse(newer) == older
    assert [older.kv_heads_of(kind) for kind in older.layer_kinds[1:3]] == [(2, 16), (1, 24)]
    assert [kind.keys_as_values for kind in older.layer_kinds[1:3]] == [False, True]
    apart = parse(raw, attention_k_eq_v=False).layer_kinds[2]
    assert apart.kv_heads == 2 and not apart.keys_as_values
    for wrong in ({"2": {"sliding_window": 4}}, {"9": others}):
        with pytest.raises(UnsupportedError, match="per_layer_config"):
            parse(newer, per_layer_config=wrong)
    with pytest.raises(UnsupportedError, match="'all', which is not supported; use vision"):
        parse(raw, use_bidirectional_attention="all")


def test_gemma_4_shares_keys_and_doubles_the_mlp_of_who_shares() -> None:
    config = parse(RAW["gemma4_e2b"])
    assert [kind.shared for kind in config.layer_kinds] == [False] * 4 + [True] * 2
    assert [kind.mlp_size for kind in config.layer_kinds] == [None] * 4 + [112] * 2
    assert config.kv_places == (0, 1, 0, 2, 2, 0)  # counted among layers of such heads
    ignored = weights(RAW["gemma4_e2b"]).ignored
    unread = ("vision_tower.encoder.layers.0.mlp", "language_model.layers.5.self_attn.v_proj")
    assert all(any(fnmatch(f"model.{name}.weight", one) for one in ignored) for name in unread)
    read = "model.language_model.layers.3.self_attn.v_proj.weight"
    assert not any(fnmatch(read, one) for one in ignored)


def test_gemma_3n_cuts_gates_of_its_first_ten_layers_if_it_is_deep() -> None:
    types = ["sliding_attention", "full_attention"] * 6
    deep = parse(RAW["gemma3n"], num_hidden_layers=12, layer_types=types)
    assert [kind.sparsity for kind in deep.layer_kinds] == [0.95] * 10 + [0.0] * 2
    assert {kind.sparsity for kind in parse(RAW["gemma3n"]).layer_kinds} == {0.0}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(RAW)), st.data())
def test_any_value_anywhere_is_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = RAW[name]
    key = data.draw(st.sampled_from(sorted(set(raw) - {"model_type"})))
    try:
        parse(raw, **{key: data.draw(JSON)})
    except ModelError as error:
        assert str(error).endswith(".")


def test_blocks_of_zamba2_are_read_where_they_are_used_first_and_may_be_repeated() -> None:
    found = weights(RAW["zamba2_two_blocks"])  # layers 0, 2 and 3 have blocks 0, 1 and 0
    names = [name for name in found.needed if ".shared_transformer." in name]
    assert {name.split(".")[2] for name in names} == {"0", "2"}
    (adapter,) = found.sources["layers.3.use.mlp.down.kernel"].tensors
    assert adapter == (
        "model.layers.0.shared_transformer.feed_forward.gate_up_proj_adapter_list.2.0.weight"
    )
    again = "model.layers.{}.shared_transformer.self_attn.q_proj.weight"
    ignored = [n for n in range(4) if any(fnmatch(again.format(n), p) for p in found.ignored)]
    assert ignored == [3]
    with pytest.raises(UnsupportedError, match="tie_word_embeddings"):
        parse(RAW["zamba2"], tie_word_embeddings=False)


def test_who_takes_embeddings_and_scales_them() -> None:
    """They are as transformers' embedding layers give them, of which Gemma's scale their rows."""
    scaled = ("granite", "recurrent_gemma", "falcon_h1")
    assert all(parse(RAW[name]).scales_given for name in scaled)
    assert not any(parse(RAW[name]).scales_given for name in ("gemma", "gemma2", "gemma3"))
    assert "token ids" in (unable(parse(RAW["gemma3n"])) or "")
    assert "encoder" in (unable(parse(RAW["bart"])) or "")
    assert unable(parse(RAW["gemma"])) is None


def test_gates_of_recurrent_gemma_divide_its_width() -> None:
    config = parse(RAW["recurrent_gemma"])
    assert [kind.mixer for kind in config.layer_kinds] == [True, False, True, True]
    assert config.embedding_scale == 6.9375  # the root of 48 in bfloat16
    with pytest.raises(CheckpointError, match="lru_width is 50"):
        parse(RAW["recurrent_gemma"], lru_width=50)


def test_olmo_hybrid_is_read_as_published_and_as_transformers_writes_it() -> None:
    both = weights(RAW["olmo_hybrid"])
    assert both.otherwise is not None
    first, second = ("model.layers.0.input_layernorm", "model.layers.0.attention_layer_norm")
    for found, norm, sizes in ((both, first, [20, 20, 84]), (both.otherwise, second, [42, 42, 40])):
        assert found.sources["layers.0.attention_norm.weight"].tensors == {f"{norm}.weight"}
        conv = found.sources["layers.0.mixer.conv.kernel"]
        assert isinstance(conv, Source)
        assert [part.units for part in conv.parts] == sizes
    short = {key: one for key, one in RAW["olmo_hybrid"].items() if key != "layer_types"}
    assert [kind.mixer for kind in parse(short, num_hidden_layers=5).layer_kinds] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert [kind.mixer for kind in parse(short, num_hidden_layers=2).layer_kinds] == [True, False]


def test_deci_states_layers_in_two_ways() -> None:
    kinds = parse(RAW["decilm"]).layer_kinds
    assert [(kind.attention, kind.kv_heads) for kind in kinds] == [
        (True, 2), (False, None), (True, 1), (True, 2),
    ]  # fmt: skip
    assert [(kind.mlp, kind.mlp_size) for kind in kinds] == [
        (True, 256), (True, 512), (True, 512), (False, None),
    ]  # fmt: skip
    older = {key: one for key, one in RAW["decilm"].items() if key != "block_configs"}
    older |= {"intermediate_size": 56, "num_key_value_heads_per_layer": [4, 2, 1, 1]}
    assert [kind.kv_heads for kind in parse(older).layer_kinds] == [4, 2, 1, 1]
    with pytest.raises(CheckpointError, match="num_key_value_heads_per_layer is no list of 5"):
        parse(older, num_hidden_layers=5)
    blocks = RAW["decilm"]["block_configs"]
    linear = {"attention": blocks[0]["attention"], "ffn": {"replace_with_linear": True}}
    with pytest.raises(UnsupportedError, match="block_configs: 0: ffn: replace_with_linear"):
        parse(RAW["decilm"], block_configs=[linear, *blocks[1:]])


def test_command_a_plus_says_how_experts_are_weighed_and_joined() -> None:
    config = parse(RAW["cohere2_moe"])
    assert [(kind.window, kind.rope is None) for kind in config.layer_kinds] == [
        (None, False), (9, False), (None, True),
    ]  # fmt: skip
    assert config.mixture is not None
    assert (config.mixture.shared_mean, config.intermediate_size) == (True, 56)
    other = parse(
        RAW["cohere2_moe"], rms_norm_eps=1e-6, expert_selection_fn="softmax", norm_topk_prob=False,
        shared_expert_combination_strategy="sum", prefix_dense_sliding_window_pattern=2,
    )  # fmt: skip
    assert other.mixture is not None and other.mixture.renormalize
    assert (other.norm, other.norm_eps, other.mixture.shared_mean) == ("rms", 1e-6, False)
    assert [kind.window for kind in other.layer_kinds] == [9, 9, None]


def test_mellum_counts_its_experts_under_two_names() -> None:
    raw = {key: one for key, one in RAW["mellum"].items() if key != "num_experts"}
    assert parse(raw, num_local_experts=6) == parse(RAW["mellum"])
