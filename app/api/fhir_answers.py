"""Answers as FHIR Bundles: who asks for one, what it is about, and how it is made."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final, Literal

from fastapi import Depends, Header, Query, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from app.access.scopes import Scope
from app.api.answer_schemas import HeatmapSchema
from app.api.deps import Services
from app.api.guard import get_caller
from app.api.observation import REQUEST_ID_HEADER
from app.domain.captions import warn_of
from app.domain.errors import FhirServerError, NotAuthorizedError
from app.domain.labels import LABELS
from app.domain.uploads import Upload
from app.inference.judge import Judged
from app.interop.fhir_bundle import make_bundle
from app.interop.fhir_codes import FHIR_MEDIA_TYPE
from app.interop.fhir_finding import Classified, Finding, ModelIdentity, Overlay
from app.interop.fhir_references import REFERENCE_PATTERNS, Context
from app.logs import request_id
from app.metrics import Named

FHIR_PREFIX: Final = "/fhir/"
STORED_HEADER: Final = "X-FHIR-Stored"
AnswerFormat = Literal["json", "fhir"]


def wants_fhir(request: Request) -> bool:
    """Whether the answer, or the problem in its place, is to be FHIR.

    The query's `format` counts before the header `Accept`.
    """
    path: str = request.scope["path"]  # `request.url` is made of the caller's header Host
    if path.startswith(FHIR_PREFIX):
        return True
    if path != "/predict":
        return False
    asked = request.query_params.get("format")
    if asked is not None:
        return asked == "fhir"
    accepted = dict(map(_preference, ",".join(request.headers.getlist("accept")).split(",")))
    fhir = accepted.get(FHIR_MEDIA_TYPE, 0.0)
    return fhir > 0.0 and fhir >= accepted.get("application/json", 0.0)


def _preference(part: str) -> tuple[str, float]:
    """A media range of an `Accept` header, and its quality."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    try:
        qualities = [float(p[2:]) for p in parameters if p.startswith("q=")]
    except ValueError:
        qualities = [0.0]
    return name, qualities[0] if qualities else 1.0


def _reference(kind: str, what: str) -> object:
    return Header(
        description=f"{what}, as a FHIR reference; in FHIR answers only.",
        pattern=REFERENCE_PATTERNS[kind],
        examples=[f"{kind}/123"],
    )


async def get_context(
    request: Request,
    answer_format: Annotated[
        AnswerFormat | None,
        Query(
            alias="format",
            description="`fhir`: a FHIR R4 transaction Bundle, as `Accept: application/fhir+json` "
            "asks for too.",
        ),
    ] = None,
    x_fhir_subject: Annotated[str | None, _reference("Patient", "Whose lesion it is")] = None,
    x_fhir_encounter: Annotated[str | None, _reference("Encounter", "When it was seen")] = None,
    x_fhir_imaging_study: Annotated[
        str | None, _reference("ImagingStudy", "Where the image is from")
    ] = None,
    x_fhir_based_on: Annotated[str | None, _reference("ServiceRequest", "Who asked for it")] = None,
) -> Context | None:
    """What a FHIR answer is about; None where plain JSON is asked for.

    References are headers: a query is written into the logs of every proxy on the way.
    """
    del answer_format  # `wants_fhir` reads it: failures before this one need it too
    context = Context(x_fhir_subject, x_fhir_encounter, x_fhir_imaging_study, x_fhir_based_on)
    return context if wants_fhir(request) else None


ContextDep = Annotated[Context | None, Depends(get_context)]


StoreFlag = Annotated[
    bool,
    Query(
        description="Store the FHIR answer on the service's FHIR server before it is given; "
        "X-FHIR-Stored says where. What cannot be stored is answered with 502."
    ),
]


