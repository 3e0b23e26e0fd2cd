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

from engine.check.trace import Source, Trace, encoder_names, state_names
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

    def generate(self, tokens: list[int], count: int, read: Source | None = None) -> list[int]:
        """The `count` greedy tokens that follow, ends of text among them.

        Of a model with an encoder what follows where that has read `read`.
        """
        return asked(self._generate, tokens, count, read)

    def trace(self, tokens: list[int], read: Source | None = None) -> Trace:
        """The sequence layer by layer, where an encoder has read `read`, if there is one."""
        return asked(self._trace, tokens, read)

    def _generate(self, tokens: list[int], count: int, read: Source | None) -> list[int]:
        out: list[int] = list(tokens)
        name = "input_ids" if read is None else "decoder_input_ids"
        given = {} if read is None else self._source(read)
        with self.torch.inference_mode():
            for _ in range(count):
                logits = self.model(**given, **{name: self.torch.tensor([out])}).logits
                out.append(int(logits[0, -1].argmax()))
        return out[len(tokens) :]

    def _trace(self, tokens: list[int], read: Source | None) -> Trace:
        ids, asked_for = self.torch.tensor([tokens]), {"output_hidden_states": True}
        with self.torch.inference_mode():
            if read is None:
                given = self.model(ids, **asked_for)
                states = _named(state_names, given.hidden_states)
            else:
                given = self.model(**self._source(read), decoder_input_ids=ids, **asked_for)
                states = _named(encoder_names, given.encoder_hidden_states)
                states |= _named(state_names, given.decoder_hidden_states)
        logits: np.ndarray = given.logits[0].float().numpy()
        return Trace(states, logits)

    def _source(self, read: Source) -> dict[str, Any]:
        if isinstance(read, np.ndarray):
            return {"input_features": self.torch.tensor(read.T[None])}
        return {"input_ids": self.torch.tensor([read])}


def _named(names: Callable[[int], list[str]], states: Any) -> dict[str, np.ndarray]:
    arrays = [state[0].float().numpy() for state in states]
    return dict(zip(names(len(arrays) - 1), arrays, strict=True))


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
