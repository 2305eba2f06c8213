"""What a FHIR answer is about: references that the caller gives, and nobody else sees."""

from dataclasses import dataclass
from typing import Final

REFERENCE_PATTERNS: Final = {
    kind: rf"^{kind}/[A-Za-z0-9\-.]{{1,64}}$"
    for kind in ("Patient", "Encounter", "ImagingStudy", "ServiceRequest")
}
"""Relative literal references, as FHIR's `id` allows. Absolute URLs are refused: what an answer
points to has to be on the server that the answer is stored on."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the caller says that an image belongs to; as checked by `REFERENCE_PATTERNS`.

    Attributes:
        subject: `Patient/...`.
        encounter: `Encounter/...`.
        imaging_study: `ImagingStudy/...` that the image is from.
        based_on: `ServiceRequest/...` that asked for it.
    """

    subject: str | None = None
    encounter: str | None = None
    imaging_study: str | None = None
    based_on: str | None = None
