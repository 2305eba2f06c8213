"""What routes ask for: the application's parts, and the uploaded bytes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import anyio
from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.access.quota import Quota
from app.api.admission import Admission
from app.api.auditor import Auditor
from app.domain.decision import Gates
from app.domain.errors import ModelFaultError, ServiceStoppingError
from app.domain.heatmaps import HeatmapMethod, HeatmapRequest, OverlayFormat, choose_method
from app.domain.images import ImageLimits
from app.domain.labels import CLASS_INDEX
from app.inference.fleet import Fleet
from app.inference.served import Served
from app.interop.uploads import DICOM_MEDIA_TYPE
from app.metrics import Metrics
from app.stages import Stages
from app.tracing import Tracing

if TYPE_CHECKING:
    from app.api.card_records import CardRecorder
    from app.api.dicom_worker import DicomWorker
    from app.api.feedback import Feedback
    from app.interop.fhir_server import FhirServer

Body = TypeVar("Body", bound=BaseModel)

IMAGE_FIELD: Final = "image"
_MAX_FORM_FIELDS: Final = 8
_CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1"})
ClassLabel = Literal["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
"""`LABELS`, as a type that a query's value is checked against."""
_RAW_MEDIA_TYPES: Final = frozenset({"application/octet-stream", DICOM_MEDIA_TYPE})


@dataclass(frozen=True, slots=True)
class Services:
    """The application's parts, made once at start-up.

    Attributes:
        fleet: The served models.
        metrics: Where measurements go.
        stages: Measures the stages of predictions.
        tracing: Makes spans.
        image_limits: Bounds on uploads.
        doors: Before predictions, batches of images, and calls of CDS Hooks.
        gates: Which findings about a picture reject its answer.
        max_overlay_side: Longest side of an overlay in pixels.
        image_threads: How many threads decode and draw at once.
        auditor: Records answers; None where no record is kept.
        feedback: Records diagnoses that come back; None where no record is kept.
        cards: Records CDS Hooks cards; None where no record is kept.
        fhir_server: Where answers are stored on request; None where there is none.
        max_batch_images: Images in a batch.
        batch_concurrency: How many of them are in progress at once.
        quota: Of each caller; None for no bound.
        is_open: Whether anybody may ask for predictions.
        operations_port: Where operators' routes are; None for where all the others are.
        dicom: Answers what an archive or a modality sends; None where there is no queue.
    """

    fleet: Fleet
    metrics: Metrics
    stages: Stages
    tracing: Tracing
    image_limits: ImageLimits
    doors: tuple[Admission, ...]
    gates: Gates
    max_overlay_side: int
    image_threads: anyio.CapacityLimiter
    auditor: Auditor | None
    feedback: "Feedback | None"
    cards: "CardRecorder | None"
    fhir_server: "FhirServer | None"
    max_batch_images: int
    batch_concurrency: int
    quota: Quota | None
    is_open: bool
    operations_port: int | None
    dicom: "DicomWorker | None" = None

    @property
    def num_in_progress(self) -> int:
        """Requests for predictions that have no whole answer yet."""
        return sum(door.num_inside for door in self.doors)

    def check_ready(self) -> None:
        """Say whether predictions are answered.

        Raises:
            ServiceStoppingError: It begins none any more.
            ModelFaultError: A model failed its last self-test.
        """
        for door in self.doors:
            door.check()
        self.fleet.check()

    def is_ready(self) -> bool:
        """Whether `check_ready` finds nothing; for the event loop's thread, as that is."""
        try:
            self.check_ready()
        except (ServiceStoppingError, ModelFaultError):
            return False
        return True

    def begin_to_stop(self) -> None:
        """Begin no prediction any more, and say so to whoever asks for readiness."""
        for door in self.doors:
            door.close()


def services_of(request: Request) -> Services:
    """The parts of the application that a request came to."""
    services: Services = request.app.state.services
    return services


async def get_services(request: Request) -> Services:
    """The same as a dependency; one that is not async would be run in a thread."""
    return services_of(request)


ServicesDep = Annotated[Services, Depends(get_services)]


ModelName = Annotated[
    str | None,
    Query(
        description="Model name, or name@version; the default model where it is missing.",
        max_length=80,
        examples=["cnn_densenet121"],
    ),
]


async def get_model(services: ServicesDep, model: ModelName = None) -> AsyncIterator[Served]:
    """The model that the query names, kept until the answer is sent."""
    served = services.fleet.get(model)
    with served.in_use():
        yield served


