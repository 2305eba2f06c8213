"""What this service can do, in FHIR's own words: CapabilityStatement and OperationDefinition."""

from typing import Final

from app.domain.notice import RESEARCH_USE_NOTICE
from app.interop.fhir_codes import FHIR_VERSION, Json

OPERATION: Final = "classify-lesion"
OPERATION_PATH: Final = f"/fhir/${OPERATION}"
OPERATION_URL: Final = f"urn:dermhybrid:OperationDefinition:{OPERATION}"
"""Its canonical URL: the same wherever the service runs."""

_CHANGED: Final = "2026-11-24"
_PARAMETERS: Final = (
    ("image", 1, "Attachment", "The dermatoscopic image: contentType image/*, data in base64."),
    ("subject", 0, "Reference", "Patient/...: whose lesion it is."),
    ("encounter", 0, "Reference", "Encounter/...: when it was seen."),
    ("imagingStudy", 0, "Reference", "ImagingStudy/...: where the image is from."),
    ("basedOn", 0, "Reference", "ServiceRequest/...: who asked for it."),
    ("model", 0, "string", "name or name@version; the default model where it is missing."),
    ("heatmap", 0, "boolean", "Whether to draw the heatmap; it is drawn where this is missing."),
    ("store", 0, "boolean", "Whether to store the answer on the service's FHIR server."),
)
"""Name, least number, type, and what it is."""


def capability_statement(version: str) -> Json:
    """What the service does.

    Args:
        version: Of the software.
    """
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "experimental": True,
        "date": _CHANGED,
        "kind": "instance",
        "software": {"name": "DermHybrid", "version": version},
        "implementation": {"description": f"DermHybrid. {RESEARCH_USE_NOTICE}"},
        "fhirVersion": FHIR_VERSION,
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "documentation": RESEARCH_USE_NOTICE,
                "resource": [
                    {"type": "OperationDefinition", "interaction": [{"code": "read"}]},
                ],
                "operation": [{"name": OPERATION, "definition": OPERATION_URL}],
            }
        ],
    }


def operation_definition() -> Json:
    """What `$classify-lesion` takes and gives."""
    given = [
        {"name": name, "use": "in", "min": least, "max": "1", "documentation": what, "type": kind}
        for name, least, kind, what in _PARAMETERS
    ]
    returned = {
        "name": "return",
        "use": "out",
        "min": 1,
        "max": "1",
        "documentation": "A transaction Bundle with the answer. Read its decision first.",
        "type": "Bundle",
    }
    return {
        "resourceType": "OperationDefinition",
        "id": OPERATION,
        "url": OPERATION_URL,
        "name": "ClassifyLesion",
        "title": "Classify a dermatoscopic image",
        "status": "active",
        "experimental": True,
        "kind": "operation",
        "date": _CHANGED,
        "description": f"Class probabilities, a heatmap and a decision. {RESEARCH_USE_NOTICE}",
        "affectsState": True,
        "code": OPERATION,
        "system": True,
        "type": False,
        "instance": False,
        "parameter": [*given, returned],
    }
