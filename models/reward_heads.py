"""Reward models: decoders whose authors put scores of their own in the place of the head.

    Qwen2ForRewardModel           one score a token: two products with a ReLU between them
    Qwen2ForProcessRewardModel    two classes, wrong and right, at the tokens that end a step
    InternLM2ForRewardModel       one score a token: one product without a bias

Owns their names, heads and tensors. Source: `modeling_qwen2_rm.py` and `modeling_internlm2.py`,
which the authors publish beside their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.config.encoder import ClassifierHead
from models.config.fields import Fields
from models.config.label_names import num_labels
from models.weights.sources import Part, Source


@dataclass(frozen=True)
class RewardModel:
    """Which generating model it is otherwise, and its tensors: of two products, or of one."""

    family: str
    tensors: tuple[str, ...]
    bias: bool = True
    num_labels: int | None = None  # None: as config.json says
    step_tag_id: int | None = None  # the token that ends a step, where steps are scored


_TWO = ("score.0", "score.2")
REWARDS: Mapping[str, RewardModel] = {
    "Qwen2ForRewardModel": RewardModel("Qwen2ForCausalLM", _TWO, num_labels=1),
    "Qwen2ForProcessRewardModel": RewardModel(
        "Qwen2ForCausalLM",
        _TWO,
        step_tag_id=151651,  # <extra_0> of Qwen2.5-Math's
    ),
    "InternLM2ForRewardModel": RewardModel(
        "InternLM2ForCausalLM", ("v_head",), bias=False, num_labels=1
    ),
}


def reward_head(reward: RewardModel, fields: Fields) -> ClassifierHead:
    """The head of a model whose config.json this is."""
    return ClassifierHead(
        reward.num_labels or num_labels(fields),
        first="relu" if len(reward.tensors) > 1 else None,
        bias=reward.bias,
        pooling="ALL" if reward.step_tag_id is None else "STEP",
    )


def reward_sources(reward: RewardModel, head: ClassifierHead, width: int) -> dict[str, Source]:
    """Where its parameters lie; what they read is `width` wide."""
    found: dict[str, Source] = {}
    products = ("first", "last")[-len(reward.tensors) :]
    for name, tensor in zip(products, reward.tensors, strict=True):
        outputs = head.num_labels if name == "last" else width
        kernel = (Part(f"{tensor}.weight", outputs),)
        found[f"head.{name}.kernel"] = Source(kernel, axis=1, transpose=True)
        if reward.bias:
            found[f"head.{name}.bias"] = Source((Part(f"{tensor}.bias", outputs),))
    return found
