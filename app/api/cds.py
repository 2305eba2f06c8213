"""`/cds-services`: CDS Hooks for the electronic health record."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from app.access.scopes import Scope
from app.api.deps import Services, ServicesDep, read_json
from app.api.guard import requires
from app.api.openapi import body_schema
from app.api.schemas import Problem
from app.interop.cds_hooks import (
    SERVICE_ID,
    HookRequest,
    discovery,
    make_card,
    newest_answer,
    prefetched,
    report_query,
)

CDS_PREFIX: Final = "/cds-services"
CDS_PATH: Final = f"{CDS_PREFIX}/{SERVICE_ID}"
MAX_CDS_BYTES: Final = 1024 * 1024
MAX_CDS_IN_PROGRESS: Final = 16
_JSON_OBJECT: Final[dict[str, Any]] = {
    "content": {"application/json": {"schema": {"type": "object"}}}
}


async def get_hook_request(request: Request) -> HookRequest:
    """The body of a call."""
    return await read_json(request, HookRequest)


async def find_reports(services: Services, asked: HookRequest) -> list[Any]:
    """The reports that came along, or those of the FHIR server that the operator has named.

    Raises:
        HTTPException: 412: there is neither.
        FhirServerError: It could not be searched.
    """
    sent = prefetched(asked)
    if sent is not None:
        return sent
    if services.fhir_server is None:
        raise HTTPException(
            412, "Expected the prefetch that GET /cds-services names: this service has no server."
        )
    query = report_query(asked.context.patient_id)
    return list(await services.fhir_server.search("DiagnosticReport", query))


def make_router(viewer_url: str | None) -> APIRouter:
    """The routes.

    Args:
        viewer_url: What a card links to; None for no link.
    """
    router = APIRouter(tags=["CDS Hooks"])

    @router.get(
        CDS_PREFIX,
        summary="CDS Hooks discovery",
        response_class=Response,
        responses={200: _JSON_OBJECT},
    )
    async def discover() -> Response:
        """The services that an electronic health record may call."""
        return Response(to_json(discovery()), media_type="application/json")

    @router.post(
        CDS_PATH,
        summary="CDS Hooks patient-view",
        dependencies=[requires(Scope.REPORTS_READ)],
        response_class=Response,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body_schema(HookRequest)}},
            }
        },
        responses={
            200: _JSON_OBJECT,
            408: {"model": Problem, "description": "The body came too slowly for a full house."},
            412: {"model": Problem, "description": "No prefetch, and no server to ask."},
            413: {"model": Problem, "description": "Too many bytes."},
            422: {"model": Problem, "description": "No call of a patient-view."},
            502: {"model": Problem, "description": "The FHIR server could not be searched."},
            503: {"model": Problem, "description": "Too many calls, or it was not recorded."},
        },
    )
    async def patient_view(
        services: ServicesDep, asked: Annotated[HookRequest, Depends(get_hook_request)]
    ) -> Response:
        """A card about the newest answer in the patient's record, or none."""
        found = newest_answer(await find_reports(services, asked), asked.context.patient_id)
        cards = [] if found is None else [make_card(found, viewer_url)]
        if found is not None and services.cards is not None:
            await services.cards.record(asked, cards[0], found)
        return Response(to_json({"cards": cards}), media_type="application/json")

    return router