ModelDep = Annotated[Served, Depends(get_model)]


@dataclass(frozen=True, slots=True)
class HeatmapQuery:
    """The heatmap that is asked for, of whatever model.

    Attributes:
        wanted: There is to be one.
        class_index: The class that is asked for, if any.
        method: The method that is asked for, if any.
        overlay_format: What the overlay is encoded as.
    """

    wanted: bool
    class_index: int | None
    method: HeatmapMethod | None
    overlay_format: OverlayFormat

    def of(self, model: Served, unasked: HeatmapMethod | None = None) -> HeatmapRequest | None:
        """What a model is asked for; None where no heatmap is wanted.

        Args:
            model: Who answers.
            unasked: The method where none is asked for; None as in `choose_method`.

        Raises:
            HeatmapUnavailableError: Attention of a class, or of a model that has none.
        """
        has_attention = model.loaded.drawn.manifest.has_attention
        asked = self.method or unasked
        method = choose_method(asked, self.class_index, has_attention=has_attention)
        if not self.wanted:
            return None
        return HeatmapRequest(self.overlay_format, method, self.class_index)


async def get_heatmap_query(
    heatmap: Annotated[bool, Query(description="Draw the heatmap overlay.")] = True,
    heatmap_class: Annotated[
        ClassLabel | None,
        Query(description="Class that Grad-CAM explains; the predicted one where it is missing."),
    ] = None,
    heatmap_method: Annotated[
        HeatmapMethod | None,
        Query(
            description="Where it is missing: Grad-CAM if a class is named or FHIR is asked for, "
            "else attention if the model has it, else Grad-CAM. Attention has no class."
        ),
    ] = None,
    overlay_format: Annotated[
        OverlayFormat, Query(description="PNG is exact; JPEG has a tenth of its size and time.")
    ] = OverlayFormat.PNG,
) -> HeatmapQuery:
    """What the query says of heatmaps."""
    index = CLASS_INDEX[heatmap_class] if heatmap_class else None
    return HeatmapQuery(heatmap, index, heatmap_method, overlay_format)


HeatmapQueryDep = Annotated[HeatmapQuery, Depends(get_heatmap_query)]


TtaFlag = Annotated[
    bool,
    Query(
        description="Test-time augmentation: answer the picture's eight symmetries too and say how "
        "far the answers lie apart. Eight model calls one after the other in place of one."
    ),
]


FrameNumber = Annotated[
    int | None,
    Query(
        description="Of a DICOM object of several frames, which one; the first is 1.",
        ge=1,
        le=2**31 - 1,
    ),
]


def media_type(request: Request) -> str:
    """What the body is said to be, in lower case and without parameters; "" where nothing is."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_json(request: Request, model: type[Body]) -> Body:
    """The body, which is JSON whatever it is called.

    Raises:
        RequestValidationError: It is none, or not of the model; no value of it is repeated.
        RequestTooLongError: It is longer than it may be at its path.
    """
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in found]
        ) from error


def open_form(request: Request, max_files: int) -> AbstractAsyncContextManager[FormData]:
    """The request's multipart form; its files are let go in the end.

    Raises:
        HTTPException: 415 for a charset that no client needs; some of Python's raise anything.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise HTTPException(415, "Expected a form whose charset is UTF-8, or one that names none.")
    return request.form(max_files=max_files, max_fields=_MAX_FORM_FIELDS, max_part_size=1024)


async def read_image(request: Request) -> bytes:
    """The image's bytes, from a multipart field `image` or from the raw body.

    Raises:
        HTTPException: 415 for another content type or charset, 422 where the field is missing.
        ImageTooManyBytesError: The body is longer than an upload may be.
    """
    content_type = media_type(request)
    if content_type == "multipart/form-data":
        async with open_form(request, 1) as form:
            upload = form.get(IMAGE_FIELD)
            if not isinstance(upload, UploadFile):
                raise HTTPException(
                    422,
                    f"The form has no file in its field {IMAGE_FIELD!r}. "
                    f"Send one, as `curl -F {IMAGE_FIELD}=@FILE` does.",
                )
            return await upload.read()
    if content_type in _RAW_MEDIA_TYPES or content_type.startswith("image/"):
        return await request.body()
    raise HTTPException(
        415,
        "Expected multipart/form-data with a file in the field "
        f"{IMAGE_FIELD!r}, or the image itself as image/*, {DICOM_MEDIA_TYPE} or "
        "application/octet-stream.",
    )
