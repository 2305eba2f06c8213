"""Calibrate a run, and measure it on one part of the data, with the graph that is exported.

```
RUN/calibration.json   app.domain.manifest.Calibration
RUN/evaluation-<part>/
    metrics.json       app.domain.manifest.Metrics
    report.md          the same for a person, with the figures
    confusion_matrix.png  reliability.png  curves.png  heatmaps.png  failures.png
```
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.labels import LABELS
from app.domain.measurements import Calibration, Failure, Metrics
from app.domain.uncertainty import symmetries
from training.architectures import build_hybrid
from training.calibration import calibrate
from training.data import evaluation_batches, load_examples
from training.figures import (
    draw_confusion_matrix,
    draw_curves,
    draw_heatmaps,
    draw_reliability,
)
from training.inference_graph import InferenceGraph
from training.metrics import measure, measure_operating_points, measure_subgroups
from training.prepare import Part, PreparedData
from training.report import write_report
from training.run_folder import (
    RunError,
    best_weights,
    check_data,
    interpolated_weights,
    read_history,
    read_result,
    read_run_owner,
    write_json,
)

BATCH_SIZE: Final = 32
CALIBRATION_NAME: Final = "calibration.json"
NUM_FAILURES: Final = 8


def load_graph(run: Path) -> InferenceGraph:
    """The inference graph of a finished run, with its best weights and its temperature.

    Before `calibrate_run` the temperature is 1.

    Raises:
        RunError: The run is not finished, or its hybrid takes metadata, which no artifact does.
    """
    if read_run_owner(run).recipe.metadata:
        raise RunError(
            f"{run} holds a hybrid with metadata; artifacts take an image alone, so that it can "
            "be measured by `python -m training ablate` only. Train it with metadata=False."
        )
    model = _load_best(run, MODEL_INPUT_SIZE)
    calibration = read_calibration(run)
    return InferenceGraph(
        model,
        calibration.temperature if calibration else 1.0,
        mirrored=read_run_owner(run).recipe.mirrored,
    )


def _load_best(run: Path, image_size: int) -> keras.Model:
    """A finished run's network with the weights that are its result, computing in float32."""
    result = read_result(run)
    keras.mixed_precision.set_global_policy("float32")
    recipe = read_run_owner(run).recipe
    # Every weight comes from the run: neither download nor read the backbone's initial ones.
    model = build_hybrid(replace(recipe, backbone_weights="none", frozen_layers=0), image_size)
    best = best_weights(run, result.best_epoch)
    model.load_weights(interpolated_weights(run) if recipe.initial_share else best)
    return model


def measure_as_trained(run: Path, data: PreparedData, part: Part) -> Metrics:
    """Measure a run at the image size of its last stage; hybrids with metadata too.

    Args:
        run: A finished run's folder.
        data: The dataset it was trained on.
        part: Which part to measure on.

    Raises:
        RunError: The run is not finished, or was trained on other data.
    """
    recipe = check_data(run, data).recipe
    image_size = recipe.stages[-1].image_size
    examples = load_examples(data, part, image_size, metadata=recipe.metadata)
    model = _load_best(run, image_size)
    logits = model.predict(evaluation_batches(examples, BATCH_SIZE), verbose=0)
    probabilities = tf.nn.softmax(logits).numpy()
    groups = data.lesions(data.rows(part))
    return measure(part.value, examples.labels, probabilities, groups, seed=data.seed)


def read_calibration(run: Path) -> Calibration | None:
    """What `calibrate_run` wrote, or None before it."""
    path = run / CALIBRATION_NAME
    return Calibration.model_validate_json(path.read_bytes()) if path.exists() else None


def calibrate_run(
    run: Path, data: PreparedData, report_progress: Callable[[int, int], None]
) -> Calibration:
    """Calibrate a run on the validation part and write `calibration.json`.

    Args:
        run: A finished run's folder.
        data: The dataset it was trained on.
        report_progress: Called with (images done, images in all).

    Raises:
        RunError: The run is not finished, was trained on other data, or was already measured
            on the test part: nothing is chosen after that.
    """
    check_data(run, data)
    if any(evaluation_folder(run, Part.TEST, augmented=a).exists() for a in (False, True)):
        raise RunError(f"{run} was measured on the test part; it cannot be calibrated any more.")
    rows = data.rows(Part.VALIDATION)
    outputs = predict(load_graph(run), data.images, rows, report_progress)
    calibration = calibrate(
        outputs["logits"], data.labels(rows), data.lesions(rows), seed=data.seed
    )
    write_json(run / CALIBRATION_NAME, calibration.model_dump(mode="json"))
    return calibration


def evaluation_folder(run: Path, part: Part, *, augmented: bool = False) -> Path:
    """Where `evaluate` leaves its files."""
    return run / f"evaluation-{part.value}{'-augmented' if augmented else ''}"


