"""The JSON of an answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.answer_example import ANSWER_EXAMPLE
from app.domain.decision import Action, Reason
from app.domain.heatmap_checks import LEAST_IN_LESION, MOST_AT_BORDER, HeatmapFlag
from app.domain.heatmaps import HeatmapMethod
from app.domain.labels import SNOMED_CT_SYSTEM, CodeScope, Malignancy
from app.domain.manifest import Runtime
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.quality import QualityIssue

_Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class ModelReference(BaseModel):
    """Which model answered."""

    name: Annotated[str, Field(examples=["cnn_densenet121"])]
    version: Annotated[int, Field(examples=[1])]
    digest: Annotated[
        str,
        Field(description="SHA-256 of the artifact's manifest, which fixes every byte of it."),
    ]
    runtime: Annotated[
        Runtime,
        Field(
            description="What ran it. Figures of the test part are of float32; `openvino-int8` was "
            "compared with it on the validation part (`quantized` of the model)."
        ),
    ]


class Coding(BaseModel):
    """A class's concept in a terminology, named as in FHIR."""

    system: Literal["http://snomed.info/sct"] = SNOMED_CT_SYSTEM
    code: Annotated[str, Field(examples=["93655004"])]
    display: Annotated[str, Field(examples=["Malignant melanoma of skin"])]
    scope: Annotated[
        CodeScope,
        Field(description="Whether the concept names the class or its commonest member."),
    ]


class DiagnosticClassSchema(BaseModel):
    """A diagnostic class of HAM10000."""

    label: Annotated[str, Field(description="HAM10000's dx value.", examples=["mel"])]
    name: Annotated[str, Field(examples=["Melanoma"])]
    malignancy: Malignancy
    coding: Annotated[
        Coding | None,
        Field(description="SNOMED CT concept; null where none is confirmed."),
    ]


class HeatmapSchema(BaseModel):
    """Where in the image the model's evidence lies."""

    model: Annotated[
        str,
        Field(
            description="Whose evidence, as name@version: an ensemble's heaviest member's.",
            examples=["cnn_efficientnet_lite0@8"],
        ),
    ]
    media_type: Literal["image/png", "image/jpeg"]
    overlay: Annotated[
        str,
        Field(
            description="Picture over the image; base64. As large as the image, or with "
            "`MAX_OVERLAY_SIDE` pixels on the longer side where that is less."
        ),
    ]
    method: HeatmapMethod
    explained_class: Annotated[
        str | None,
        Field(description="Class that Grad-CAM is evidence for; null for attention: it has none."),
    ]
    map: Annotated[
        list[list[float]],
        Field(description="The raw 7x7 map, row 0 at the top of the image.", min_length=7),
    ]
    scale: Annotated[
        float,
        Field(
            description="The map's maximum, which is drawn in full colour. 0 where nothing in the "
            "image speaks for the class: the overlay then is the image itself."
        ),
    ]
    share_at_border: Annotated[
        _Probability | None,
        Field(
            description="Share of the map in its outermost ring; a flat map has 0.49 there. Null "
            "where the map is all zero."
        ),
    ]
    share_in_lesion: Annotated[
        _Probability | None,
        Field(
            description="Share of the map on the lesion and near it, as far as a lesion was found "
            "by its darkness; null where none was, or where the map is all zero."
        ),
    ]
    flags: Annotated[
        list[HeatmapFlag],
        Field(
            description=f"`blank`: the map is all zero. `border-dominated`: `share_at_border` is "
            f"above {MOST_AT_BORDER}. `off-lesion`: `share_in_lesion` is below {LEAST_IN_LESION}. "
            "How often that is so, by model: docs/heatmaps.md."
        ),
    ]


class DecisionSchema(BaseModel):
    """What is to become of the answer: read this first."""

    action: Annotated[
        Action,
        Field(
            description="`report`: nothing speaks against reading the answer, as research "
            "software's. `refer`: a specialist must look at the picture. `reject`: there is no "
            "answer."
        ),
    ]
    reasons: Annotated[list[Reason], Field(description="The gravest first; none for `report`.")]
    sentence: Annotated[str, Field(description="The same for a person.")]


class PredictionSetSchema(BaseModel):
    """The classes that remain possible."""

    coverage: Annotated[
        float,
        Field(
            description="Share of images like HAM10000's whose set was to hold the true class; "
            "what came of it is in `decision_rules` of the model."
        ),
    ]
    labels: Annotated[list[str], Field(description="By falling probability.", min_length=1)]
    pooled: Annotated[
        list[str],
        Field(
            description="Classes of too few validation lesions: nothing is promised for them, and "
            "the set may lack one where it is the true class."
        ),
    ]


