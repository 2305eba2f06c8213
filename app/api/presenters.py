"""From the domain's objects to the API's schemas."""

from app.api.schemas import Coding, DiagnosticClassSchema, ModelReference
from app.domain.labels import DiagnosticClass
from app.inference.registry import LoadedModel


def model_reference(model: LoadedModel) -> ModelReference:
    """What a model is, and what runs it."""
    manifest = model.manifest
    return ModelReference(
        name=manifest.name,
        version=manifest.version,
        digest=model.digest,
        runtime=model.engine.runtime,
    )


def class_schema(diagnostic_class: DiagnosticClass) -> DiagnosticClassSchema:
    """A diagnostic class with its code."""
    code = diagnostic_class.code
    coding = code and Coding(code=code.concept_id, display=code.display, scope=code.scope)
    return DiagnosticClassSchema(
        label=diagnostic_class.label,
        name=diagnostic_class.name,
        malignancy=diagnostic_class.malignancy,
        coding=coding,
    )
