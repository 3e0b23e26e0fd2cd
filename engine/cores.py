"""Which engine a model runs in: the one that writes text, or the one that gives vectors."""

import msgspec

from engine.beams.core import BeamCore
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import ConfigError
from engine.pooling.core import PoolingCore
from engine.settings import flag
from models.checkpoints.checkpoint import CONFIG, find_folder, read_config
from models.config.overrides import merged
from models.pooling_loading import pools_by_itself
from models.registry import architecture_name, supported

_OF_TEXTS = (
    "logits_processors",
    "watermark_config",
    "enable_lora",
    "enable_prompt_embeds",
    "enable_return_hidden_states",
    "enable_return_routed_experts",
    "logprobs_mode",
    "enable_sleep_mode",
)
_DEFAULTS = {setting.name: setting.default for setting in msgspec.structs.fields(EngineConfig)}


def make_core(config: EngineConfig) -> EngineCore | PoolingCore:
    """The engine that --runner and --convert ask for, or that the model's files call for.

    Raises as the engines do; ConfigError where the two settings, or they and the model, disagree.
    """
    folder = find_folder(config.model)
    raw = merged(read_config(folder), config.hf_overrides or {})
    converts = config.convert in ("embed", "classify")
    if config.runner == "generate":
        if converts:
            raise ConfigError(f"--convert {config.convert} needs --runner pooling.")
        name = architecture_name(raw, str(folder / CONFIG))
        if name not in supported() and pools_by_itself(folder, raw):
            raise ConfigError(
                f"{name} gives vectors and writes no text; leave out --runner generate."
            )
        return EngineCore(config)
    if config.runner == "pooling" or converts or pools_by_itself(folder, raw):
        for name in _OF_TEXTS:
            if getattr(config, name) != _DEFAULTS[name]:
                raise ConfigError(f"{flag(name)} is for models that write text; leave it out.")
        return PoolingCore(config)
    return EngineCore(config)


def make_served_core(config: EngineConfig) -> BeamCore | PoolingCore:
    """The same behind a socket, where beam searches are the engine's to run."""
    core = make_core(config)
    return core if isinstance(core, PoolingCore) else BeamCore(core)
