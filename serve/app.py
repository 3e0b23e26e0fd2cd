"""The HTTP application: which path leads where, through which layers.

RequestIds ▸ ApiKeys ▸ routes
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from models.errors import IngotError
from serve.auth import ApiKeys
from serve.chat import ChatRoute
from serve.completions import CompletionsRoute
from serve.errors import handle_http_exception, handle_ingot_error, handle_unexpected
from serve.health import HealthRoutes
from serve.messages.routes import CountTokensRoute, MessagesRoute
from serve.models_route import ModelsRoutes
from serve.request_id import RequestIds
from serve.responses.routes import ResponsesRoute, StoredResponses
from serve.responses.store import ResponseStore
from serve.service import Service


def build_app(service: Service) -> Starlette:
    """The application that serves `service`."""
    health, models, responses = HealthRoutes(service), ModelsRoutes(service), ResponseStore()
    stored = StoredResponses(responses)
    return Starlette(
        routes=[
            Route("/health", health.health),
            Route("/version", health.version),
            Route("/metrics", service.metrics.route),
            Route("/v1/models", models.every),
            Route("/v1/models/{name:path}", models.one),
            Route("/v1/completions", CompletionsRoute(service), methods=["POST"]),
            Route("/v1/chat/completions", ChatRoute(service), methods=["POST"]),
            Route("/v1/responses", ResponsesRoute(service, responses), methods=["POST"]),
            Route("/v1/responses/{response_id}", stored.one, methods=["GET", "DELETE"]),
            Route("/v1/responses/{response_id}/cancel", stored.cancel, methods=["POST"]),
            Route("/v1/messages", MessagesRoute(service), methods=["POST"]),
            Route("/v1/messages/count_tokens", CountTokensRoute(service), methods=["POST"]),
        ],
        middleware=[
            Middleware(RequestIds),
            Middleware(ApiKeys, keys=service.settings.api_keys),
        ],
        exception_handlers={
            IngotError: handle_ingot_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )
