"""An answer as a Comprehensive SR: a measurement report (PS3.16, TID 1500) of one photograph.

```
Imaging Measurement Report (preliminary, unverified)
└── Imaging Measurements
    └── Measurement Group            algorithm (TID 4019), source image
        ├── decision, its reasons, calibrated, kind of software
        ├── predicted class, and its SNOMED CT concept where there is one
        ├── confidence, and the probability of each class
        └── comments: the decision's sentence, the notice of research use
```

Of a rejected answer there is the decision with its reasons, and nothing about classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import DermoscopicPhotographyImageStorage

from app.domain.decision import Action, Reason
from app.domain.labels import CLASSES, CodeScope, DiagnosticClass
from app.domain.notice import RESEARCH_USE_NOTICE
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_source import Identity, derive_uid

SOFTWARE_NAME: Final = "DermHybrid"
CODING_SCHEME: Final = "99DERMHYBRID"
"""Of concepts that no standard has; the prefix 99 is for private schemes (PS3.3, table 8-1)."""

REPORT_SERIES_NUMBER: Final = 9001

_ACTIONS: Final[Mapping[Action, str]] = {
    Action.REPORT: "Answer is reported",
    Action.REFER: "Refer to a specialist",
    Action.REJECT: "No answer is given",
}
_REASONS: Final[Mapping[Reason, str]] = {
    Reason.OUT_OF_DISTRIBUTION: "Picture is unlike the training images",
    Reason.POOR_QUALITY: "Picture is of poor quality",
    Reason.NO_RULES: "Rules of the model were not measured",
    Reason.MALIGNANCY: "Malignant classes reach the operating point",
    Reason.LOW_CONFIDENCE: "Confidence is low",
    Reason.LARGE_SET: "Too many classes remain possible",
    Reason.DISAGREEMENT: "Members of the ensemble disagree",
}
_UNVERIFIED: Final = "AI research software, not verified by a person"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What answered.

    Attributes:
        name: Of the model.
        version: Of the model.
        digest: SHA-256 of the model.
        runtime: What ran it.
        software_version: Of the service.
    """

    name: str
    version: int
    digest: str
    runtime: str
    software_version: str


@dataclass(frozen=True, slots=True)
class ReportedAnswer:
    """What is reported of an answer.

    Attributes:
        algorithm: What answered.
        frame: Of the photograph, from 1; None where it has one only.
        action: What is to become of the answer.
        reasons: Why.
        sentence: The same for a person.
        calibrated: Whether the probabilities were calibrated.
        probabilities: By label, all classes; None where the answer is rejected.
        predicted: The most probable class; None where the answer is rejected.
    """

    algorithm: Algorithm
    frame: int | None
    action: Action
    reasons: tuple[Reason, ...]
    sentence: str
    calibrated: bool
    probabilities: Mapping[str, float] | None
    predicted: DiagnosticClass | None

    @property
    def identity(self) -> Identity:
        """What its results' identifiers are made of."""
        algorithm = self.algorithm
        return Identity(algorithm.digest, algorithm.runtime, self.action, self.frame or 1)


def _procedure(source: Dataset) -> Code:
    """What the photograph's SOP class says of how it was taken, and no more."""
    is_dermoscopic = source.SOPClassUID == DermoscopicPhotographyImageStorage
    return codes.SCT.DermoscopicPhotography if is_dermoscopic else codes.SCT.PhotographyOfPatient


def make_report(source: Dataset, answer: ReportedAnswer) -> ComprehensiveSR:
    """Report an answer.

    Args:
        source: From `take_over`.
        answer: The answer.
    """
    identity = answer.identity
    document = MeasurementReport(
        observation_context=ObservationContext(_observer(source, answer)),
        procedure_reported=_procedure(source),
        imaging_measurements=[_group(source, answer)],
    )
    return ComprehensiveSR(
        evidence=[source],
        content=document[0],
        series_instance_uid=derive_uid(source.SeriesInstanceUID, identity, "report-series"),
        series_number=REPORT_SERIES_NUMBER,
        sop_instance_uid=derive_uid(source.SOPInstanceUID, identity, "report"),
        instance_number=source.InstanceNumber,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="AI answers, research use, not verified",
        **equipment(answer.algorithm),
    )


def equipment(algorithm: Algorithm) -> dict[str, Any]:
    """The general equipment module of results, as highdicom's arguments."""
    return {
        "manufacturer": SOFTWARE_NAME,
        "manufacturer_model_name": f"{algorithm.name}@{algorithm.version}",
        "device_serial_number": algorithm.digest,
        "software_versions": (algorithm.software_version, algorithm.runtime),
    }


def _observer(source: Dataset, answer: ReportedAnswer) -> ObserverContext:
    algorithm = answer.algorithm
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derive_uid("", answer.identity, "observer"),
            name=SOFTWARE_NAME,
            manufacturer_name=SOFTWARE_NAME,
            model_name=f"{algorithm.name}@{algorithm.version}",
            serial_number=algorithm.digest,
        ),
    )


def _group(source: Dataset, answer: ReportedAnswer) -> MeasurementsAndQualitativeEvaluations:
    algorithm = answer.algorithm
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derive_uid(source.SOPInstanceUID, answer.identity, "group"),
            identifier=f"Photograph, frame {answer.frame}" if answer.frame else "Photograph",
        ),
        algorithm_id=AlgorithmIdentification(
            name=algorithm.name,
            version=str(algorithm.version),
            parameters=[
                f"Model SHA-256: {algorithm.digest}",
                f"Runtime: {algorithm.runtime}",
                f"{SOFTWARE_NAME} {algorithm.software_version}",
            ],
            manufacturer=SOFTWARE_NAME,
        ),
        measurements=_measurements(answer),
        qualitative_evaluations=_evaluations(answer),
        source_images=[
            SourceImageForMeasurementGroup(
                source.SOPClassUID, source.SOPInstanceUID, [answer.frame] if answer.frame else None
            )
        ],
    )
    group[0].ContentSequence.extend(
        TextContentItem(codes.DCM.Comment, text, RelationshipTypeValues.CONTAINS)
        for text in (answer.sentence, RESEARCH_USE_NOTICE)
    )
    return group


def _evaluations(answer: ReportedAnswer) -> list[QualitativeEvaluation]:
    said = [
        (_concept("software", "Kind of software"), _concept("ai-research", _UNVERIFIED)),
        (
            _concept("decision", "Decision on the answer"),
            _concept(answer.action, _ACTIONS[answer.action]),
        ),
        *(
            (_concept("reason", "Reason of the decision"), _concept(reason, _REASONS[reason]))
            for reason in answer.reasons
        ),
    ]
    if answer.predicted is not None:
        said += _predicted(answer.predicted, calibrated=answer.calibrated)
    return [QualitativeEvaluation(name, value) for name, value in said]


def _predicted(
    predicted: DiagnosticClass, *, calibrated: bool
) -> list[tuple[CodedConcept, CodedConcept]]:
    yes_or_no = codes.SCT.Yes if calibrated else codes.SCT.No
    said = [
        (_concept("calibrated", "Probabilities are calibrated"), yes_or_no),
        (_concept("class", "Most probable class"), _concept(predicted.label, _name(predicted))),
    ]
    if code := predicted.code:
        # A code that names one diagnosis of several must not be read as the class itself.
        name = (
            _concept("class-sct", "Most probable class in SNOMED CT")
            if code.scope is CodeScope.EXACT
            else _concept("class-member", "Commonest diagnosis of the most probable class")
        )
        said.append((name, CodedConcept(code.concept_id, "SCT", code.display)))
    return said


def _measurements(answer: ReportedAnswer) -> list[Measurement] | None:
    if answer.probabilities is None or answer.predicted is None:
        return None
    named = {
        _concept(f"p-{c.label}", f"Probability of {_name(c).lower()}"): answer.probabilities[
            c.label
        ]
        for c in CLASSES
    }
    confidence = answer.probabilities[answer.predicted.label]
    named[_concept("confidence", "Probability of the most probable class")] = confidence
    return [Measurement(name, value, codes.UCUM.NoUnits) for name, value in named.items()]


def _name(diagnostic_class: DiagnosticClass) -> str:
    """The class's name without the list of what it groups: a meaning has 64 characters."""
    return diagnostic_class.name.split(" (")[0]


def _concept(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, CODING_SCHEME, meaning)
