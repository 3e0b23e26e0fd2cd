"""From the architecture that config.json names to the file that knows it.

Owns the search and its errors. Knows no family: every module in `architectures/` offers what
`Architecture` lists, and a new file is found without being mentioned anywhere. Those of other
packages (`plugins.py`) are found by the same names.
"""

import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

from models import architectures, plugins
from models.config import ModelConfig
from models.encoder_config import EncoderConfig
from models.errors import UnsupportedError
from models.fields import Fields
from models.weights import WeightMap


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
    name, known = Fields(raw).texts("architectures")[0], _encoders()
    found = plugins.load_plugin(plugins.ENCODERS, name, "ENCODERS", known)
    return cast(EncoderArchitecture, found) if found else known.get(name)


def find_architecture(raw: Mapping[str, Any]) -> Architecture:
    """The family of the model that this config.json describes.

    Raises:
        CheckpointError: it names no architecture.
        UnsupportedError: it names one that is not there.
        PluginError: another package offers it, and is broken or not the only one.
    """
    name, known = Fields(raw).texts("architectures")[0], _modules()
    found = plugins.load_plugin(plugins.MODELS, name, "ARCHITECTURES", known)
    if found:
        return cast(Architecture, found)
    if name in known:
        return known[name]
    raise UnsupportedError(
        f"The architecture {name} is not supported{_hint(name, raw)}; "
        f"supported are {', '.join(supported())}."
    )


def _hint(name: str, raw: Mapping[str, Any]) -> str:
    if "text_config" in raw or "vision_config" in raw:
        return " because only text models are covered so far, and this one takes more than text"
    near = get_close_matches(name, supported(), n=1)
    return f" (the nearest name is {near[0]})" if near else ""


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
