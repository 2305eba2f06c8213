"""Answers of finished artifacts, through the code that serves them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.ensemble import ENSEMBLE_NAME, pool, read_ensemble
from app.domain.errors import ArtifactDigestError
from app.domain.images import RgbImage
from app.domain.manifest import Manifest
from app.domain.measurements import Calibration
from app.inference.registry import LoadedModel, load_model
from app.inference.tensorflow_engine import TensorFlowEngine
from training.prepare import PreparedData

BATCH_SIZE: Final = 32

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifier:
    """One artifact, or an ensemble of them.

    Attributes:
        title: For people.
        models: What answers.
        weights: Of each model, by name; a single one has 1.
        temperature: Of the combination; 1 for a single model, whose graph applies its own.
        calibration: Operating points; None for an artifact from before calibration.
    """

    title: str
    models: list[LoadedModel]
    weights: dict[str, float]
    temperature: float
    calibration: Calibration | None

    def predict(self, images: RgbImage) -> Probabilities:
        """Answer (batch, 224, 224, 3) uint8 with (batch, 7) float32."""
        answers = {
            model.manifest.name: model.engine.predict(images)["probabilities"]
            for model in self.models
        }
        if len(answers) == 1:
            return next(iter(answers.values()))
        return pool(answers, self.weights, self.temperature)


def load_artifact(folder: Path) -> LoadedModel:
    """A verified and warm artifact `<name>/<version>/`.

    Raises:
        ArtifactError: It must not be served.
    """
    return load_model(folder.resolve(), TensorFlowEngine)


def require_split(manifest: Manifest, data: PreparedData) -> None:
    """Refuse figures of a model on images that it may have been trained on.

    Raises:
        ValueError: It was trained on other data, or on another split of them.
    """
    training = manifest.training
    split = (training.data_fingerprint, training.split_fingerprint)
    if split != (data.fingerprint, data.split_fingerprint):
        raise ValueError(
            f"{manifest.name} was trained on other data or another split than {data.directory} "
            "holds."
        )


def load_classifier(path: Path) -> Classifier:
    """An artifact's folder, or an `ensemble.json` beside its members' folders.

    Raises:
        ArtifactError: One of them must not be served, or a member is not the one that the
            ensemble was calibrated with.
    """
    if path.name != ENSEMBLE_NAME:
        model = load_artifact(path)
        manifest = model.manifest
        title = f"{manifest.title}, version {manifest.version}"
        return Classifier(title, [model], {manifest.name: 1.0}, 1.0, manifest.calibration)
    ensemble = read_ensemble(path)
    models = []
    for member in ensemble.members:
        model = load_artifact(path.parent / member.name / str(member.version))
        if model.digest != member.digest:
            raise ArtifactDigestError(
                f"{path}: {member.name} version {member.version} has digest {model.digest}; the "
                f"ensemble was calibrated with {member.digest}."
            )
        models.append(model)
    weights = {member.name: member.weight for member in ensemble.members}
    title = f"Ensemble of {len(models)} models"
    temperature = ensemble.calibration.temperature
    return Classifier(title, models, weights, temperature, ensemble.calibration)


def predict_all(
    predict: Callable[[RgbImage], Probabilities],
    images: Iterable[RgbImage],
    num_images: int,
    report_progress: Callable[[int, int], None],
) -> Probabilities:
    """Answer many images in batches.

    Args:
        predict: Of a classifier or a model.
        images: (224, 224, 3) uint8 each; read as they are needed.
        num_images: How many.
        report_progress: Called with (images done, images in all).

    Returns:
        (num_images, 7) float32.
    """
    answers: list[Probabilities] = []
    batch: list[RgbImage] = []
    for index, image in enumerate(images, start=1):
        batch.append(image)
        if len(batch) == BATCH_SIZE or index == num_images:
            answers.append(predict(np.stack(batch)))
            batch = []
            report_progress(index, num_images)
    return np.concatenate(answers)