def evaluate(
    run: Path,
    data: PreparedData,
    part: Part,
    report_progress: Callable[[int, int], None],
    *,
    augmented: bool = False,
) -> Metrics:
    """Measure a run and write the report.

    Args:
        run: A finished run's folder.
        data: The dataset it was trained on.
        part: Which part to measure on; test once per recipe.
        report_progress: Called with (images done, images in all).
        augmented: Measure the mean answer over the square's eight symmetries (test-time
            augmentation), which is not what the exported graph gives.

    Returns:
        The figures.

    Raises:
        RunError: The run is not finished, was trained on other data, or is to be measured
            on the test part before it was calibrated.
    """
    owner = check_data(run, data)
    calibration = read_calibration(run)
    if part is Part.TEST and calibration is None:
        raise RunError(f"{run}: run `python -m training calibrate {run}` before the test part.")
    graph = load_graph(run)
    folder = evaluation_folder(run, part, augmented=augmented)
    folder.mkdir(exist_ok=True)  # from here on the test part has been looked at
    rows = data.rows(part)
    labels = data.labels(rows)
    outputs = predict(graph, data.images, rows, report_progress)
    if augmented:
        outputs["probabilities"] = _predict_symmetries(graph, data.images, rows, report_progress)
    metrics = measure_all(part, data, outputs["probabilities"], calibration)

    write_json(folder / "metrics.json", metrics.model_dump(mode="json"))
    draw_confusion_matrix(metrics, folder / "confusion_matrix.png")
    draw_reliability(metrics, folder / "reliability.png")
    draw_curves(read_history(run), folder / "curves.png")
    picks = _examples(labels, data.seed)
    draw_heatmaps(
        data.images[rows[picks]],
        labels[picks],
        {name: values[picks] for name, values in outputs.items()},
        folder / "heatmaps.png",
    )
    picks = _failures(labels, outputs["probabilities"])
    if len(picks):
        draw_heatmaps(
            data.images[rows[picks]],
            labels[picks],
            {name: values[picks] for name, values in outputs.items()},
            folder / "failures.png",
        )
    write_report(owner.recipe, metrics, folder / "report.md")
    return metrics


def measure_all(
    part: Part,
    data: PreparedData,
    probabilities: npt.NDArray[np.float32],
    calibration: Calibration | None,
) -> Metrics:
    """Every figure of some answers on one part: classes, calibration, thresholds, subgroups.

    Args:
        part: Which part.
        data: The dataset.
        probabilities: (num_images_of_part, 7) float32, in the part's order.
        calibration: Whose operating points are measured.
    """
    rows = data.rows(part)
    labels, groups = data.labels(rows), data.lesions(rows)
    points = calibration.operating_points if calibration else []
    return measure(part.value, labels, probabilities, groups, seed=data.seed).model_copy(
        update={
            "operating_points": measure_operating_points(
                points, labels, probabilities, groups, seed=data.seed
            ),
            "subgroups": measure_subgroups(
                labels, probabilities, groups, data.attributes(rows), seed=data.seed
            ),
            "failures": [
                Failure(
                    image=str(data.table["image_id"].iloc[rows[pick]]),
                    truth=LABELS[labels[pick]],
                    answer=LABELS[int(probabilities[pick].argmax())],
                    probability=round(float(probabilities[pick].max()), 4),
                )
                for pick in _failures(labels, probabilities)
            ],
        }
    )


def predict(
    graph: InferenceGraph,
    images: RgbImage,
    rows: npt.NDArray[np.int64],
    report_progress: Callable[[int, int], None],
) -> dict[str, npt.NDArray[np.float32]]:
    """All outputs of the graph for some rows of an image array, in their order."""
    collected: dict[str, list[npt.NDArray[np.float32]]] = {}
    for start in range(0, len(rows), BATCH_SIZE):
        batch = images[rows[start : start + BATCH_SIZE]]
        for name, values in graph.serve(tf.constant(batch)).items():
            collected.setdefault(name, []).append(values.numpy())
        report_progress(min(start + BATCH_SIZE, len(rows)), len(rows))
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def _predict_symmetries(
    graph: InferenceGraph,
    images: RgbImage,
    rows: npt.NDArray[np.int64],
    report_progress: Callable[[int, int], None],
) -> npt.NDArray[np.float32]:
    """Mean probabilities over quarter turns and mirror images: (num_rows, 7) float32."""
    answers = []
    for start in range(0, len(rows), BATCH_SIZE):
        batch = images[rows[start : start + BATCH_SIZE]]
        views = [
            graph.serve(tf.constant(view))["probabilities"].numpy() for view in symmetries(batch)
        ]
        answers.append(np.mean(views, axis=0))
        report_progress(min(start + BATCH_SIZE, len(rows)), len(rows))
    return np.concatenate(answers)


def _examples(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """One image of each class, drawn by seed and not by looks."""
    random = np.random.default_rng(seed)
    return np.array(
        [random.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)], np.int64
    )


def _failures(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """The wrong answers that were most certain, the worst first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return np.asarray(wrong[order][:NUM_FAILURES], np.int64)
