"""Measure a run's result on one part of the data, with the graph that is exported.

```
RUN/evaluation-<part>/
    metrics.json       app.domain.manifest.Metrics
    report.md          the same for a person, with the figures
    confusion_matrix.png  curves.png  heatmaps.png
```
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.manifest import Metrics
from training.architectures import build_hybrid
from training.figures import draw_confusion_matrix, draw_curves, draw_heatmaps
from training.inference_graph import InferenceGraph
from training.metrics import measure
from training.prepare import Part, PreparedData
from training.report import write_report
from training.run_folder import (
    best_weights,
    check_data,
    read_history,
    read_result,
    read_run_owner,
)

BATCH_SIZE: Final = 32


def load_graph(run: Path) -> InferenceGraph:
    """The inference graph of a finished run, with its best weights.

    Raises:
        RunError: The run is not finished.
    """
    result = read_result(run)
    keras.mixed_precision.set_global_policy("float32")
    # Every weight comes from the run: neither download nor read the backbone's initial ones.
    recipe = replace(read_run_owner(run).recipe, backbone_weights="none", frozen_layers=0)
    model = build_hybrid(recipe, MODEL_INPUT_SIZE)
    model.load_weights(best_weights(run, result.best_epoch))
    return InferenceGraph(model)


def evaluation_folder(run: Path, part: Part) -> Path:
    """Where `evaluate` leaves its files."""
    return run / f"evaluation-{part.value}"


def evaluate(
    run: Path,
    data: PreparedData,
    part: Part,
    report_progress: Callable[[int, int], None],
) -> Metrics:
    """Measure a run and write the report.

    Args:
        run: A finished run's folder.
        data: The dataset it was trained on.
        part: Which part to measure on; test once per recipe.
        report_progress: Called with (images done, images in all).

    Returns:
        The figures.

    Raises:
        RunError: The run is not finished, or was trained on other data.
    """
    owner = check_data(run, data)
    graph = load_graph(run)
    rows = data.rows(part)
    labels = data.labels(rows)
    outputs = predict(graph, data.images, rows, report_progress)
    groups = data.table["lesion_id"].to_numpy()[rows]
    metrics = measure(part.value, labels, outputs["probabilities"], groups, seed=data.seed)

    folder = evaluation_folder(run, part)
    folder.mkdir(exist_ok=True)
    text = json.dumps(metrics.model_dump(mode="json"), indent=2) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    draw_confusion_matrix(metrics, folder / "confusion_matrix.png")
    draw_curves(read_history(run), folder / "curves.png")
    picks = _examples(labels, data.seed)
    draw_heatmaps(
        data.images[rows[picks]],
        labels[picks],
        {name: values[picks] for name, values in outputs.items()},
        folder / "heatmaps.png",
    )
    write_report(owner.recipe, metrics, folder / "report.md")
    return metrics


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


def _examples(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """One image of each class, drawn by seed and not by looks."""
    random = np.random.default_rng(seed)
    return np.array(
        [random.choice(np.flatnonzero(labels == label)) for label in np.unique(labels)], np.int64
    )
