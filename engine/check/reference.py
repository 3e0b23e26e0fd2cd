"""The same sequence through transformers, where it is installed.

Owns everything that is asked of PyTorch, which is imported here, when it is asked, and nowhere
else.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.check.trace import Trace, state_names
from models.checkpoints.converted import find_made
from models.errors import IngotError, headline
from models.gguf.checkpoint import is_gguf

IMAGES = "ForConditionalGeneration"
INSTALL = "pip install 'ingot[parity]'"
Result = TypeVar("Result")


class NoReferenceError(IngotError):
    """Transformers cannot be asked: it is not installed, or does not load this model."""


@dataclass(frozen=True)
class Reference:
    """A model of transformers, in float32."""

    name: str  # "transformers 5.23.0, Qwen3ForCausalLM"
    model: Any
    tokenizer: Any  # None if it has none that transformers can load
    torch: Any

    def encode(self, *texts: str) -> list[int] | None:
        """Ids of a text or of a pair; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        ids: list[int] = self.tokenizer(*texts)["input_ids"]
        return ids

    def generate(self, tokens: list[int], count: int, read: list[int] | None = None) -> list[int]:
        """The `count` greedy tokens that follow, ends of text among them.

        Of a model with an encoder what follows where that has read `read`.
        """
        return asked(self._generate, tokens, count, read)

    def trace(self, tokens: list[int]) -> Trace:
        """The sequence layer by layer."""
        return asked(self._trace, tokens)

    def _generate(self, tokens: list[int], count: int, read: list[int] | None) -> list[int]:
        out: list[int] = list(tokens)
        name = "input_ids" if read is None else "decoder_input_ids"
        given = {} if read is None else {"input_ids": self.torch.tensor([read])}
        with self.torch.inference_mode():
            for _ in range(count):
                logits = self.model(**given, **{name: self.torch.tensor([out])}).logits
                out.append(int(logits[0, -1].argmax()))
        return out[len(tokens) :]

    def _trace(self, tokens: list[int]) -> Trace:
        with self.torch.inference_mode():
            given = self.model(self.torch.tensor([tokens]), output_hidden_states=True)
        states = [state[0].float().numpy() for state in given.hidden_states]
        names = state_names(len(states) - 1)
        logits: np.ndarray = given.logits[0].float().numpy()
        return Trace(dict(zip(names, states, strict=True)), logits)


def load_reference(folder: Path, *, encoder: bool = False) -> Reference:
    """A model without an encoder, or with one; raises NoReferenceError with what would help."""

    def choose(transformers: Any, name: str) -> Any:
        usual = transformers.AutoModelForCausalLM  # which has not all that take images as well
        if encoder:
            usual = transformers.AutoModelForSeq2SeqLM
        return getattr(transformers, name, usual) if name.endswith(IMAGES) else usual

    return open_reference(folder, choose)


def open_reference(folder: Path, choose: Callable[[Any, str], Any]) -> Reference:
    """The model of a folder; `choose` has its class by the package and the name in config.json.

    Raises NoReferenceError with what would help.
    """
    if find_made(folder) is not None:
        raise NoReferenceError(
            "transformers does not read what `ingot convert` wrote; check the model it was made of"
        )
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise NoReferenceError(f"the comparison with transformers needs {INSTALL}")
    return asked(_load, folder, choose)


def _load(folder: Path, choose: Callable[[Any, str], Any]) -> Reference:
    torch, transformers = import_module("torch"), import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(folder)}
    if is_gguf(folder):
        place = {"pretrained_model_name_or_path": str(folder.parent), "gguf_file": folder.name}
    named = transformers.AutoConfig.from_pretrained(**place).architectures or [""]
    kind = choose(transformers, named[0])
    model = kind.from_pretrained(**place, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = None
    with suppress(Exception):  # of any kind: a model can be asked without
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    name = f"transformers {transformers.__version__}, {type(model).__name__}"
    return Reference(name, model, tokenizer, torch)


def asked(what: Callable[..., Result], *arguments: Any) -> Result:
    """Whatever transformers raises, which is anything, as one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return what(*arguments)
    except Exception as error:
        raise NoReferenceError(f"transformers cannot run this model ({headline(error)})") from error
