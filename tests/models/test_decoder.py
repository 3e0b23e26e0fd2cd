"""The decoder's own promises, over attention's reference instead of pages.

That its numbers are right is the business of tests/parity.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.architectures import gemma2
from models.config.decoder import LayerKind, ModelConfig, QKNorm, ScoreGrowth, SharedBlocks
from models.decoder import Decoder
from models.errors import UnsupportedError
from models.layers import self_attention
from models.layers.attention import AttentionBatch, KVCache, mixed_batch
from models.layers.given import Given
from models.layers.parts import split_columns
from models.layers.rope import RopeConfig, Rotation
from models.weights.decoder import weight_map
from pallas_kernels import HeadNorms, Pages
from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.cache.reference import qkv_write_reference

NAMES = {
    **gemma2.NAMES,
    "position_embedding": "wpe",
    "embedding_norm": "ln_e",
    "layers.*.attention.q": "q.*",
    "layers.*.mlp.up": "up.*",
    "layers.*.attention.sinks": "sinks.*",
}
FULL = LayerKind(rope=RopeConfig(8))
LOCAL = LayerKind(window=3, rope=RopeConfig(8, theta=100.0))
CONFIG = ModelConfig(
    architecture="OfThisTestOnly",  # so that no trace is shared with tests of the paged cache
    vocab_size=29,
    hidden_size=24,
    intermediate_size=20,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    context_length=64,
    layer_kinds=(FULL, FULL),
)
TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


@pytest.fixture(autouse=True)
def dense_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens are one row, whose cache is this step's keys and values."""

    def attend(
        batch: AttentionBatch,
        cache: KVCache,
        layer: jax.Array,
        qkv: jax.Array,
        turn: Rotation | None,
        norms: HeadNorms | None,
        factor: jax.Array | None,
        *,
        head_dim: int,
        kv_heads: int,
        chunk: int | None,
        write: bool,
        **options: Any,
    ) -> tuple[jax.Array, KVCache]:
        slots = jnp.arange(len(qkv))
        q, pages = qkv_write_reference(
            qkv, Pages(*cache[:4]), 0 * slots, slots, head_dim=head_dim, turn=turn, norms=norms
        )
        q = q if factor is None else q * factor[..., None, None]
        out = attention_reference(
            q, pages.k, pages.v, jnp.array([[0]]), 0 * slots, batch.positions, **options
        )
        return out.reshape(len(qkv), -1), cache

    monkeypatch.setattr(self_attention, "paged_attention", attend)


def make(config: ModelConfig, shards: int = 1) -> Decoder:
    """A decoder whose parameters are drawn by name in the checkpoint, whatever their layout."""
    made = Decoder(config, dtype=jnp.float32, shards=shards)
    sources = weight_map(config, NAMES).sources
    for path, parameter in nnx.to_flat_state(nnx.state(made, nnx.Param)):
        source = sources[".".join(map(str, path))]
        value = np.zeros(parameter.shape, np.float32)
        across = [size for axis, size in enumerate(value.shape) if axis != source.axis]
        for piece in source.pieces(shards):
            drawn = tensor(piece.tensor, source.outputs()[piece.tensor], *across)
            rows = np.moveaxis(value, source.axis, 0)
            rows[piece.at : piece.at + piece.count] = drawn[piece.start :][: piece.count]
        parameter.set_value(jnp.asarray(value))
    return made


def tensor(name: str, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(name.encode()))
    return rng.normal(0.0 if len(shape) > 1 else 1.0, 0.4, shape).astype(np.float32)


def one_row(live: int, positions: jax.Array, K: int) -> tuple[AttentionBatch, KVCache]:
    """A batch of one row, and a cache of one page."""
    table, start = jnp.array([[0]], jnp.int32), jnp.array([0], jnp.int32)
    batch = mixed_batch(table, start, jnp.array([live], jnp.int32), positions, 1)
    return batch, KVCache(jnp.zeros((1, K, 16, 8)), jnp.zeros((1, K, 16, 8)))


