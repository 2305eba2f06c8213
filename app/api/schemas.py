"""The JSON of models, health, problems, DICOM jobs and batches."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.api.answer_schemas import DiagnosticClassSchema, PredictionResponse
from app.domain.ensemble import EnsembleMember
from app.domain.manifest import Quantized, Runtime, Training
from app.domain.measurements import Calibration, Metrics
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.rules import DecisionRules


class ModelSummary(BaseModel):
    """A loaded model, or the ensemble."""

    name: str
    version: int
    digest: str
    runtime: Runtime
    title: str
    default: Annotated[bool, Field(description="Whether it answers where no model is named.")]
    has_attention: bool
    num_parameters: int


class ModelDetail(ModelSummary):
    """A loaded model with its origin and its measured quality."""

    classes: list[DiagnosticClassSchema]
    training: Annotated[Training | None, Field(description="Null for the ensemble.")]
    members: Annotated[list[EnsembleMember], Field(description="Of the ensemble; else none.")]
    calibration: Calibration | None
    metrics: Metrics
    decision_rules: Annotated[
        DecisionRules | None,
        Field(
            description="When an answer is reported, and what the rules achieve; null where "
            "that was not measured: then no answer is."
        ),
    ]
    quantized: Quantized | None
    license: str
    notice: str = RESEARCH_USE_NOTICE


class ModelList(BaseModel):
    """All loaded models."""

    models: list[ModelSummary]
    notice: str = RESEARCH_USE_NOTICE


class HealthResponse(BaseModel):
    """State of the service."""

    status: Annotated[str, Field(examples=["ready"])]


class ReadyResponse(HealthResponse):
    """State of a service that answers predictions."""

    authentication: Annotated[
        Literal["off", "required"], Field(description="`off`: anybody may ask for predictions.")
    ]


class Problem(BaseModel):
    """What went wrong, as RFC 9457 problem details."""

    type: Annotated[str, Field(examples=["urn:dermhybrid:problem:image-format"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="What was expected, what came, how to mend it.")]
    request_id: str


class DicomJob(BaseModel):
    """What becomes of a photograph that was sent to be answered later."""

    id: str
    state: Annotated[
        Literal["waiting", "answered", "stored", "refused", "dead", "discarded"],
        Field(
            description="`waiting` for its answer; `answered`, and the results are to be stored; "
            "`stored`: done; `refused`: cannot be answered; `dead`: given up after many attempts; "
            "`discarded`: it was dead for too long, and what it held is gone. Sending the instance "
            "again revives a dead or discarded one; a dead one can be tried again as it is, too."
        ),
    ]
    attempts: Annotated[int, Field(description="That failed.", ge=0)]
    received: datetime
    updated: datetime
    problem: Annotated[
        str | None, Field(description="Last part of the type of the last attempt's problem.")
    ]
    results: Annotated[
        list[str], Field(description="SOP Instance UIDs of the report, and of the heatmap.")
    ]
    notice: str = RESEARCH_USE_NOTICE


class DicomJobs(BaseModel):
    """Jobs in one state, the last that changed first."""

    jobs: list[DicomJob]
    notice: str = RESEARCH_USE_NOTICE


class DicomRefusal(BaseModel):
    """A part of a body that was not taken."""

    index: Annotated[int, Field(description="Its place in the body, from 0.", ge=0)]
    problem: Problem


class DicomReceipt(BaseModel):
    """What was taken, in the order of the body, and what was not."""

    jobs: list[DicomJob]
    refused: list[DicomRefusal]


class BatchLine(BaseModel):
    """One image's line in the answer to a batch."""

    index: Annotated[int, Field(description="The image's place in the form, from 0.", ge=0)]
    status: Annotated[int, Field(description="The status that `/predict` would have had.")]
    answer: PredictionResponse | None = None
    problem: Problem | None = None
