"""Codes of FHIR resources: published ones where they are confirmed, else the project's own.

The project's own systems are URNs below `urn:dermhybrid:`; docs/integrations/fhir.md lists them.
"""

from typing import Any, Final

from app.domain.decision import Action, Reason
from app.domain.labels import CLASSES, SNOMED_CT_SYSTEM, CodeScope, DiagnosticClass
from app.domain.quality import QualityIssue

Json = dict[str, Any]
"""A FHIR element as JSON has it."""

FHIR_MEDIA_TYPE: Final = "application/fhir+json"
FHIR_VERSION: Final = "4.0.1"

ANSWER_SYSTEM: Final = "urn:dermhybrid:answer"
REQUEST_SYSTEM: Final = "urn:dermhybrid:request-id"
MODEL_SYSTEM: Final = "urn:dermhybrid:model"
MODEL_DIGEST_SYSTEM: Final = "urn:dermhybrid:model-sha256"
UPLOAD_DIGEST_SYSTEM: Final = "urn:dermhybrid:upload-sha256"
CODE_SYSTEM: Final = "urn:dermhybrid:code"
CLASS_SYSTEM: Final = "urn:dermhybrid:class"
DECISION_SYSTEM: Final = "urn:dermhybrid:decision"
REASON_SYSTEM: Final = "urn:dermhybrid:reason"
THRESHOLD_SYSTEM: Final = "urn:dermhybrid:threshold"
QUALITY_SYSTEM: Final = "urn:dermhybrid:quality-issue"

REPORT_CODE: Final = "lesion-classification"

_HL7: Final = "http://terminology.hl7.org/CodeSystem/"


def coding(system: str, code: str, display: str) -> Json:
    """A Coding."""
    return {"system": system, "code": code, "display": display}


def concept(text: str, *codings: Json) -> Json:
    """A CodeableConcept."""
    return {"coding": list(codings), "text": text}


def own(code: str, text: str) -> Json:
    """A concept that has no published code: what an element is about."""
    return concept(text, coding(CODE_SYSTEM, code, text))


AI_ASSERTED: Final = coding(
    _HL7 + "v3-ObservationValue", "AIAST", "Artificial Intelligence asserted"
)
"""Security label of the AI Transparency on FHIR guide, for content that an AI asserts."""
AI_DEVICE: Final = concept(
    "Artificial intelligence",
    coding(
        "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
        "Artificial-Intelligence",
        "All kinds of Artificial Intelligence",
    ),
)
"""Device.type that the same guide requires (1.0.0-ballot)."""
IMAGING_SERVICE: Final = concept(
    "Diagnostic Imaging", coding(_HL7 + "v2-0074", "IMG", "Diagnostic Imaging")
)
IMAGING: Final = concept("Imaging", coding(_HL7 + "observation-category", "imaging", "Imaging"))
IMAGE: Final = concept("Image", coding(_HL7 + "media-type", "image", "Image"))
AUTHOR: Final = concept("Author", coding(_HL7 + "provenance-participant-type", "author", "Author"))
CREATED: Final = concept("Create", coding(_HL7 + "v3-DataOperation", "CREATE", "create"))
AT_OR_ABOVE: Final = concept(
    "At or above the threshold",
    coding(THRESHOLD_SYSTEM, "at-or-above", "At or above the threshold"),
)
BELOW: Final = concept(
    "Below the threshold, which is not free of disease",
    coding(THRESHOLD_SYSTEM, "below", "Below the threshold"),
)
"""HL7's code NEG is shown as "Negative", beside "melanoma"."""
THRESHOLD: Final = {"text": "A threshold that was chosen, no normal range"}
"""Type of a reference range."""


def unknown(text: str) -> Json:
    """A reason why a value is absent: it exists, and is not known."""
    return concept(text, coding(_HL7 + "data-absent-reason", "unknown", "Unknown"))


def class_concept(found: DiagnosticClass) -> Json:
    """A diagnostic class.

    It has a SNOMED CT code where that names the whole class: all codings of a concept mean the
    same, and "actinic keratosis" is not what a class with Bowen's disease in it asserts.
    """
    codings = [coding(CLASS_SYSTEM, found.label, found.name)]
    if found.code is not None and found.code.scope is CodeScope.EXACT:
        codings.append(coding(SNOMED_CT_SYSTEM, found.code.concept_id, found.code.display))
    return concept(found.name, *codings)


CLASS_CONCEPTS: Final = {found.label: class_concept(found) for found in CLASSES}


def decision_concept(action: Action, sentence: str) -> Json:
    """What is to become of an answer, with its sentence for a person."""
    display = {
        Action.REPORT: "Report the answer",
        Action.REFER: "Refer the picture to a specialist",
        Action.REJECT: "No answer",
    }[action]
    return concept(sentence, coding(DECISION_SYSTEM, action, display))


def reason_concept(reason: Reason) -> Json:
    """A reason of a decision."""
    return concept(_words(reason), coding(REASON_SYSTEM, reason, _words(reason)))


def quality_concept(issue: QualityIssue) -> Json:
    """What is wrong with a picture."""
    return concept(_words(issue), coding(QUALITY_SYSTEM, issue, _words(issue)))


def share(value: float) -> Json:
    """A Quantity from 0 to 1, without a unit."""
    return {"value": value, "unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}


def _words(code: str) -> str:
    return code.replace("-", " ").capitalize()