def run(
    config: ModelConfig, tokens: np.ndarray = TOKENS, *, live: int = 8, shards: int = 1
) -> np.ndarray:
    """Logits [live, V] of one row of `live` tokens; the others are padding."""
    places = np.arange(len(tokens), dtype=np.int32)
    positions = jnp.asarray(np.where(places < live, places, 0))
    batch, cache = one_row(live, positions, config.cache_kv_heads(shards))
    logits = np.asarray(step(make(config, shards), tokens, positions, batch, cache))
    assert np.isfinite(logits).all()
    return logits[:live]


@jax.jit
def step(
    made: Decoder, tokens: jax.Array, positions: jax.Array, batch: AttentionBatch, cache: KVCache
) -> jax.Array:
    return made.logits(made(tokens, positions, batch, cache)[0])


def layer_traces(config: ModelConfig) -> Iterator[int]:
    """Identities of the traced programs of all layers, in order."""
    ids = jnp.zeros(8, jnp.int32)

    def step(made: Decoder) -> jax.Array:
        return made(ids, ids, *one_row(8, ids, config.num_kv_heads))[0]

    program = jax.make_jaxpr(step)(nnx.eval_shape(lambda: Decoder(config, dtype=jnp.float32)))
    for equation in program.eqns:
        if equation.params.get("name") == "_run_layer":
            yield id(equation.params["jaxpr"])


@pytest.mark.parametrize(
    ("kinds", "traces"),
    [((FULL,) * 5, 1), ((LOCAL, FULL, LOCAL, LOCAL, FULL), 2)],
)
def test_layers_of_one_kind_share_a_trace(kinds: tuple[LayerKind, ...], traces: int) -> None:
    found = list(layer_traces(replace(CONFIG, layer_kinds=kinds)))
    assert len(found) == len(kinds)
    assert len(set(found)) == traces


def test_uses_of_shared_blocks_have_one_trace_and_the_weights_are_there_once() -> None:
    kind = LayerKind(rope=RopeConfig(8), mlp=False, block=True)
    config = replace(CONFIG, layer_kinds=(kind,) * 5, blocks=SharedBlocks(count=2, rank=3))
    assert len(set(layer_traces(config))) == 1
    made = nnx.eval_shape(lambda: Decoder(config, dtype=jnp.float32))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(made, nnx.Param))]
    assert [p for p in paths if "qkv" in p] == [f"blocks.{n}.attention.qkv.kernel" for n in (0, 1)]
    assert config.num_attentions == 5  # with pages of their own