class OperatingPointSchema(BaseModel):
    """A threshold on the summed probability of some classes, apart from the predicted class."""

    target: Literal["melanoma", "malignancy"]
    labels: list[str]
    required_sensitivity: _Probability
    threshold: _Probability
    probability: Annotated[_Probability, Field(description="Sum over `labels`.")]
    positive: Annotated[bool, Field(description="Whether it is at or above the threshold.")]


class QualitySchema(BaseModel):
    """Whether the picture is fit to be classified."""

    issues: Annotated[
        list[QualityIssue],
        Field(description="Scores outside of the range that real pictures have; mostly none."),
    ]
    scores: Annotated[
        dict[str, float | None],
        Field(description="Each with its range and what it measures in docs/quality.md."),
    ]


class OutOfDistributionSchema(BaseModel):
    """How unlike the training images the picture is."""

    score: Annotated[float, Field(description="From 0, without an upper bound.")]
    threshold: Annotated[
        float, Field(description="A score above it is out of distribution; 5 % of real ones are.")
    ]


class UncertaintySchema(BaseModel):
    """How much the answer depends on which way round the picture is."""

    views: Annotated[int, Field(description="Quarter turns and mirror images, the picture first.")]
    standard_deviation: Annotated[
        dict[str, float], Field(description="Of each class's probability over the views.")
    ]
    same_class: Annotated[
        _Probability, Field(description="Share of views with the same most probable class.")
    ]


class MemberSchema(BaseModel):
    """The own answer of a model of the ensemble."""

    model: ModelReference
    weight: _Probability
    predicted_class: str
    confidence: _Probability
    probabilities: dict[str, _Probability]


class EnsembleSchema(BaseModel):
    """What the ensemble's answer is made of."""

    disagreement: Annotated[
        float,
        Field(description="Jensen-Shannon divergence of the members' answers, in bits.", ge=0.0),
    ]
    members: list[MemberSchema]


class ImageSchema(BaseModel):
    """The image as it was understood."""

    width: Annotated[int, Field(description="In pixels, after EXIF orientation.")]
    height: Annotated[int, Field(description="In pixels, after EXIF orientation.")]
    media_type: Annotated[str, Field(description="What the bytes were, whatever they were called.")]
    frame: Annotated[
        int | None,
        Field(
            description="Of a DICOM object of several frames, the one that was answered, from 1; "
            "null for every other upload, a DICOM object of one frame included."
        ),
    ]


class AnswerSchema(BaseModel):
    """What is said about one image."""

    decision: DecisionSchema
    predicted_class: Annotated[
        DiagnosticClassSchema | None,
        Field(description="The class of the highest probability; null where rejected."),
    ]
    confidence: Annotated[
        _Probability | None,
        Field(
            description="The predicted class's probability; see `calibrated`; null where rejected."
        ),
    ]
    calibrated: Annotated[
        bool,
        Field(
            description="Whether probabilities were calibrated on validation images "
            "(`calibration` of the model). If not, they are the softmax's own, and 0.9 does not "
            "mean that nine in ten such answers are right."
        ),
    ]
    probabilities: Annotated[
        dict[str, _Probability] | None,
        Field(description="Of all seven classes; they sum to 1; null where rejected."),
    ]
    prediction_sets: Annotated[
        list[PredictionSetSchema],
        Field(description="None where rejected, or where the model has no rules for it."),
    ]
    operating_points: Annotated[
        list[OperatingPointSchema],
        Field(description="None where rejected, or where the model was not calibrated."),
    ]
    quality: QualitySchema
    out_of_distribution: Annotated[
        OutOfDistributionSchema | None,
        Field(description="Null where the model has no rule for it."),
    ]
    uncertainty: Annotated[
        UncertaintySchema | None,
        Field(description="Null where not asked for (`tta`), and where rejected."),
    ]
    ensemble: Annotated[
        EnsembleSchema | None,
        Field(description="Null for the answer of one model, and where rejected."),
    ]


class PredictionResponse(AnswerSchema):
    """The answer for one image."""

    model_config = ConfigDict(json_schema_extra={"example": ANSWER_EXAMPLE})

    request_id: str
    model: ModelReference
    heatmap: Annotated[
        HeatmapSchema | None, Field(description="Null where not asked for, and where rejected.")
    ]
    image: ImageSchema
    notice: str = RESEARCH_USE_NOTICE
