"""A model with adapters computes what models do into which each of them was merged."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.checkpoints.adapter_files import read_adapter
from models.checkpoints.loading import LoadedModel, load
from models.errors import CheckpointError, ModelError, UnsupportedError
from models.layers.lora import AdaptedModel, check_family, with_adapters
from models.registry import find_architecture
from models.sharding import make_mesh
from tests.models.checkpoints.adapter_folders import PREFIX, halves, merged, write_adapter
from tests.models.checkpoints.safetensors_files import write_checkpoint, write_safetensors
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import PagedRun
from tests.parity.weights import tensor

RANK, ROWS = 3, (1, 0, -1)  # the slots of the rows' adapters
DECODED = 6
# heads of keys that are repeated, fused in the checkpoint, pairs that are neighbours
LAID = [("qwen2_5", 4), ("phi3", 2), ("cohere", 1), ("gpt_neox", 2)]


class AdaptedRun(PagedRun):
    """Each row with an adapter of its own."""

    def _stated(self, batch, starts, counts):
        rows = jnp.asarray(ROWS)
        return replace(batch, adapter=rows.at[batch.row].get(mode="fill", fill_value=-1))


def weights_of(name: str) -> dict[str, np.ndarray]:
    case = CASES[name]
    return {n: tensor(case.seed, n, shape, case.spread) for n, shape in read(name).tensors}


def load_weights(folder: Path, name: str, weights, shards: int) -> LoadedModel:
    write_checkpoint(folder, CASES[name].config, weights)
    return load(folder, make_mesh(shards), dtype="float32", max_model_len=CASES[name].context)


def put(adapted: AdaptedModel, slot: int, arrays) -> AdaptedModel:
    """With an adapter's arrays in a slot."""
    leaves = list(adapted.model.leaves)
    for place, (number, array) in enumerate(zip(adapted.numbers, arrays, strict=True)):
        leaf, axis = np.array(leaves[number]), 1 - place % 2
        size = array.shape[axis]
        leaf[(slice(None),) * axis + (slice(slot * size, (slot + 1) * size),)] = array
        leaves[number] = jax.device_put(leaf, leaves[number].sharding)
    return replace(adapted, model=replace(adapted.model, leaves=tuple(leaves)))


def greedy(run: PagedRun, prompt: list[int]) -> list[tuple[np.ndarray, list[int]]]:
    """For each row the logits of the prompt and of what it goes on with, and that."""
    logits = [[one] for one in run._mixed([prompt] * 3, [0] * 3)]
    tokens = [[int(one[0][-1].argmax())] for one in logits]
    for place in range(len(prompt), len(prompt) + DECODED):
        step = run._decode([row[-1:] for row in tokens], [place] * 3)
        for row, one in enumerate(step):
            logits[row].append(one)
            tokens[row].append(int(one[0].argmax()))
    return [(np.concatenate(one), row) for one, row in zip(logits, tokens, strict=True)]


@dataclass(frozen=True)
class Pair:
    """Two adapters of one model, and models with each of them merged."""

    plain: LoadedModel
    adapted: AdaptedModel
    arrays: list[tuple[np.ndarray, ...]]
    merged: list[LoadedModel]


def make_pair(folder: Path, name: str, shards: int) -> Pair:
    """Ranks and scales differ from adapter to adapter, and from matrix to matrix."""
    weights = weights_of(name)
    shapes = {n: w.shape for n, w in weights.items()}
    first, second = halves(shapes, RANK, 1), halves(shapes, 2, 2)
    less = {n: half for n, half in halves(shapes, 1, 3).items() if ".o_proj" in n}
    others = {n: half for n, half in second.items() if ".o_proj" not in n}
    scales = {"lora_alpha": 4, "rank_pattern": {"o_proj": 1}, "alpha_pattern": {"o_proj": 2}}
    folders = (
        write_adapter(folder / "a", first, RANK, use_rslora=True, lora_alpha=2),
        write_adapter(folder / "b", second | less, 2, **scales),
    )
    alone = (
        merged(weights, first, 2 / RANK**0.5),
        merged(merged(weights, others, 4 / 2), less, 2 / 1),
    )
    plain = load_weights(folder / "model", name, weights, shards)
    adapted = with_adapters(plain, 2, RANK)
    arrays = [read_adapter(one, adapted) for one in folders]
    models = [load_weights(folder / f"{n}", name, one, shards) for n, one in enumerate(alone)]
    return Pair(plain, adapted, arrays, models)


@pytest.mark.parametrize(("name", "shards"), LAID)
def test_a_and_b_are_laid_as_the_matrices_are(tmp_path, name, shards):
    pair = make_pair(tmp_path, name, shards)
    model, targets = pair.adapted.model, pair.adapted.targets
    assert len(targets) == 4 * model.config.num_layers
    for arrays, whole in zip(pair.arrays, pair.merged, strict=True):
        for place, target in enumerate(targets):
            path = f"{target.path}.kernel"
            before = np.asarray(model.leaves[model.layout.place[path][0]])
            after = np.asarray(whole.leaves[whole.layout.place[path][0]])
            found = before + arrays[2 * place] @ arrays[2 * place + 1]
            assert np.abs(found - after).max() < 1e-5 < np.abs(before - after).max()


