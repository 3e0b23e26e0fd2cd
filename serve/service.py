"""What every route needs: the settings, the model, the engine, and the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.adapters.request import LoRARequest
from engine.config import EngineConfig
from engine.errors import NotFoundError, RequestError
from engine.sampling.params import SamplingParams
from serve.adapters.names import AdapterNames
from serve.engine_client import EngineClient, Prompt
from serve.generation.grammars import GrammarCompiler
from serve.model import ServedModel
from serve.native.sessions import Sessions
from serve.operations.metrics import Metrics
from serve.operations.pause import Pause
from serve.operations.tracing import Traces
from serve.protocol.decoding import GenerationRequest
from serve.protocol.structured_outputs import Constraint
from serve.settings import ServerSettings
from serve.version import fingerprint

_MOST_TOLD = 8  # names in an error


@dataclass(frozen=True, slots=True)
class Service:
    """One model behind one engine."""

    settings: ServerSettings
    engine_config: EngineConfig
    model: ServedModel
    client: EngineClient
    metrics: Metrics
    grammars: GrammarCompiler
    recent_log: Sequence[str] = ()
    traces: Traces | None = None
    adapters: AdapterNames = field(default_factory=AdapterNames)
    pause: Pause = field(default_factory=Pause)
    sessions: Sessions = field(default_factory=Sessions)
    fingerprint: str = field(init=False)  # of responses

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.engine_config))

    def check_model(self, name: str | None) -> None:
        """Raise NotFoundError for a model that is not served; None is the one that is."""
        if name is not None and name not in self.model.names and name not in self.adapters:
            served = [self.model.names[0], *self.adapters][:_MOST_TOLD]
            listed = f"{', '.join(map(repr, served))} {'is' if len(served) == 1 else 'are'}"
            raise NotFoundError(f"The model {name[:100]!r} is not served here; {listed}.", "model")

    def adapter_of(self, request: GenerationRequest) -> LoRARequest | None:
        """The adapter that a request asks for; raises NotFoundError for one that is not served."""
        self.check_model(request.model)
        return self.adapters.wanted(request.model, request.lora_path)

    def answers_as(self, prompt: Prompt) -> str:
        """The model's name in a response."""
        return prompt.lora.lora_name if prompt.lora else self.model.names[0]

    def check_logprobs(self, params: SamplingParams, field: str) -> None:
        """Raise RequestError for more than the server allows; `field` asked for the answer's."""
        most = self.settings.max_logprobs
        for name, count in ((field, params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
            if (count or 0) > most:
                raise RequestError(
                    f"{name} may be at most {most} here (--max-logprobs), got {count}.", name
                )

    def stream_interval(self, stream: bool | None, wanted: int | None = None) -> int:
        """How many tokens are read together; a request may ask for more than the server's flag."""
        return max(self.settings.stream_interval, wanted or 1) if stream else 1

    async def grammar(self, constraint: Constraint | None) -> str:
        """What the engine is to follow; raises RequestError naming the field that demands it."""
        if constraint is None:
            return ""
        return await constraint.compile(self.grammars, self.client.info)

    def check_writes(self) -> None:
        """Raise RequestError if the engine gives vectors; one that still loads is not asked."""
        info = self.client.known
        if info is None or info.task == "generate":
            return
        how = (
            "start it with --runner generate to have it write"
            if info.can_generate
            else f"a {info.architecture} writes no text"
        )
        path = {"embed": "/v1/embeddings", "classify": "/classify"}[info.task]
        raise RequestError(
            f"This model was started to give vectors, which "
            f"{'/pooling' if info.per_token else path} serves; {how}.",
            "model",
        )
