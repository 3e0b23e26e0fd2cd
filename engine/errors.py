"""Errors of requests and of the engine, and what each means to a client.

IngotError                      (models.errors)
├── ModelError                  (models.errors)   exit code 2
├── ConfigError                 an engine setting is wrong or does not fit   exit code 2
├── RequestError                this request is at fault; HTTP 400, names `param`
│   └── NotFoundError           the model asked for is not served; HTTP 404
├── OverloadedError             the queue is full; HTTP 503 with Retry-After
└── EngineError                 the engine failed; HTTP 500
    └── EngineDeadError         the engine is gone; HTTP 503
"""

from models.errors import IngotError


class ConfigError(IngotError):
    """A setting of the engine is invalid, or the machine cannot hold what it asks for."""


class RequestError(IngotError):
    """A request that cannot be served as it is written. `param` names the field at fault."""

    status = 400

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(RequestError):
    """The request names something that is not served here."""

    status = 404


class ContextLengthError(RequestError):
    """The prompt, or it and what is asked for, have more tokens than the model's context holds."""


class OverloadedError(IngotError):
    """The waiting queue is full; the same request may succeed later."""

    status = 503


class EngineError(IngotError):
    """The engine failed while it worked on a request that was sound."""

    status = 500


class EngineDeadError(EngineError):
    """The engine process is gone and cannot answer."""

    status = 503
