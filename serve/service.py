"""What every route needs: the settings, the model, the engine, and the metrics."""

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.errors import NotFoundError
from serve.engine_client import EngineClient
from serve.metrics import Metrics
from serve.model import ServedModel
from serve.protocol import GenerationRequest
from serve.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Service:
    """One model behind one engine."""

    settings: ServerSettings
    engine_config: EngineConfig
    model: ServedModel
    client: EngineClient
    metrics: Metrics

    def check(self, request: GenerationRequest) -> None:
        """Raise what can be said of a request before its prompt is looked at."""
        name = request.model
        if name is not None and name not in self.model.names:
            raise NotFoundError(
                f"The model {name[:100]!r} is not served here; {self.model.names[0]!r} is.", "model"
            )
