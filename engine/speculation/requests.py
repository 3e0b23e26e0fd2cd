"""Whose tokens are guessed: what models and requests can do with it."""

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.messages import AddRequest
from engine.sampling.options import Flag, flags_of
from engine.speculation.config import SpeculativeConfig
from engine.speculation.drafter import Drafter
from models.config.decoder import ModelConfig

_BY_HISTORY = Flag.PENALTIES | Flag.BAD_WORDS


def check_speculation(config: EngineConfig, model: ModelConfig) -> None:
    """Raise `ConfigError` where tokens are to be guessed and cannot be taken back, or have no room
    beside the newest one."""
    wanted = config.speculative_config
    if wanted is None:
        return
    if model.mixer is not None:
        raise ConfigError(
            f"--speculative-config computes tokens that may be wrong, and the states of "
            f"{model.architecture} cannot go back; leave it out."
        )
    if config.max_num_seqs is not None and config.max_num_seqs <= wanted.num_speculative_tokens:
        raise ConfigError(
            f"--speculative-config computes each of {wanted.num_speculative_tokens} tokens in a "
            f"row of its own, beside the newest one; --max-num-seqs {config.max_num_seqs} is not "
            f"more than these."
        )


def make_drafter(config: SpeculativeConfig | None, message: AddRequest) -> Drafter | None:
    """What guesses the tokens of a request; None where each depends on the device's count of those
    before, on a budget, or where the states of all are told, and for prompts without ids."""
    if config is None or flags_of(message.params) & _BY_HISTORY:
        return None
    if message.thinking or message.prompt_embeds or message.same_embeds_as is not None:
        return None
    if message.hidden_from is not None:
        return None
    return Drafter(config.num_speculative_tokens, *config.lengths)