def test_padding_changes_nothing() -> None:
    padded = np.concatenate([TOKENS[:5], np.array([28, 0, 0], np.int32)])
    np.testing.assert_allclose(run(CONFIG, padded, live=5), run(CONFIG)[:5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_float32_and_as_wide_as_the_vocabulary(tied: bool) -> None:
    logits = run(replace(CONFIG, tied_head=tied), shards=2)  # 30 columns, one of them padding
    assert logits.shape == (8, 29)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.parametrize("gated", [True, False])
def test_the_layout_of_shards_does_not_change_the_numbers(shards: int, gated: bool) -> None:
    biases = {"qkv_bias": True, "o_bias": True, "mlp_bias": True}
    config = replace(CONFIG, gated_mlp=gated, **biases)
    np.testing.assert_allclose(run(config, shards=shards), run(config), rtol=1e-3, atol=1e-4)


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="these sizes do: 1, 2, 4"):
        Decoder(CONFIG, dtype=jnp.float32, shards=3)


def test_a_window_hides_what_lies_before_it() -> None:
    config = replace(CONFIG, layer_kinds=(LOCAL,))
    other = np.concatenate([np.array([7], np.int32), TOKENS[1:]])
    near, far = np.abs(run(config, other) - run(config)).max(-1)[[2, 3]]
    assert near > 1e-3
    assert far == 0


@pytest.mark.parametrize(
    "switch",
    [
        {"activation": "gelu_pytorch_tanh"},
        {"norm": "layer"},
        {"norm_offset": True},
        {"post_norms": True},
        {"norm": "layer", "norm_bias": True},
        {"norm": "layer", "norm_weight": False},
        {"norm": "layer", "norm_offset": True},
        {"pre_norms": False, "post_norms": True},
        {"parallel": "one norm"},
        {"parallel": "two norms"},
        {"residual_scale": 0.5},
        {"qk_norm": QKNorm()},
        {"qk_norm": QKNorm(rotated=True)},
        {"qk_norm": QKNorm(norm="layer", bias=True)},
        {"qk_norm": QKNorm("width")},
        {"value_norm": True},
        {"layer_kinds": (FULL, replace(FULL, shared=True))},
        {"layer_kinds": (FULL, replace(FULL, sparsity=0.5))},
        {"qkv_clip": 0.5},
        {"sinks": True},
        {"slopes": (0.5, 0.25, 0.125, 0.0)},
        {"embedding_norm": True},
        {"qkv_bias": True},
        {"o_bias": True},
        {"mlp_bias": True},
        {"head_bias": True},
        {"learned_positions": True},
        {"learned_positions": True, "position_offset": 2},
        {"embedding_scale": 5.0},
        {"attention_scale": 1.0},
        {"scale_by_layer": True},
        {"score_growth": ScoreGrowth(0.5, 4)},
        {"qk_norm": QKNorm(weight=False)},
        {"attention_softcap": 0.5},
        {"logit_scale": 0.5},
        {"logit_softcap": 1.0},
        {"tied_head": True},
        {"layer_kinds": (LayerKind(),) * 2},
    ],
    ids=lambda switch: "-".join(switch),
)
def test_every_switch_is_connected(switch: dict[str, object]) -> None:
    assert np.abs(run(replace(CONFIG, **switch)) - run(CONFIG)).max() > 1e-3


@pytest.mark.parametrize(
    "switch",
    [
        {},
        {"embedding_scale": 5.0},
        {"embedding_scale": 5.0, "scales_given": True},
        {"learned_positions": True, "embedding_norm": True},
    ],
)
def test_rows_of_the_embedding_layer_stand_for_their_tokens(switch: dict[str, Any]) -> None:
    """Whether the layer scales them or the model does is the family's."""
    config = replace(CONFIG, **switch)
    made, positions = make(config), jnp.arange(len(TOKENS))
    scale = 1.0 if config.scales_given else config.embedding_scale
    tokens = jnp.asarray(TOKENS).at[jnp.array([0, 3, 4])].set(-2)
    rows = made.embedding[...][TOKENS] * scale
    given = Given(tokens == -2, jnp.where((tokens == -2)[:, None], rows, jnp.nan))
    np.testing.assert_array_equal(
        made.embed(tokens, positions, given), made.embed(jnp.asarray(TOKENS), positions)
    )


def test_a_softcap_bounds_logits() -> None:
    assert np.abs(run(replace(CONFIG, logit_softcap=0.25))).max() <= 0.25


def test_activations_keep_the_dtype_and_logits_do_not() -> None:
    made = nnx.eval_shape(lambda: Decoder(CONFIG, dtype=jnp.bfloat16))
    ids = jnp.asarray(TOKENS)
    x = nnx.eval_shape(lambda made: made.embed(ids, ids), made)
    assert x.dtype == jnp.bfloat16
    logits = nnx.eval_shape(lambda made, x: made.logits(x), made, x)
    assert logits.dtype == jnp.float32


def test_split_columns_restores_the_order() -> None:
    x = jnp.array([[0.0, 1.0, 10.0, 2.0, 3.0, 11.0]])
    a, b = split_columns(x, 2, 4, 2)
    assert a.tolist() == [[0, 1, 2, 3]]
    assert b.tolist() == [[10, 11]]
