"""From the architecture that config.json names to the file that knows it.

Owns the search and its errors. Knows no family: every module in `architectures/` offers what
`Architecture` lists, and a new file is found without being mentioned anywhere. Those of other
packages (`plugins.py`) are found by the same names.
"""

import pkgutil
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

from models import architectures, plugins
from models.config.decoder import ModelConfig
from models.config.encoder import EncoderConfig
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.weights.sources import WeightMap

_ENDING = re.compile("(ForCausalLM|LMHeadModel|ForConditionalGeneration|Model)$")


@runtime_checkable
class Architecture(Protocol):
    """What a file in `architectures/` offers."""

    ARCHITECTURES: tuple[str, ...]  # as in config.json: "LlamaForCausalLM"

    def config(self, raw: Mapping[str, Any]) -> ModelConfig:
        """The decoder that config.json describes. Raises CheckpointError, UnsupportedError."""
        ...

    def weights(self, config: ModelConfig) -> WeightMap:
        """Where its parameters lie."""
        ...


@runtime_checkable
class EncoderArchitecture(Protocol):
    """What a file in `architectures/` offers whose models read whole sequences at once."""

    ENCODERS: tuple[str, ...]  # as in config.json: "BertModel"

    def config(self, raw: Mapping[str, Any]) -> EncoderConfig:
        """The encoder that config.json describes. Raises CheckpointError, UnsupportedError."""
        ...

    def weights(self, config: EncoderConfig) -> WeightMap:
        """Where its parameters lie."""
        ...


def supported() -> tuple[str, ...]:
    """All architectures there are, sorted."""
    return tuple(sorted(_modules().keys() | plugins.names(plugins.MODELS)))


def supported_encoders() -> tuple[str, ...]:
    """All encoders there are, sorted."""
    return tuple(sorted(_encoders().keys() | plugins.names(plugins.ENCODERS)))


def find_encoder(raw: Mapping[str, Any]) -> EncoderArchitecture | None:
    """The family of the encoder that this config.json describes; None if it is no encoder.

    Raises:
        CheckpointError: it names no architecture.
        PluginError: another package offers that encoder, and is broken or not the only one.
    """
    name, known = architecture_name(raw), _encoders()
    found = plugins.load_plugin(plugins.ENCODERS, name, "ENCODERS", known)
    return cast(EncoderArchitecture, found) if found else known.get(name)


def architecture_name(raw: Mapping[str, Any], where: str = "config.json") -> str:
    """What config.json calls the family of its model; `where` is its path.

    Raises CheckpointError if it does not; the sentence says what it should, if that can be told.
    """
    if raw.get("architectures") is None:
        raise CheckpointError(
            f"{where} has no architectures, of which the first names the model's family; add it "
            f'there or as --hf-overrides \'{{"architectures": ["{_likely(raw)}"]}}\'.'
        )
    return Fields(raw, where).texts("architectures")[0]


def find_architecture(raw: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """The family of the model that this config.json describes; `where` is its path.

    Raises:
        CheckpointError: it names no architecture.
        UnsupportedError: it names one that is not there.
        PluginError: another package offers it, and is broken or not the only one.
    """
    name, known = architecture_name(raw, where), _modules()
    found = plugins.load_plugin(plugins.MODELS, name, "ARCHITECTURES", known)
    if found:
        return cast(Architecture, found)
    if name in known:
        return known[name]
    raise UnsupportedError(
        f"{where} names the architecture {name[:80]}, which is not supported{_hint(name, raw)}; "
        f"the README's table of models has all {len(supported())} that are, and one that computes "
        "the same can be put in its place with --hf-overrides."
    )


def _hint(name: str, raw: Mapping[str, Any]) -> str:
    if "text_config" in raw or "vision_config" in raw:
        return " because it takes more than text, and its text model is not read by itself yet"
    near = get_close_matches(name, supported(), n=3)
    return f" (the nearest are {', '.join(near)})" if near else ""


def _likely(raw: Mapping[str, Any]) -> str:
    """The architecture of this model_type, or a place for one."""
    wanted = _plain(str(raw.get("model_type"))).removesuffix("text")
    names = (*supported(), *supported_encoders())
    return next((name for name in names if _plain(_ENDING.sub("", name)) == wanted), "...")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


@cache
def _modules() -> Mapping[str, Architecture]:
    return {
        name: cast(Architecture, one) for one in _files() for name in _listed(one, "ARCHITECTURES")
    }


@cache
def _encoders() -> Mapping[str, EncoderArchitecture]:
    return {
        name: cast(EncoderArchitecture, one)
        for one in _files()
        for name in _listed(one, "ENCODERS")
    }


def _files() -> list[ModuleType]:
    names = (module.name for module in pkgutil.iter_modules(architectures.__path__))
    return [import_module(f"{architectures.__name__}.{name}") for name in names]


def _listed(module: ModuleType, what: str) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(module, what, ())
    return names
