"""What a FHIR answer is made of: plain values and the domain's own objects."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.decision import Decision
from app.domain.labels import DiagnosticClass
from app.domain.quality import QualityIssue
from app.domain.uncertainty import Uncertainty
from app.interop.fhir_references import Context


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answered.

    Attributes:
        name: Of the model.
        version: Of the model.
        title: For a person.
        digest: SHA-256 of its manifest.
        runtime: What ran it.
        members: Of an ensemble: `name@version` and digest; none for one model.
    """

    name: str
    version: int
    title: str
    digest: str
    runtime: str
    members: tuple[tuple[str, str], ...] = ()

    @property
    def qualified_name(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Overlay:
    """A heatmap over the image.

    Attributes:
        media_type: Of `data`.
        data: The picture, base64.
        width: In pixels.
        height: In pixels.
        title: What is drawn, for a person.
        warnings: Why to read nothing into it; mostly none.
    """

    media_type: str
    data: str
    width: int
    height: int
    title: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Classified:
    """What was found in an image that has an answer.

    Attributes:
        predicted: The most probable class.
        confidence: Its probability.
        calibrated: Whether probabilities were calibrated.
        probabilities: By label, of all classes.
        disagreement: Of an ensemble's members, in bits; None for one model.
        uncertainty: Over the picture's symmetries, where asked for.
    """

    predicted: DiagnosticClass
    confidence: float
    calibrated: bool
    probabilities: Mapping[str, float]
    disagreement: float | None
    uncertainty: Uncertainty | None


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer.

    Attributes:
        request_id: Of the request; the caller may have chosen it.
        given_at: When, with its time zone.
        upload_sha256: Of the uploaded bytes, as in the audit log.
        model: Who answered.
        decision: What is to become of the answer.
        quality_issues: What is wrong with the picture.
        classified: What was found; None where the answer is rejected.
        overlay: The heatmap; None where not asked for, and where rejected.
        context: What the image belongs to.
        frame: Which one of several the upload has, from 1; None where it has no several.
    """

    request_id: str
    given_at: datetime
    upload_sha256: str
    model: ModelIdentity
    decision: Decision
    quality_issues: tuple[QualityIssue, ...]
    classified: Classified | None
    overlay: Overlay | None
    context: Context
    frame: int | None = None

    @property
    def key(self) -> str:
        """Names this answer: the same for a repeated request, and for nothing else.

        The request id alone does not: callers choose it, and one that is used twice must not make
        a server take the second patient's answer for the first one's, nor leave out what was asked
        for the second time alone.
        """
        parts = (
            self.request_id,
            self.upload_sha256,
            self.model.digest,
            self.model.runtime,
            self.decision.action,
            self.context.subject,
            self.context.encounter,
            self.context.imaging_study,
            self.context.based_on,
            self.overlay and (self.overlay.title, self.overlay.media_type),
            self.classified is not None and self.classified.uncertainty is not None,
            self.frame,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
