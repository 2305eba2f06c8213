"""How far a model's answers move when an image is disturbed but shows the same lesion.

Measured on the validation part of a prepared dataset, through the code that serves. A model may be
accurate on one source's clean images and answer by chance to another camera's grain; test figures
of the first do not show it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import RgbImage
from training.prepare import Part, PreparedData
from training.run_folder import write_json
from training.served import BATCH_SIZE, Classifier, Probabilities, load_classifier

Disturb = Callable[[RgbImage, np.random.Generator], RgbImage]
"""Takes and gives (224, 224, 3) uint8."""

SEED: Final = 20180814


def _grain(levels: int) -> Disturb:
    def disturb(image: RgbImage, random: np.random.Generator) -> RgbImage:
        noise = random.integers(-levels, levels, image.shape, np.int16, endpoint=True)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    return disturb


def _gain(factor: float) -> Disturb:
    return lambda image, _random: np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)


def _jpeg(quality: int) -> Disturb:
    def disturb(image: RgbImage, _random: np.random.Generator) -> RgbImage:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)

    return disturb


DISTURBANCES: Final[dict[str, Disturb]] = {
    "grain of 1 level": _grain(1),
    "grain of 4 levels": _grain(4),
    "blur of 1 pixel": lambda image, _random: np.asarray(
        cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8
    ),
    "JPEG of quality 70": _jpeg(70),
    "5 % brighter": _gain(1.05),
    "5 % darker": _gain(0.95),
    "mirrored": lambda image, _random: np.ascontiguousarray(image[:, ::-1]),
}
"""By the words of the page. Grain is uniform and independent for each value."""


def measure(
    targets: list[Path],
    data: PreparedData,
    every: int,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Answer disturbed and undisturbed images.

    Args:
        targets: `models/NAME/VERSION` or `models/ensemble.json`.
        data: Its validation part is used, and its labels.
        every: Take every such image only.
        report: Called with (images done, all of them).

    Returns:
        JSON values: `num_images`, `every`, and by model's title `accuracy` and, by disturbance,
        `accuracy`, `changed` (share of other classes), `median` and `p99` of the largest change
        of a probability.

    Raises:
        ArtifactError: A target must not be served.
        ValueError: It was trained on another split.
    """
    rows = data.rows(Part.VALIDATION)[::every]
    images, labels = data.images[rows], data.labels(rows)
    passes = len(targets) * (1 + len(DISTURBANCES)) * len(rows)
    models: dict[str, Any] = {}
    for number, target in enumerate(targets):
        classifier = load_classifier(target)
        classifier.require_split(data)
        done = number * (1 + len(DISTURBANCES)) * len(rows)
        calm = _answer(classifier, images)
        disturbances = {}
        for name, disturb in DISTURBANCES.items():
            done += len(rows)
            report(done, passes)
            random = np.random.default_rng(SEED)
            moved = _answer(classifier, np.stack([disturb(image, random) for image in images]))
            disturbances[name] = _compare(calm, moved, labels)
        accuracy = round(float((calm.argmax(axis=1) == labels).mean()), 4)
        models[classifier.title] = {"accuracy": accuracy, "disturbances": disturbances}
    report(passes, passes)
    return {"num_images": len(rows), "every": every, "models": models}


def write(measured: dict[str, Any], output: Path) -> None:
    """Write what `measure` gave, its folder included."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, measured)


def _answer(classifier: Classifier, images: RgbImage) -> Probabilities:
    starts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([classifier.predict(images[i : i + BATCH_SIZE]) for i in starts])


def _compare(
    calm: Probabilities, moved: Probabilities, labels: npt.NDArray[np.int64]
) -> dict[str, float]:
    change = np.abs(calm - moved).max(axis=1)
    values = {
        "accuracy": (moved.argmax(axis=1) == labels).mean(),
        "changed": (moved.argmax(axis=1) != calm.argmax(axis=1)).mean(),
        "median": np.median(change),
        "p99": np.percentile(change, 99),
    }
    return {name: round(float(value), 4) for name, value in values.items()}
