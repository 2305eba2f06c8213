"""`manifest.json`: what an artifact claims about itself, and the check that it holds.

An artifact is a folder `<name>/<version>/` with a TensorFlow SavedModel, `manifest.json`
and `MODEL_CARD.md`. `read_manifest` validates the schema, `verify_files` every byte; both
fail closed. Nothing here runs the model: the golden example is the engine's to reproduce.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from app.domain.errors import (
    ArtifactDigestError,
    ArtifactIncompleteError,
    ManifestError,
    is_exhaustion,
)
from app.domain.images import MODEL_INPUT_SIZE
from app.domain.labels import LABELS, NUM_CLASSES
from app.domain.measurements import Calibration, GitCommit, Metrics, Probability, Strict
from app.domain.rules import FEATURE_SPACE_NAME, DecisionRules

MANIFEST_NAME: Final = "manifest.json"
MODEL_CARD_NAME: Final = "MODEL_CARD.md"
SIGNATURE_SUFFIX: Final = ".sig"
"""Of a file beside the one that it signs (ADR-0027)."""
GRAPH_NAME: Final = "saved_model.pb"
QUANTIZED_NAME: Final = "openvino_int8/model.xml"
"""The 8-bit form's graph; its weights are beside it (ADR-0010)."""

SCHEMA_VERSION: Final = 1
_READ_CHUNK: Final = 1 << 20
_MAX_MANIFEST_BYTES: Final = 1 << 20

