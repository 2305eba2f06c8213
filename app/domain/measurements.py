"""What was measured of a model, in the form that manifests and the API carry it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain.labels import LABELS

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
GitCommit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Strict(BaseModel):
    """Unknown fields and infinities are refused; nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(Strict):
    """A measured value with its 95 % interval: a bootstrap's; of a share of 0 or 1, Wilson's."""

    value: float
    low: float
    high: float


class ClassMetrics(Strict):
    """How well one class is found among the images of a part."""

    precision: Interval
    recall: Interval
    f1: Interval
    roc_auc: Interval
    support: Annotated[int, Field(ge=0)]


class ReliabilityBin(Strict):
    """Answers of like confidence.

    Attributes:
        num_images: How many.
        confidence: Mean probability of the answered class.
        accuracy: Share of right answers.
    """

    num_images: Annotated[int, Field(ge=1)]
    confidence: Probability
    accuracy: Probability


class OperatingPoint(Strict):
    """A threshold on the summed probability of some classes, and what it achieves.

    Attributes:
        target: What is looked for.
        labels: The classes whose probabilities are summed.
        required_sensitivity: What the threshold was chosen for on the validation part.
        threshold: A sum at or above it is positive.
        sensitivity: Share of the target's images that are positive.
        specificity: Share of the others that are not.
    """

    target: Literal["melanoma", "malignancy"]
    labels: Annotated[list[str], Field(min_length=1)]
    required_sensitivity: Probability
    threshold: Probability
    sensitivity: Interval
    specificity: Interval

    @model_validator(mode="after")
    def _check(self) -> "OperatingPoint":
        if not set(self.labels) <= set(LABELS) or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must be of {list(LABELS)}, each once, received {self.labels}")
        return self


class Calibration(Strict):
    """How probabilities were brought to mean what they say, on the validation part.

    Attributes:
        method: Logits are divided by one number before the softmax (Guo, Pleiss, Sun and
            Weinberger, "On Calibration of Modern Neural Networks", ICML 2017).
        temperature: That number; the exported graph applies it.
        num_images: Of the validation part.
        error_before: Expected calibration error of the plain softmax there.
        error_after: The same of what the graph returns.
        operating_points: Chosen and measured there.
    """

    method: Literal["temperature"] = "temperature"
    temperature: Annotated[float, Field(gt=0.0)]
    num_images: Annotated[int, Field(ge=1)]
    error_before: Probability
    error_after: Probability
    operating_points: list[OperatingPoint]


class Subgroup(Strict):
    """Figures of the images that share an attribute.

    Attributes:
        attribute: "age", "sex" or "localization".
        value: As HAM10000 has it; ages in bands.
        num_images: How many; smaller groups than 20 are left out.
        accuracy: Share of right answers.
        num_melanomas: How many of them are melanomas.
        melanoma_recall: None where there are fewer than 10.
    """

    attribute: Literal["age", "sex", "localization"]
    value: str
    num_images: Annotated[int, Field(ge=1)]
    accuracy: Interval
    num_melanomas: Annotated[int, Field(ge=0)]
    melanoma_recall: Interval | None


class Failure(Strict):
    """A wrong answer.

    Attributes:
        image: Its identifier in the ISIC Archive, where the image can be looked at.
        truth: The label.
        answer: The class of the highest probability.
        probability: That probability.
    """

    image: str
    truth: str
    answer: str
    probability: Probability


class Metrics(Strict):
    """Figures of the exported artifact on one part of the split, or on images from elsewhere.

    Attributes:
        part: Which part; "external" for images from elsewhere.
        num_images: Its size.
        accuracy: Share of right answers.
        balanced_accuracy: Mean recall over the classes.
        macro_f1: Mean F1 over the classes.
        per_class: By label.
        confusion_matrix: Row is the truth, column the answer, in the order of `classes`.
        calibration_error: Expected calibration error over 15 bins of confidence; None in
            manifests from before it was measured, which lack the lists below too.
        reliability: The bins that hold images, by rising confidence.
        operating_points: The thresholds chosen on the validation part, measured on this one.
        subgroups: By age, sex and site.
        failures: The wrong answers that were most certain, the worst first.
    """

    part: Literal["validation", "test", "external"]
    num_images: Annotated[int, Field(ge=1)]
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    calibration_error: Probability | None = None
    reliability: list[ReliabilityBin] = []
    operating_points: list[OperatingPoint] = []
    subgroups: list[Subgroup] = []
    failures: list[Failure] = []