def check_store(request: Request, services: Services, context: Context | None) -> None:
    """Say whether an answer could be stored, which the service does with its own credential.

    Raises:
        NotAuthorizedError: The caller may ask for answers, and not write into records.
        HTTPException: 422: no FHIR is asked for, there is no server, no patient to find the
            answer by, or a request id under which a repetition would not be known.
    """
    if context is None:
        raise HTTPException(422, "Only an answer in FHIR can be stored: ask for format=fhir too.")
    if Scope.REPORTS_WRITE not in get_caller(request).scopes:
        raise NotAuthorizedError(
            f"Your credential lacks the scope {Scope.REPORTS_WRITE!r}, which store=true needs.",
            Scope.REPORTS_WRITE,
        )
    if services.fhir_server is None:
        raise HTTPException(422, "This service stores nothing: its FHIR_SERVER_URL is not set.")
    if context.subject is None:
        raise HTTPException(422, "Expected a subject: a stored answer without one is nobody's.")
    if request.headers.get(REQUEST_ID_HEADER, request_id.get()) != request_id.get():
        raise HTTPException(
            422,
            "Expected an X-Request-ID of 1 to 64 letters, digits, '.', '_' and '-', or none: under "
            "any other one a repeated request would be stored twice.",
        )


async def respond_in_fhir(
    services: Services, model: Named, bundle: bytes, *, store: bool
) -> Response:
    """The answer, once it is stored where that is asked for.

    Args:
        services: The application's parts.
        model: Who answered.
        bundle: The answer.
        store: Whether it is to be stored.

    Raises:
        FhirServerError: It could not be stored.
    """
    response = Response(bundle, media_type=FHIR_MEDIA_TYPE, headers={"Vary": "Accept"})
    if store and services.fhir_server is not None:
        try:
            with services.stages.time("store", model):
                response.headers[STORED_HEADER] = await services.fhir_server.store(bundle)
        except (FhirServerError, asyncio.CancelledError):
            # Cancelled where the server is silent for longer than the request may take.
            services.metrics.fhir_stored.labels("failed").inc()
            raise
        services.metrics.fhir_stored.labels("stored").inc()
    return response


def render_bundle(
    data: bytes, context: Context, upload: Upload, judged: Judged, heatmap: HeatmapSchema | None
) -> bytes:
    """A FHIR transaction Bundle as JSON; blocks the calling thread.

    Args:
        data: The uploaded bytes; only their hash is written.
        context: What the image belongs to.
        upload: The image.
        judged: The answer.
        heatmap: Of the answer, where there is one.
    """
    model = judged.model
    finding = Finding(
        request_id=request_id.get(),
        given_at=datetime.now(UTC),
        upload_sha256=sha256(data).hexdigest(),
        model=ModelIdentity(
            model.manifest.name,
            model.manifest.version,
            model.manifest.title,
            model.digest,
            model.runtime,
            tuple(
                (member.qualified_name, member.digest)
                for member in model.members
                if member is not model
            ),
        ),
        decision=judged.decision,
        quality_issues=judged.quality.issues,
        classified=None if judged.rejected else _classified(judged),
        overlay=None if heatmap is None else _overlay(upload, heatmap),
        context=context,
        frame=upload.frame,
    )
    return to_json(make_bundle(finding))


def _classified(judged: Judged) -> Classified:
    prediction = judged.prediction
    return Classified(
        predicted=prediction.predicted,
        confidence=prediction.confidence,
        calibrated=judged.model.manifest.calibration is not None,
        probabilities=dict(zip(LABELS, prediction.probabilities.tolist(), strict=True)),
        disagreement=prediction.disagreement,
        uncertainty=judged.uncertainty,
    )


def _overlay(upload: Upload, heatmap: HeatmapSchema) -> Overlay:
    height, width = upload.picture.shape[:2]
    of_class = f" of {heatmap.explained_class}" if heatmap.explained_class else ""
    image = "the image" if upload.frame is None else f"frame {upload.frame} of the image"
    return Overlay(
        heatmap.media_type,
        heatmap.overlay,
        width,
        height,
        f"Heatmap ({heatmap.method}{of_class}) of {heatmap.model} over {image}",
        tuple(warn_of(heatmap.flags)),
    )
