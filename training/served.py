"""Answers of finished artifacts, through the code that serves them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.ensemble import ENSEMBLE_NAME, EnsembleManifest, read_ensemble
from app.domain.images import RgbImage
from app.domain.manifest import Manifest
from app.domain.measurements import Calibration
from app.inference.ensembles import LoadedEnsemble, load_ensemble
from app.inference.models import LoadedModel, load_model
from app.inference.registry import Loaded
from app.inference.runtimes import engine_maker
from training.prepare import PreparedData

BATCH_SIZE: Final = 32

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifier:
    """One artifact, or an ensemble of them.

    Attributes:
        title: For people.
        loaded: What answers.
    """

    title: str
    loaded: Loaded

    @property
    def calibration(self) -> Calibration | None:
        """Operating points; None for an artifact from before calibration."""
        return self.loaded.manifest.calibration

    def require_split(self, data: PreparedData) -> None:
        """`require_split` of all models in it."""
        loaded = self.loaded
        for model in loaded.members if isinstance(loaded, LoadedEnsemble) else [loaded]:
            require_split(model.manifest, data)

    def predict(self, images: RgbImage) -> Probabilities:
        """Answer (batch, 224, 224, 3) uint8 with (batch, 7) float32."""
        return np.stack([answer.probabilities for answer in self.loaded.predict_batch(images)])


def load_artifact(folder: Path, *, fast: bool = False) -> LoadedModel:
    """A verified and warm artifact `<name>/<version>/`; `fast` as in `load_classifier`.

    Raises:
        ArtifactError: It must not be served.
    """
    return load_model(folder.resolve(), engine_maker("openvino" if fast else "tensorflow"))


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


def load_classifier(path: Path, *, fast: bool = False) -> Classifier:
    """An artifact's folder, or an `ensemble.json` beside its members' folders.

    Args:
        path: Of either.
        fast: Let OpenVINO answer, which agrees with TensorFlow up to rounding.

    Raises:
        ArtifactError: One of them must not be served, or a member is not the one that the
            ensemble was calibrated with.
    """
    if path.name != ENSEMBLE_NAME:
        model = load_artifact(path, fast=fast)
        return Classifier(title_of(model.manifest), model)
    members = read_ensemble(path).members
    models = [load_artifact(path.parent / m.name / str(m.version), fast=fast) for m in members]
    ensemble = load_ensemble(path.parent, models)
    return Classifier(title_of(ensemble.manifest), ensemble)


def title_of(manifest: Manifest | EnsembleManifest) -> str:
    """The name of what answers, in every table."""
    if isinstance(manifest, EnsembleManifest):
        return f"Ensemble of {len(manifest.members)} models"
    return f"{manifest.title}, version {manifest.version}"


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
        (num_images, 7) float32, or as many columns as `predict` gives.
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
