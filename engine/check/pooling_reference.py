"""The same sequence through transformers, where the model gives vectors.

    BertModel, Qwen3Model ..               its states, pooled as the folder says
    BertForSequenceClassification ..       its states, and its scores
    Qwen2ForRewardModel ..                 the states of a Qwen2Model, and its head as published

Owns what is pooled and how; loading is `reference.py`'s, as is everything asked of PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.check.reference import NoReferenceError, Reference, asked, open_reference
from engine.check.trace import Trace, state_names
from models.checkpoints.checkpoint import open_tensors
from models.pooling_loading import CLASSIFIES, LoadedPooler
from models.quantised.tensors import Readable
from models.reward_heads import REWARDS


@dataclass(frozen=True)
class PoolingReference:
    """A model of transformers, in float32, beside the one that it is to be compared with."""

    opened: Reference
    ours: LoadedPooler

    def trace(self, tokens: list[int], types: list[int]) -> Trace:
        """The sequence layer by layer, and the vector or the scores before probabilities."""
        return asked(self._trace, tokens, types)

    def _trace(self, tokens: list[int], types: list[int]) -> Trace:
        model, torch, spec = self.opened.model, self.opened.torch, self.ours.spec
        given: dict[str, Any] = {"input_ids": torch.tensor([tokens])}
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        if types:
            given["token_type_ids"] = torch.tensor([types])
        with torch.inference_mode():
            found = model.base_model(**given, output_hidden_states=True)
            whole = (*found.hidden_states[:-1], found.last_hidden_state)
            states = [state[0].float().numpy() for state in whole]
            named = dict(zip(state_names(len(states) - 1), states, strict=True))
            if spec.task == "embed":
                return Trace(named, self._vectors(states[-1]), "vector")
            if self.ours.architecture in REWARDS:
                return Trace(named, self._rewards(states[-1], tokens), "scores")
            return Trace(named, model(**given).logits.float().numpy(), "scores")

    def _vectors(self, last: np.ndarray) -> np.ndarray:
        """[1, D], or [T, D] where each token has one."""
        spec = self.ours.spec
        rows = {"CLS": last[:1], "LAST": last[-1:], "MEAN": last.mean(0)[None]}
        found: np.ndarray = rows.get(spec.pooling, last)
        if spec.use_activation:
            found = found / np.linalg.norm(found, axis=-1, keepdims=True)
        return found

    def _rewards(self, last: np.ndarray, tokens: list[int]) -> np.ndarray:
        """[T, W], or those of the tokens that end a step."""
        reward, spec = REWARDS[self.ours.architecture], self.ours.spec
        x = last
        with open_tensors(self.ours.folder) as tensors:
            for number, name in enumerate(reward.tensors):
                x = (np.maximum(x, 0) if number else x) @ _read(tensors, f"{name}.weight").T
                x = x + _read(tensors, f"{name}.bias") if reward.bias else x
        return x if spec.step_tag_id is None else x[np.asarray(tokens) == spec.step_tag_id]


def _read(tensors: Mapping[str, Readable], name: str) -> np.ndarray:
    found: np.ndarray = tensors[name].read().astype(np.float32)
    return found


def load_pooling_reference(ours: LoadedPooler) -> PoolingReference:
    """Raises NoReferenceError with what would help."""
    name, classifies = ours.architecture, ours.spec.task == "classify"
    if classifies and name not in REWARDS and not name.endswith(CLASSIFIES):
        raise NoReferenceError(f"transformers has no classes of a {name}")

    def choose(transformers: Any, named: str) -> Any:
        if classifies and name not in REWARDS:
            return transformers.AutoModelForSequenceClassification
        own = named.endswith("Model") and named not in REWARDS  # T5EncoderModel is no T5Model
        usual = transformers.AutoModel
        return getattr(transformers, named, usual) if own else usual

    return PoolingReference(open_reference(ours.folder, choose), ours)
