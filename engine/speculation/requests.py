"""Whose tokens are guessed: what models and requests can do with it."""

from engine.config import EngineConfig
from engine.errors import ConfigError, RequestError
from engine.messages import AddRequest
from engine.speculation.config import LENGTHS, SpeculativeConfig
from engine.speculation.drafter import Drafter
from models.config.decoder import ModelConfig

_MOST_PREDICTED = 7  # beside the newest token these are a program of eight rows


def check_speculation(config: EngineConfig, model: ModelConfig) -> None:
    """Raise `ConfigError` where tokens are to be guessed and cannot be taken back, or have no room
    beside the newest one."""
    wanted = config.speculative_config
    if wanted is None:
        return
    if config.enable_return_routed_experts:
        raise ConfigError(
            "--enable-return-routed-experts cannot be used with --speculative-config; leave one "
            "out."
        )
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


def make_drafter(
    config: SpeculativeConfig | None, model: ModelConfig, message: AddRequest
) -> Drafter | None:
    """What guesses the tokens of a request; None where nobody asks for it, or where it cannot be.

    Raises:
        RequestError: it cannot be, and the request says what its answer may be.
    """
    predicted = message.prediction_token_ids
    if config is None and not predicted:
        return None
    if obstacle := _obstacle(model, message):
        if not predicted:
            return None
        raise RequestError(
            f"prediction cannot be used with {obstacle}; leave it out.", "prediction"
        )
    shortest, longest = config.lengths if config else LENGTHS
    most = config.num_speculative_tokens if config else _MOST_PREDICTED
    return Drafter(most, shortest, longest, len(message.prompt_token_ids), predicted)


def _obstacle(model: ModelConfig, message: AddRequest) -> str | None:
    """Why none of a request's tokens can be computed before the one before it is known, and taken
    back."""
    obstacles = {
        f"{model.architecture}, whose states cannot go back": model.mixer is not None,
        "a watermark, which looks at the tokens before (watermarking: false turns it off)": bool(
            message.params.watermarking
        ),
        "penalties or bad_words, which look at the tokens before": message.params.looks_back,
        "times of speech, which look at the tokens before": bool(message.times_from),
        "an output that a grammar constrains": bool(message.grammar),
        "a thinking budget": message.thinking is not None,
        "hidden states": message.hidden_from is not None,
        "routed experts": message.routed_from is not None,
        "prompt embeddings": bool(message.prompt_embeds) or message.same_embeds_as is not None,
    }
    return next((name for name, is_there in obstacles.items() if is_there), None)
