"""From a folder to a model that gives vectors: which body, which pooling, which head.

    BertModel, XLMRobertaForSequenceClassification ...     an encoder
    Qwen3Model, Qwen3ForSequenceClassification ...         a decoder of a family that is there
    Qwen2ForRewardModel ...                                one with a head of its own
    Qwen3ForCausalLM                                       the same, without its head

Owns these choices and their errors. Bytes are read by `checkpoints/loading.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from models.checkpoints.checkpoint import CONFIG, find_folder
from models.checkpoints.loading import check_causal, compute_dtype, random_leaves, read_module
from models.checkpoints.memory import check_memory
from models.checkpoints.sentence_transformers import (
    Pooling,
    longest_text,
    said_of_pooling,
    score_activation,
)
from models.checkpoints.settings import read_settings
from models.config.decoder import ModelConfig
from models.config.encoder import ClassifierHead, EncoderConfig
from models.config.fields import Fields
from models.config.label_names import label_names, num_labels
from models.decoder import Decoder
from models.encoder import Classifier, Encoder
from models.errors import UnsupportedError
from models.flatten import Layout, layout
from models.pooling import PoolingModel, PoolingSpec
from models.quantised.methods import Method, quantisation_method
from models.registry import (
    EncoderArchitecture,
    architecture_name,
    find_architecture,
    find_encoder,
    supported,
    supported_encoders,
)
from models.reward_heads import REWARDS, reward_head, reward_sources
from models.weights.sources import Part, Source, WeightMap

CLASSIFIES = "ForSequenceClassification"
_GENERATES = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class LoadedPooler:
    """A pooling model whose parameters are on the devices of its mesh."""

    folder: Path
    config: ModelConfig | EncoderConfig
    architecture: str
    spec: PoolingSpec
    layout: Layout[PoolingModel[Any]]
    leaves: tuple[Array, ...]
    mesh: Mesh


@dataclass(frozen=True)
class _Plan:
    """What is to be loaded."""

    config: ModelConfig | EncoderConfig
    weights: WeightMap
    head: ClassifierHead | None
    returned: tuple[int, ...] = ()  # the classes that callers get


def pools_by_itself(folder: Path, raw: Mapping[str, Any]) -> bool:
    """Whether a model gives vectors unless it is told to write: by architecture, or by its files.

    Raises CheckpointError for a config.json that names no architecture.
    """
    name = architecture_name(raw, str(folder / CONFIG))
    if name in supported():
        return said_of_pooling(folder, raw) is not None
    return name in supported_encoders() or _family(name) is not None


def load_pooler(
    model: str | Path,
    mesh: Mesh,
    *,
    dtype: str = "auto",
    load_format: Literal["auto", "dummy"] = "auto",
    seed: int = 0,
    max_model_len: int | None = None,
    convert: Literal["auto", "none", "embed", "classify"] = "auto",
    pooling: Pooling | None = None,
    use_activation: bool | None = None,
    step_tag_id: int | None = None,
    returned_token_ids: tuple[int, ...] = (),
    hf_overrides: Mapping[str, Any] | None = None,
) -> LoadedPooler:
    """Load the folder `model` for vectors.

    Args:
        convert: "embed" leaves a classifier's head out; "classify" asks for one.
        pooling, use_activation, step_tag_id: instead of what the folder says.
        returned_token_ids: the only classes that callers get; of a decoder without a classifier
            the classes are the tokens of its vocabulary.
        hf_overrides: values that go before those of config.json.

    Raises as `loading.load`.
    """
    folder = find_folder(model)

    def read(raw: Mapping[str, Any]) -> tuple[Method | None, _Plan, PoolingSpec]:
        plan = _plan(raw, mesh, _classifies(raw, convert), returned_token_ids)
        spec = _spec(folder, raw, plan, pooling, use_activation)
        spec = _with_steps(raw, spec, step_tag_id)
        return quantisation_method(raw), plan, spec

    raw, (method, plan, spec) = read_settings(folder, hf_overrides, read)
    config = replace(plan.config, context_length=_context(folder, plan.config, max_model_len))
    compute = compute_dtype(dtype, mesh)

    def lay_out() -> Layout[PoolingModel[Any]]:
        return layout(nnx.eval_shape(lambda: _module(config, plan, compute, mesh.size)))

    if load_format == "dummy":
        shape = lay_out()
        check_memory(shape.leaves, mesh)
        offset = isinstance(config, ModelConfig) and config.norm_offset
        leaves = random_leaves(shape.leaves, mesh, seed, offset, {})
    else:
        shape, leaves = read_module(folder, lay_out, plan.weights, mesh, method)
    return LoadedPooler(folder, config, architecture_name(raw), spec, shape, leaves, mesh)


def _family(name: str) -> str | None:
    """The generating architecture that a pooling one is made of: Qwen3Model -> Qwen3ForCausalLM."""
    if name in REWARDS:
        return REWARDS[name].family
    for suffix in (CLASSIFIES, "Model"):
        for generates in _GENERATES:
            base = name.removesuffix(suffix) + generates
            if name.endswith(suffix) and base in supported():
                return base
    return None


def _classifies(raw: Mapping[str, Any], convert: str) -> bool:
    name = architecture_name(raw)
    has_head = name.endswith(CLASSIFIES) or name in REWARDS
    if convert == "classify" and not has_head:
        raise UnsupportedError(
            f"--convert classify needs a model with a classifier, whose architecture ends in "
            f"{CLASSIFIES}; this one is {name}."
        )
    return has_head and convert != "embed"


def _plan(raw: Mapping[str, Any], mesh: Mesh, classify: bool, returned: tuple[int, ...]) -> _Plan:
    name, encoder = architecture_name(raw), find_encoder(raw)
    plan = (
        _encoder_plan(encoder, raw, mesh, classify)
        if encoder
        else _decoder_plan(raw, classify, keep_head=bool(returned))
    )
    classes = plan.config.vocab_size if plan.head is None else plan.head.num_labels
    if returned and (plan.head is None and encoder is not None):
        raise UnsupportedError(f"{name} has no classes of which returned_token_ids are some.")
    if wrong := [one for one in returned if not 0 <= one < classes]:
        raise UnsupportedError(
            f"returned_token_ids holds {wrong[0]}; the classes of {name} are 0 to {classes - 1}."
        )
    return replace(plan, returned=returned)


def _encoder_plan(
    encoder: EncoderArchitecture, raw: Mapping[str, Any], mesh: Mesh, classify: bool
) -> _Plan:
    if mesh.size > 1:
        raise UnsupportedError(
            f"{architecture_name(raw)} is an encoder, which runs on one device; use "
            "--tensor-parallel-size 1."
        )
    config = encoder.config(raw)
    weights = encoder.weights(config)
    if config.head is not None and not classify:
        weights = _without_head(weights)
        config = replace(config, head=None)
    return _Plan(config, weights, config.head)


def _decoder_plan(raw: Mapping[str, Any], classify: bool, *, keep_head: bool) -> _Plan:
    name = architecture_name(raw)
    check_causal(raw)
    family = _family(name) or name
    architecture = find_architecture({**raw, "architectures": [family]})
    described = architecture.config({**raw, "architectures": [family]})
    fields, reward = Fields(raw), REWARDS.get(name)
    if described.embedding_size is not None:
        raise UnsupportedError(
            f"This {name} has layers wider than its embeddings, whose vectors are not supported; "
            "use a model whose word_embed_proj_dim is its hidden_size."
        )
    if classify or not keep_head:  # nothing is to be generated
        described = replace(described, tied_head=True)
    config = replace(described, architecture=name)
    ignored: tuple[str, ...] = () if keep_head and not classify else ("lm_head.*",)
    head, own = None, dict[str, Source]()
    if classify and reward is not None:
        head = reward_head(reward, fields)
        own = reward_sources(reward, head, config.hidden_size)
    elif classify:
        head = ClassifierHead(num_labels(fields), bias=False, pooling="LAST")
        part = Part("score.weight", head.num_labels)
        own["head.last.kernel"] = Source((part,), axis=1, transpose=True)
    else:
        ignored = (*ignored, "score.*", "v_head.*")
    return _Plan(config, _of_body(architecture.weights(config), own, ignored), head)


def _of_body(given: WeightMap, head: Mapping[str, Source], ignored: tuple[str, ...]) -> WeightMap:
    sources = {f"body.{path}": source for path, source in given.sources.items()}
    other = given.otherwise and _of_body(given.otherwise, head, ignored)
    unread = (*given.ignored, *ignored)
    return WeightMap({**sources, **head}, unread, given.optional_prefix, otherwise=other)


def _without_head(weights: WeightMap) -> WeightMap:
    heads = {path: source for path, source in weights.sources.items() if path.startswith("head.")}
    sources = {path: s for path, s in weights.sources.items() if path not in heads}
    names = tuple(sorted(name for source in heads.values() for name in source.tensors))
    return WeightMap(sources, (*weights.ignored, *names), weights.optional_prefix)


def _spec(
    folder: Path,
    raw: Mapping[str, Any],
    plan: _Plan,
    pooling: Pooling | None,
    use_activation: bool | None,
) -> PoolingSpec:
    fields = Fields(raw)
    said = said_of_pooling(folder, raw)
    own: Pooling = "LAST" if isinstance(plan.config, ModelConfig) else "CLS"
    lower = said is not None and said.lower_case
    labels: tuple[str, ...] = ()
    if plan.head is None and plan.returned:
        labels = tuple(map(str, plan.returned))
    elif plan.head is not None:
        named = label_names(fields)[: plan.head.num_labels]
        labels = tuple(named[one] for one in plan.returned) or tuple(named)
        own = plan.head.pooling
    if labels:
        activation = score_activation(raw, len(labels))
        used = True if use_activation is None else use_activation
        return PoolingSpec(
            "classify", pooling or own, activation, used, labels, lower_case=lower
        )  # fmt: skip
    normalize = said is None or said.normalize
    sizes = fields.integers("matryoshka_dimensions", low=1)
    return PoolingSpec(
        "embed",
        pooling or (said.pooling if said else own),
        "normalize",
        normalize if use_activation is None else use_activation,
        matryoshka=bool(sizes) or fields.flag("is_matryoshka", False),
        dimensions=sizes,
        lower_case=lower,
    )


def _with_steps(raw: Mapping[str, Any], spec: PoolingSpec, tag: int | None) -> PoolingSpec:
    if spec.pooling != "STEP":
        if tag is not None:
            raise UnsupportedError(
                f"step_tag_id is for the pooling_type STEP, and this one is {spec.pooling}."
            )
        return spec
    reward = REWARDS.get(architecture_name(raw))
    return replace(spec, step_tag_id=reward.step_tag_id if tag is None and reward else tag)


def _context(folder: Path, config: ModelConfig | EncoderConfig, asked: int | None) -> int:
    """Tokens of the longest sequence: those asked for, else the shortest limit that files set.

    Raises UnsupportedError for more than the model's positions reach.
    """
    reach = config.longest_context if isinstance(config, ModelConfig) else config.context_length
    if asked is not None and asked > reach:
        raise UnsupportedError(
            f"--max-model-len {asked} exceeds the {reach} tokens that this model's config.json "
            "allows."
        )
    return asked or min(longest_text(folder) or reach, config.context_length)


def _module(
    config: ModelConfig | EncoderConfig, plan: _Plan, dtype: np.dtype, shards: int
) -> PoolingModel[Any]:
    body = (
        Decoder(config, dtype=dtype, shards=shards)
        if isinstance(config, ModelConfig)
        else Encoder(config, dtype=dtype)
    )
    D, eps, head = config.hidden_size, config.norm_eps, plan.head
    scores = Classifier(head, D, eps=eps, dtype=dtype) if head else None
    return PoolingModel(body, scores, plan.returned)