Runtime = Literal["tensorflow", "openvino", "openvino-int8"]
"""What runs a model: the SavedModel in TensorFlow or OpenVINO, or the 8-bit form in OpenVINO."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class InputSpec(Strict):
    """What the signature takes: uint8 RGB, as `to_model_input` makes it."""

    name: Literal["image"] = "image"
    dtype: Literal["uint8"] = "uint8"
    height: Literal[224] = MODEL_INPUT_SIZE
    width: Literal[224] = MODEL_INPUT_SIZE
    channels: Literal[3] = 3
    color_space: Literal["sRGB"] = "sRGB"


class TrainingProcess(Strict):
    """A process that took part in training.

    Attributes:
        started: UTC, ISO 8601.
        git_commit: Of its code; None where there was no commit yet.
        clean: Whether the code was exactly the commit's.
    """

    started: str
    git_commit: GitCommit | None
    clean: bool


class TrainingEpoch(Strict):
    """A line of the learning curve.

    Attributes:
        image_size: Side of the square input in pixels.
        loss: Mean over the epoch's steps, class weights and label smoothing included.
        accuracy: Mean over the epoch's steps, of distorted images.
        validation_loss: Label smoothing included.
        validation_accuracy: At this image size.
    """

    image_size: int
    loss: float
    accuracy: Probability
    validation_loss: float
    validation_accuracy: Probability


class Training(Strict):
    """Where the weights come from.

    Attributes:
        recipe: The recipe's fields.
        protocol: "lesion" or "paper".
        data_fingerprint: SHA-256 over images, lesions and labels (`training.prepare`).
        split_seed: Of the split.
        split_fingerprint: SHA-256 over which image is in which part.
        processes: What trained, oldest first; a resumed run has several.
        steps: Optimizer steps.
        epochs: As the recipe's stages count them; an epoch may be shorter than the data.
        seconds: Spent training.
        hardware: What it ran on, in words.
        history: An entry an epoch; empty in manifests from before it was kept.
    """

    recipe: dict[str, Any]
    protocol: Literal["lesion", "paper"]
    data_fingerprint: Sha256
    split_seed: int
    split_fingerprint: Sha256
    processes: list[TrainingProcess]
    steps: Annotated[int, Field(ge=0)]
    epochs: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0.0)]
    hardware: str
    history: list[TrainingEpoch] = []


class GoldenExample(Strict):
    """An input that the artifact carries, and what it must answer.

    Attributes:
        file: A synthetic picture, decoded and resized like an upload.
        probabilities: Expected, in the order of `classes`.
        tolerance: Largest absolute difference of a probability: processors round differently.
    """

    file: Literal["golden_input.png"] = "golden_input.png"
    probabilities: Annotated[list[Probability], Field(min_length=NUM_CLASSES, max_length=7)]
    tolerance: Annotated[float, Field(gt=0.0, le=1e-2)]


class Change(Strict):
    """A share in float32, and in 8 bits."""

    before: Probability
    after: Probability


class Quantized(Strict):
    """The 8-bit form of an artifact, compared with float32 on the validation part.

    Attributes:
        tool: Packages and versions that made it.
        git_commit: Of the code that made it.
        num_calibration_images: Of the training part, which the ranges of values are from.
        num_images: Of the validation part.
        accuracy: Share of right answers, before and after.
        recall: By label.
        other_answers: Share of images whose answer names another class than in float32.
        median_change: Of the largest change of a probability, over the images.
        largest_change: The same, of the worst image.
        heatmap_correlation: Median over images of Pearson's correlation between the two forms'
            class activation maps of the class that float32 answers.
        golden_example: What this form must answer wherever it is loaded.
    """

    tool: str
    git_commit: GitCommit
    num_calibration_images: Annotated[int, Field(ge=1)]
    num_images: Annotated[int, Field(ge=1)]
    accuracy: Change
    recall: dict[str, Change]
    other_answers: Probability
    median_change: Probability
    largest_change: Probability
    heatmap_correlation: Annotated[float, Field(ge=-1.0, le=1.0)]
    golden_example: GoldenExample


class Manifest(Strict):
    """The whole of `manifest.json`.

    Attributes:
        schema_version: Of this schema.
        name: Folder above the version's, and the model's name in the API.
        version: Counts up; a published version never changes.
        title: For people.
        classes: In the order of every output.
        input: What the signature takes.
        num_parameters: Values in the model, frozen ones and statistics included.
        has_attention: Whether there is an output `attention`.
        git_commit: Commit of the code that exported the artifact.
        training: Where the weights come from.
        calibration: On the validation part; None where the probabilities are the plain
            softmax's.
        metrics: On the test part, which neither training nor the choice of a threshold saw.
        decision: When an answer is reported; None where that was not measured.
        golden_example: What the artifact must answer wherever it is loaded.
        quantized: Its 8-bit form; None where there is none.
        license: Terms of the weights.
        files: SHA-256 of every other file in the folder, by its relative path.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    version: Annotated[int, Field(ge=1)]
    title: Annotated[str, Field(min_length=1, max_length=120)]
    classes: list[str]
    input: InputSpec
    num_parameters: Annotated[int, Field(ge=1)]
    has_attention: bool
    git_commit: GitCommit
    training: Training
    calibration: Calibration | None = None
    metrics: Metrics
    decision: DecisionRules | None = None
    golden_example: GoldenExample
    quantized: Quantized | None = None
    license: str
    files: dict[str, Sha256]

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        if tuple(self.classes) != LABELS:
            raise ValueError(f"classes must be {list(LABELS)}, received {self.classes}")
        if self.metrics.part != "test":
            raise ValueError(f"metrics must be of the test part, received {self.metrics.part}")
        if set(self.metrics.per_class) != set(LABELS):
            raise ValueError("metrics.per_class must hold each class once")
        for path in self.files:
            parts = Path(path).parts
            if Path(path).is_absolute() or ".." in parts or not parts:
                raise ValueError(f"files: {path!r} leaves the artifact's folder")
        if (self.quantized is not None) != (QUANTIZED_NAME in self.files):
            raise ValueError(f"files must list {QUANTIZED_NAME} if and only if quantized is set")
        return self

    @model_validator(mode="after")
    def _check_decision(self) -> "Manifest":
        if (self.decision is not None) != (FEATURE_SPACE_NAME in self.files):
            raise ValueError(f"files must list {FEATURE_SPACE_NAME} if and only if decision is set")
        if self.decision is not None:
            if self.calibration is None:
                raise ValueError("decision needs calibration: its thresholds are probabilities")
            if self.decision.novelty.num_components is None:
                raise ValueError("decision.novelty.num_components must be set for a model")
            self.decision.check_calibration(self.calibration)
        return self

    def expected(self, runtime: Runtime) -> GoldenExample:
        """What a runtime must answer to the golden input."""
        if runtime == "openvino-int8" and self.quantized is not None:
            return self.quantized.golden_example
        return self.golden_example


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """Read and validate an artifact's manifest.

    Args:
        directory: `<name>/<version>/`.

    Returns:
        The manifest, and the SHA-256 of its bytes: the artifact's digest, since the
        manifest lists the digest of every other file.

    Raises:
        ManifestError: Missing, unreadable, not of the schema, or of another folder's model.
    """
    path = directory / MANIFEST_NAME
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path}: larger than {_MAX_MANIFEST_BYTES:,} bytes.")
        data = path.read_bytes()
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise ManifestError(f"{path}: cannot be read: {error}. Export the model again.") from error
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'manifest'}: {item['msg']}"
            for item in error.errors()
        )
        raise ManifestError(f"{path}: {details}") from error
    for required in (GRAPH_NAME, MODEL_CARD_NAME, manifest.golden_example.file):
        if required not in manifest.files:
            raise ManifestError(f"{path}: files must list {required}.")
    if (manifest.name, str(manifest.version)) != (directory.parent.name, directory.name):
        raise ManifestError(
            f"{path}: is of {manifest.name}/{manifest.version}, and lies in "
            f"{directory.parent.name}/{directory.name}."
        )
    return manifest, hashlib.sha256(data).hexdigest()


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Check that an artifact holds exactly the bytes that its manifest lists, and a signature.

    Raises:
        ArtifactIncompleteError: A listed file is missing or cannot be read, or an unlisted one is
            there.
        ArtifactDigestError: A file's SHA-256 differs.
    """
    present = {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    } - {MANIFEST_NAME, MANIFEST_NAME + SIGNATURE_SUFFIX}
    for name in sorted(set(manifest.files) - present):
        raise ArtifactIncompleteError(
            f"{directory / name}: missing; the manifest lists it. Restore the whole folder."
        )
    for name in sorted(present - set(manifest.files)):
        raise ArtifactIncompleteError(
            f"{directory / name}: not listed in {MANIFEST_NAME}; an artifact holds nothing else."
        )
    for name, expected in sorted(manifest.files.items()):
        try:
            received = file_sha256(directory / name)
        except OSError as error:
            if is_exhaustion(error):
                raise
            raise ArtifactIncompleteError(
                f"{directory / name}: cannot be read ({error.strerror}). Give the service's user "
                "the right to, or restore the whole folder."
            ) from error
        if received != expected:
            raise ArtifactDigestError(
                f"{directory / name}: SHA-256 is {received}, the manifest says {expected}. "
                "The file was changed or damaged; restore the whole folder."
            )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piecewise."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` beside the files it lists."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    (directory / MANIFEST_NAME).write_text(text, encoding="utf-8")
