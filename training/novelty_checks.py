"""Which pictures of other things are refused: by the shipped rules, and by other methods.

The methods' thresholds, like the rules', accept 95 % of the validation part. The test part is not
touched: what it accepts is in the manifests.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from app.domain.images import RgbImage
from app.domain.labels import NUM_CLASSES
from app.inference.models import LoadedModel
from app.inference.registry import Loaded
from training.foreign import ForeignImage, foreign_images
from training.prepare import Part, PreparedData
from training.rules import ACCEPTED
from training.served import load_classifier, predict_all, require_split

NEIGHBOURS: Final = 5
RESIDUAL: Final = "residual outside of the principal components"

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


def measure(
    targets: list[Path], data: PreparedData, every: int, report_progress: Progress
) -> dict[str, Any]:
    """Let models judge pictures of other things.

    Args:
        targets: `models/NAME/VERSION` or `models/ensemble.json`, with rules.
        data: The dataset that they were trained on.
        every: Take every such training image for the methods that are compared.
        report_progress: Called with (images done, images in all), for each pass.

    Returns:
        JSON values: `kinds` (pictures by kind); by title in `models` the shares accepted of
        validation and test part, and refused of the pictures, by kind too; by title in `methods`
        the share refused by each method.

    Raises:
        ArtifactError: A target must not be served.
        ValueError: It has no rules, or was trained on another split.
    """
    foreign = foreign_images()
    kinds = np.array([picture.kind for picture in foreign])
    models: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    for target in targets:
        classifier = load_classifier(target, fast=True)
        models[classifier.title] = _shipped(classifier.loaded, foreign, kinds, report_progress)
        if isinstance(classifier.loaded, LoadedModel):
            require_split(classifier.loaded.manifest, data)
            methods[classifier.title] = _compare(
                classifier.loaded, data, foreign, every, report_progress
            )
    names, counts = np.unique(kinds, return_counts=True)
    return {
        "num_pictures": len(foreign),
        "kinds": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "every": every,
        "models": models,
        "methods": methods,
    }


def _shipped(
    loaded: Loaded,
    foreign: list[ForeignImage],
    kinds: npt.NDArray[np.str_],
    report_progress: Progress,
) -> dict[str, Any]:
    rules = loaded.manifest.decision
    if rules is None:
        raise ValueError(
            f"{loaded.qualified_name} has no rules; run `python -m training decide` on it."
        )

    def score(images: RgbImage) -> Floats:
        return np.array([[answer.novelty] for answer in loaded.predict_batch(images)], np.float32)

    pictures = (picture.image for picture in foreign)
    refused = (
        predict_all(score, pictures, len(foreign), report_progress)[:, 0] > rules.novelty.threshold
    )
    return {
        "accepted_validation": rules.novelty.accepted_validation,
        "accepted_test": rules.novelty.accepted_test,
        "refused": _share(refused),
        "by_kind": {kind: _share(refused[kinds == kind]) for kind in np.unique(kinds).tolist()},
    }


def _compare(
    model: LoadedModel,
    data: PreparedData,
    foreign: list[ForeignImage],
    every: int,
    report_progress: Progress,
) -> dict[str, float]:
    def answer(images: RgbImage) -> Floats:
        outputs = model.engine.predict(images)
        return np.concatenate([outputs["logits"], outputs["features"]], axis=1)

    rows = data.rows(Part.TRAIN)[::every]
    train = predict_all(answer, (data.images[row] for row in rows), len(rows), report_progress)
    labels = data.labels(rows)
    rows = data.rows(Part.VALIDATION)
    real = predict_all(answer, (data.images[row] for row in rows), len(rows), report_progress)
    other = predict_all(
        answer, (picture.image for picture in foreign), len(foreign), report_progress
    )
    shares = {}
    for name, score in _methods(model, train, labels).items():
        threshold = np.quantile(score(real), ACCEPTED)
        shares[name] = _share(score(other) > threshold)
    return shares


def _methods(
    model: LoadedModel, train: Floats, labels: npt.NDArray[np.int64]
) -> dict[str, Callable[[Floats], npt.NDArray[Any]]]:
    """Scores of (batch, 7 logits and features), higher for other things."""
    space = model.feature_space
    if space is None:
        raise ValueError(f"{model.qualified_name} has no feature space.")
    features = train[:, NUM_CLASSES:].astype(np.float64)
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(_unit(features))
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    index = np.searchsorted(np.unique(labels), labels)
    precision = LedoitWolf().fit(features - means[index]).precision_

    def energy(both: Floats) -> npt.NDArray[Any]:
        """Liu, Wang, Owens and Li, NeurIPS 2020."""
        return -np.asarray(logsumexp(both[:, :NUM_CLASSES], axis=1))

    def improbability(both: Floats) -> npt.NDArray[Any]:
        """Hendrycks and Gimpel, ICLR 2017."""
        logits = both[:, :NUM_CLASSES]
        return np.asarray(logsumexp(logits, axis=1) - logits.max(axis=1))

    def neighbour_distance(both: Floats) -> npt.NDArray[Any]:
        """Sun, Ming, Zhu and Li, ICML 2022."""
        return np.asarray(neighbours.kneighbors(_unit(both[:, NUM_CLASSES:]))[0][:, -1])

    def mahalanobis(both: Floats) -> npt.NDArray[Any]:
        """Lee, Lee, Lee and Shin, NeurIPS 2018, on the last features alone."""
        given = both[:, NUM_CLASSES:].astype(np.float64)
        distances = []
        for mean in means:
            centred = given - mean
            distances.append(((centred @ precision) * centred).sum(axis=1))
        return np.asarray(np.min(distances, axis=0))

    def residual(both: Floats) -> npt.NDArray[Any]:
        return space.residual(both[:, NUM_CLASSES:])

    return {
        "energy": energy,
        "maximum probability": improbability,
        f"distance of the {NEIGHBOURS}th nearest neighbour": neighbour_distance,
        "Mahalanobis distance": mahalanobis,
        RESIDUAL: residual,
    }


def _unit(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12))


def _share(hits: npt.NDArray[np.bool_]) -> float:
    return round(float(hits.mean()), 4)
