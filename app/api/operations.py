"""For operators: liveness, readiness and metrics."""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.access.scopes import Scope
from app.api.deps import ServicesDep
from app.api.guard import requires
from app.api.schemas import HealthResponse, Problem, ReadyResponse

router = APIRouter(tags=["operations"])


@router.get("/health/live", summary="Whether the process answers at all")
async def live() -> HealthResponse:
    """Answer from the event loop, whatever the models do."""
    return HealthResponse(status="live")


@router.get(
    "/health/ready",
    summary="Whether predictions are answered",
    responses={
        503: {"model": Problem, "description": "It is stopping, or a model failed its self-test."}
    },
)
async def ready(services: ServicesDep) -> ReadyResponse:
    """Yes, while every model reproduces its golden example and until the service stops.

    The port opens only after every model was verified, loaded and warmed up.
    """
    services.check_ready()
    authentication: Literal["off", "required"] = "off" if services.is_open else "required"
    return ReadyResponse(status="ready", authentication=authentication)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[requires(Scope.METRICS)],
)
async def metrics(services: ServicesDep) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
