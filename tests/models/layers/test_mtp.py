"""MTP modules compute what DeepSeek-V3's report says, and are read under each family's names."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.checkpoints.loading import LoadedModel, load
from models.config.decoder import ModelConfig
from models.errors import CheckpointError, UnsupportedError
from models.layers.attention import KVCache, decode_batch, mixed_batch
from models.layers.mtp import LoadedMTP, load_mtp
from models.layers.rope import rotation
from models.layers.site import Site
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.weights import tensor

T, PAGES, SLOTS = 21, 3, 16
JOINED = ("enorm", "hnorm", "eh_proj", "shared_head.norm")
NAMES = {
    "mimo": ("model.mtp_layers.0.", "model.mtp_layers.0.",
             ("token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm")),
    "qwen3_next": ("mtp.layers.0.", "mtp.", ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "fc",
                                             "norm")),
}  # fmt: skip


def checkpoint(folder: Path, name: str, like: int, number: int = 0) -> dict[str, np.ndarray]:
    """A checkpoint whose MTP layer has the tensors of layer `like`; the module's tensors, as
    DeepSeek would call them. Of several modules the others hold no numbers."""
    case, golden = CASES[name], read(name)
    D, L = case.config["hidden_size"], case.config["num_hidden_layers"] + number
    theirs = f"model.layers.{L}."
    shapes = {
        tensor_name.replace(f"model.layers.{like}.", theirs): shape
        for tensor_name, shape in golden.tensors
        if tensor_name.startswith(f"model.layers.{like}.")
    }
    shapes |= {f"{theirs}{one}.weight": (D,) for one in JOINED}
    shapes[f"{theirs}eh_proj.weight"] = (D, 2 * D)
    layer, module, joined = NAMES.get(name, (theirs, theirs, JOINED))
    own = {n: tensor(case.seed, n, shape, case.spread) for n, shape in shapes.items()}
    renamed = dict(zip((f"{theirs}{one}." for one in JOINED),
                       (f"{module}{one}." for one in joined), strict=True))  # fmt: skip
    written = {}
    for tensor_name, array in own.items():
        as_joined = next((n for n in renamed if tensor_name.startswith(n)), theirs)
        written[tensor_name.replace(as_joined, renamed.get(as_joined, layer), 1)] = array
    tensors = {n: tensor(case.seed, n, shape, case.spread) for n, shape in golden.tensors}
    for other in range(number):
        for one, array in own.items():
            tensors[one.replace(theirs, f"model.layers.{L - number + other}.")] = array * np.nan
    write_checkpoint(folder, case.config, tensors | written)
    return own


def empty(config: ModelConfig, fill: float, shards: int = 1) -> KVCache:
    heads = config.cache_kv_heads(shards)
    latent, shape = config.latent, (config.num_attentions * PAGES, heads, SLOTS)
    full = lambda width: jnp.full((*shape, width), fill, jnp.float32)  # noqa: E731
    index = full(latent.index.dim) if latent and latent.index else None
    values = full(config.head_dim) if latent is None else None
    return KVCache(full(config.head_dim), values, index_keys=index)


def run(model: LoadedModel, mtp: LoadedMTP, hidden: jax.Array, tokens: list[int]):
    """Scores after each token but the last, of which that of the last is decoded; the cache."""
    table = jnp.arange(1, PAGES, dtype=jnp.int32)[None]

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def step(leaves, own, hidden, ids, cache, positions, batch):
        decoder, module = model.layout.unflatten(leaves), mtp.layout.unflatten(own)
        y, cache = module(hidden, decoder.embed(ids, positions), positions, batch, cache)
        return decoder.logits(y), cache

    def at(places: range, batch, cache):
        ids = jnp.asarray([tokens[place + 1] for place in places])
        given = hidden[places.start : places.stop]
        return step(model.leaves, mtp.leaves, given, ids, cache, jnp.asarray(places), batch)

    count, last = T - 2, jnp.asarray([T - 2])
    prompt = mixed_batch(
        table, jnp.zeros(1, jnp.int32), jnp.asarray([count]), jnp.arange(count), PAGES, model.mesh
    )
    first, cache = at(range(count), prompt, empty(mtp.config, 7.0, model.mesh.size))
    one = decode_batch(table, last, jnp.asarray([True]), PAGES, model.mesh)
    second, cache = at(range(count, count + 1), one, cache)
    return np.concatenate([first, second]), cache


def inputs(name: str) -> tuple[jax.Array, list[int]]:
    config, rng = CASES[name].config, np.random.default_rng(3)
    hidden = rng.standard_normal((T - 1, config["hidden_size"]))
    return jnp.asarray(hidden, jnp.float32), rng.integers(config["vocab_size"], size=T).tolist()


def rms(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def rotated(x, positions):
    """Pairs of neighbours, turned."""
    angles = positions[:, None] / 10000.0 ** (np.arange(0, x.shape[-1], 2) / x.shape[-1])
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], -1)


def latent_attention(x, w):
    """Keys and values of all heads are made, and nothing is absorbed. Source: section 2.1.1."""
    heads, count = 4, len(x)
    q = rms(x @ w("self_attn.q_a_proj"), w("self_attn.q_a_layernorm")) @ w("self_attn.q_b_proj")
    q = q.reshape(count, heads, 18).swapaxes(0, 1)
    compressed, common = np.split(x @ w("self_attn.kv_a_proj_with_mqa"), [20], axis=-1)
    made = rms(compressed, w("self_attn.kv_a_layernorm")) @ w("self_attn.kv_b_proj")
    made = made.reshape(count, heads, 24).swapaxes(0, 1)
    where = np.arange(count)
    scores = q[..., :10] @ made[..., :10].swapaxes(1, 2)
    scores += rotated(q[..., 10:], where) @ rotated(common, where).T
    scores = np.where(where[:, None] >= where, scores / np.sqrt(18), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ made[..., 10:]
    return out.swapaxes(0, 1).reshape(count, -1) @ w("self_attn.o_proj")


def gated(x, w, path):
    gate = x @ w(f"{path}.gate_proj")
    return gate / (1 + np.exp(-gate)) * (x @ w(f"{path}.up_proj")) @ w(f"{path}.down_proj")


def mixture(x, w):
    """Three of eight experts, all of the better of two groups. Source: section 2.1.2."""
    affinity = 1 / (1 + np.exp(-(x @ w("mlp.gate"))))
    out = gated(x, w, "mlp.shared_experts")
    for token, scores in enumerate(affinity):
        choice = scores + w("mlp.gate.e_score_correction_bias")
        groups = np.sort(choice.reshape(2, 4))[:, -2:].sum(-1)
        choice[np.repeat(groups < groups.max(), 4)] = -np.inf
        chosen = np.argsort(choice)[-3:]
        for expert in chosen:
            share = 2.5 * scores[expert] / scores[chosen].sum()
            out[token] += share * gated(x[token], w, f"mlp.experts.{expert}")
    return out


def test_scores_of_the_token_after_the_next_are_those_of_the_report(tmp_path: Path) -> None:
    own, (hidden, tokens) = checkpoint(tmp_path, "deepseek_v3", like=2), inputs("deepseek_v3")
    shared = {
        name: tensor(0, name, (67, 40), CASES["deepseek_v3"].spread).astype(np.float64)
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }

    def w(path: str) -> np.ndarray:
        found = own.get(f"model.layers.3.{path}.weight", own.get(f"model.layers.3.{path}"))
        assert found is not None, path
        return found.T.astype(np.float64)

    embedded = shared["model.embed_tokens.weight"][tokens[1:]]
    pair = [rms(embedded, w("enorm")), rms(np.asarray(hidden, np.float64), w("hnorm"))]
    x = np.concatenate(pair, -1) @ w("eh_proj")
    x = x + latent_attention(rms(x, w("input_layernorm")), w)
    x = x + mixture(rms(x, w("post_attention_layernorm")), w)
    want = rms(x, w("shared_head.norm")) @ shared["lm_head.weight"].T
    model = load(tmp_path, make_mesh(2), dtype="float32")
    got, cache = run(model, load_mtp(model), hidden, tokens)
    np.testing.assert_allclose(got, want, atol=2e-5 * want.std())
    assert (cache.k[: 3 * PAGES] == 7).all()  # the decoder's own pages
    assert (cache.k[3 * PAGES + 1] != 7).all()


@pytest.mark.parametrize(
    "name, like, number",
    [
        ("deepseek_v32", 1, 0), ("qwen3_next", 3, 0), ("mimo", 0, 0), ("glm4_moe_lite", 2, 2),
        ("glm_moe_dsa", 2, 0),
    ],
)  # fmt: skip
def test_its_layer_is_that_of_a_longer_decoder(
    name: str, like: int, number: int, tmp_path: Path
) -> None:
    """Which has the same tensors under the names of its own last layer."""
    own, (hidden, tokens) = checkpoint(tmp_path / "own", name, like, number), inputs(name)
    model = load(tmp_path / "own", make_mesh(1), dtype="float32")
    mtp = load_mtp(model, number)
    assert mtp.config.num_layers == model.config.num_layers + number + 1
    got, _ = run(model, mtp, hidden, tokens)

    case = CASES[name]
    before = case.config["num_hidden_layers"]
    L = before + number
    tensors = {n: tensor(case.seed, n, shape, case.spread) for n, shape in read(name).tensors}
    longer = {
        n.replace(f"model.layers.{L}.", f"model.layers.{before}."): a
        for n, a in own.items()
        if not any(f".{L}.{one}." in n for one in JOINED)
    }
    config = {**case.config, "num_hidden_layers": before + 1}
    if name == "qwen3_next":
        config["layer_types"] = ["linear_attention"] * 3 + ["full_attention"] * 2
    for key in ("mlp_layer_types", "indexer_types"):
        if key in config:
            config[key] = [*config[key], {"mlp_layer_types": "sparse"}.get(key, "full")]
    write_checkpoint(tmp_path / "longer", config, tensors | longer)
    other = load(tmp_path / "longer", make_mesh(1), dtype="float32")
    assert other.config.layer_kinds[-1] == mtp.config.layer_kinds[-1]

    def w(path: str) -> np.ndarray:
        offset = 1.0 if path != "eh_proj" and other.config.norm_offset else 0.0
        return own[f"model.layers.{L}.{path}.weight"] + np.float32(offset)

    embedded = tensors["model.embed_tokens.weight"][tokens[1:]]
    eps = other.config.norm_eps
    pair = [_norm(embedded, w("enorm"), eps), _norm(np.asarray(hidden), w("hnorm"), eps)]
    x = np.concatenate(pair[::-1] if name == "mimo" else pair, -1) @ w("eh_proj").T
    x = _last_layer(other, jnp.asarray(x))
    want = _norm(x, w("shared_head.norm"), eps) @ _head(tensors).T
    np.testing.assert_allclose(got, want, atol=2e-5 * want.std())


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def _head(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])


def _last_layer(model: LoadedModel, x: jax.Array) -> np.ndarray:
    """What it makes of its input, all tokens in one step."""
    config, count = model.config, x.shape[0]
    table = jnp.arange(1, PAGES, dtype=jnp.int32)[None]
    positions = jnp.arange(count)
    batch = mixed_batch(
        table, jnp.zeros(1, jnp.int32), jnp.asarray([count]), positions, PAGES, model.mesh
    )

    def last(leaves, x, cache):
        rope = config.layer_kinds[-1].rope
        turn = rotation(rope, positions, config.context_length) if rope else None
        layer = model.layout.unflatten(leaves).layers[-1]
        site = Site(jnp.int32(config.kv_places[-1]), None, turn, batch)
        return layer(x, site, cache)[0]

    return np.asarray(jax.jit(last)(model.leaves, x, empty(config, 7.0)))


def test_what_has_none_says_so(tmp_path: Path) -> None:
    for name, message in (("deepseek_v3", "has no MTP module"), ("qwen3", "is known; use a model")):
        case, folder = CASES[name], tmp_path / name
        tensors = {n: tensor(0, n, shape, case.spread) for n, shape in read(name).tensors}
        write_checkpoint(folder, case.config, tensors)
        with pytest.raises(UnsupportedError, match=message):
            load_mtp(load(folder, make_mesh(1), dtype="float32"))


def test_one_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    own, case = checkpoint(tmp_path, "mimo", like=0), CASES["mimo"]
    tensors = {n: tensor(0, n, shape, case.spread) for n, shape in read("mimo").tensors}
    some = {"model.mtp_layers.0.token_layernorm.weight": own["model.layers.3.enorm.weight"]}
    write_checkpoint(tmp_path, case.config, tensors | some)
    with pytest.raises(CheckpointError, match=r"lacks tensor 'model\.mtp_layers\.0"):
        load_mtp(load(tmp_path, make_mesh(1), dtype="float32"))
