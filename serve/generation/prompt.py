"""One prompt as the engine's client takes it. Knows neither HTTP nor the engine's ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.adapters.request import LoRARequest
from engine.beams.params import BeamSearchParams
from engine.encoders.align_request import AlignRequest
from engine.output_processor import HiddenStates
from engine.reasoning.thinking import ThinkingBudget
from engine.sampling.params import SamplingParams
from engine.vectors.routed_rows import RoutedRows


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with its own options; `text` is None for a prompt that came as ids."""

    text: str | None
    token_ids: list[int]
    params: SamplingParams
    cache_salt: str = ""
    grammar: str = ""  # of the params' structured outputs, compiled
    beams: BeamSearchParams | None = None
    thinking: ThinkingBudget | None = None
    encoder_token_ids: Sequence[int] = ()  # of models with an encoder; `text` is what it reads
    encoder_features: bytes = b""  # what it hears instead
    times_from: int = 0  # the first token that is a time, to whose order the text is held
    align: AlignRequest | None = None  # whether it is asked when that was said
    embeds: bytes = b""  # what the prompt is, if that is no tokens: `engine.vectors.prompt_embeds`
    hidden: HiddenStates = "none"  # which hidden states are wanted
    routed: RoutedRows | None = None  # how the experts of its tokens are told, if they are
    prediction_token_ids: Sequence[int] = ()  # what the answer may be
    lora: LoRARequest | None = None

    @property
    def num_tokens(self) -> int:
        """Of both."""
        return len(self.token_ids) + len(self.encoder_token_ids)