def test_every_row_computes_as_if_its_adapter_were_merged(tmp_path):
    name = "qwen2_5"
    pair, prompt = make_pair(tmp_path, name, 2), CASES[name].prompt()[:12]
    adapted = pair.adapted
    for slot, arrays in enumerate(pair.arrays):
        adapted = put(adapted, slot, arrays)
    mixed, separate = AdaptedRun(adapted.model), PagedRun(pair.merged[0])
    for row, (found, same) in enumerate(greedy(mixed, prompt)):
        separate.model = [*pair.merged, pair.plain][ROWS[row]]
        expected, tokens = greedy(separate, prompt)[row]
        assert tokens == same
        assert np.abs(found - expected).max() <= 1e-4 * expected.std()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> AdaptedModel:
    weights = weights_of("qwen2")
    folder = tmp_path_factory.mktemp("qwen2") / "model"
    return with_adapters(load_weights(folder, "qwen2", weights, 1), 1, RANK)


SHAPES = {"model.layers.0.self_attn.q_proj.weight": (40, 40)}
Q = f"{PREFIX}model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all', which is not supported; use none"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', which is not supported; use LORA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 4}, "has rank 4 and --max-lora-rank is 3; start with --max-lora-rank 4"),
        (
            {"r": 2},
            "has the shape [3, 40], and this model and adapter_config.json call for",
        ),
        ({"r": "3"}, "r is '3'; it must be a whole number"),
        ({"rank_pattern": {"(": 2}}, "names matrices by '(', which is no regular expression"),
        ({"alpha_pattern": {"(?=q)": 2}}, "names matrices by '(?=q)', and only characters"),
    ],
)
def test_settings_that_mean_something_else(tmp_path, adapted, settings, said):
    folder = write_adapter(tmp_path / "a", halves(SHAPES, RANK, 0), RANK, **settings)
    with pytest.raises(ModelError) as caught:
        read_adapter(folder, adapted)
    assert said in str(caught.value) and str(folder) in str(caught.value)


def other(changes: dict) -> dict[str, np.ndarray]:
    """Without what is None."""
    found = halves(SHAPES, RANK, 0) | changes
    return {name: half for name, half in found.items() if half is not None}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (other({f"{Q}.lora_B.weight": None}), "has lora_A of 'model.layers.0.self_attn.q_proj'"),
        (other({f"{Q}.lora_B.weight": np.zeros((39, 3), np.float32)}), "call for [40, 3]"),
        (other({f"{Q}.lora_A.weight": np.zeros((3, 40), np.int32)}), "holds int32"),
        (other({f"{Q}.lora_B.weight": np.full((40, 3), np.nan, np.float32)}), "infinite or none"),
        (other({f"{Q}.lora_magnitude_vector": np.zeros(40, np.float32)}), "magnitude_vector"),
        (other({f"{PREFIX}model.embed_tokens.lora_embedding_A": np.zeros(3, np.float32)}), "embed"),
        (
            halves({"model.layers.9.self_attn.q_proj.weight": (40, 40)}, 3, 0),
            "this model's 3 layers",
        ),
        (
            other({f"{Q}.lora_A.default.weight": np.zeros((3, 40), np.float32)}),
            "has lora_A of 'model.layers.0.self_attn.q_proj' twice",
        ),
        ({}, "holds no tensors"),
    ],
)
def test_tensors_that_have_no_place(tmp_path, adapted, tensors, said):
    folder = write_adapter(tmp_path / "a", tensors, RANK)
    with pytest.raises(ModelError) as caught:
        read_adapter(folder, adapted)
    assert said in str(caught.value)
    assert str(folder / "adapter_model.safetensors") in str(caught.value)


def test_folders_that_are_no_adapters(tmp_path, adapted):
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        read_adapter(tmp_path, adapted)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2}))
    with pytest.raises(CheckpointError, match=r"neither adapter_model\.safetensors nor"):
        read_adapter(tmp_path, adapted)
    write_safetensors(tmp_path / "adapter_model.safetensors", {})
    (tmp_path / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path, adapted)


@pytest.mark.parametrize(
    ("name", "what"),
    [("mixtral", "experts"), ("deepseek_v2", "experts"), ("mamba2", "a state")],
)
def test_models_with_layers_of_another_kind(name, what):
    raw = CASES[name].config
    config = find_architecture(raw, "config.json").config(raw)
    with pytest.raises(UnsupportedError, match=rf"{config.architecture} has {what}"):
        check_family(config)
