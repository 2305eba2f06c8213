"""The paper's figures 3, 4 (confusion matrices) and 5 (curves, attention maps) as PNG."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from app.domain.heatmaps import attention_heatmap, draw_overlay, grad_cam_heatmap
from app.domain.images import RgbImage
from app.domain.labels import LABELS, NUM_CLASSES
from app.domain.manifest import TrainingEpoch
from app.domain.measurements import Metrics

_DPI = 120


def draw_confusion_matrix(metrics: Metrics, path: Path) -> None:
    """Counts, shaded by the share of the true class."""
    counts = np.array(metrics.confusion_matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(NUM_CLASSES):
        for column in range(NUM_CLASSES):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(NUM_CLASSES), LABELS)
    axes.set_yticks(range(NUM_CLASSES), LABELS)
    axes.set(xlabel="answered", ylabel="true", title=f"{metrics.part}, n = {metrics.num_images}")
    figure.savefig(path, dpi=_DPI)


def draw_reliability(metrics: Metrics, path: Path) -> None:
    """Accuracy over confidence; a dot's area is its share of the images."""
    bins = metrics.reliability
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color="tab:blue")
    areas = [2000 * b.num_images / metrics.num_images for b in bins]
    axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], areas, alpha=0.5)
    title = f"{metrics.part}, expected calibration error {metrics.calibration_error:.3f}"
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=title)
    figure.savefig(path, dpi=_DPI)


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy by epoch, both parts; lines mark a change of image size."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    epochs = [entry["epoch"] + 1 for entry in history]
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [e[quantity] for e in history], marker=".", label="training")
        axes.plot(
            epochs, [e[f"validation_{quantity}"] for e in history], marker=".", label="validation"
        )
        for before, after in zip(history, history[1:], strict=False):
            if before["image_size"] != after["image_size"]:
                axes.axvline(after["epoch"] + 0.5, color="grey", linestyle=":")
                axes.text(
                    after["epoch"] + 0.55,
                    axes.get_ylim()[0],
                    f"{after['image_size']} px",
                    va="bottom",
                    fontsize=8,
                )
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.legend()
    figure.savefig(path, dpi=_DPI)


def draw_validation_curves(histories: dict[str, list[TrainingEpoch]], path: Path) -> None:
    """Validation loss and accuracy of several models by epoch.

    Args:
        histories: By the model's title; models without a history are left out.
        path: Where to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("validation_loss", "validation_accuracy"), strict=True):
        for title, history in histories.items():
            if history:
                values = [getattr(line, quantity) for line in history]
                axes.plot(range(1, len(values) + 1), values, marker=".", label=title)
        axes.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=_DPI)


def draw_heatmaps(
    images: RgbImage,
    labels: npt.NDArray[np.int64],
    outputs: dict[str, npt.NDArray[np.float32]],
    path: Path,
) -> None:
    """Each image beside its overlays; the title says what was true and what was answered.

    Args:
        images: (num_images, 224, 224, 3) uint8.
        labels: (num_images,) int64.
        outputs: The graph's outputs for these images.
        path: Where to write.
    """
    has_attention = "attention" in outputs
    num_rows = 3 if has_attention else 2
    figure = Figure(figsize=(1.9 * len(images), 2.1 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, len(images), squeeze=False)
    for column, pixels in enumerate(images):
        probabilities = outputs["probabilities"][column]
        answer = int(probabilities.argmax())
        pictures = [pixels]
        if has_attention:
            pictures.append(draw_overlay(pixels, attention_heatmap(outputs["attention"][column])))
        cam = grad_cam_heatmap(outputs["class_activation"][column], answer)
        pictures.append(draw_overlay(pixels, cam))
        for axes, picture in zip(panels[:, column], pictures, strict=True):
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
        panels[0, column].set_title(
            f"true {LABELS[labels[column]]}\n{LABELS[answer]} {probabilities[answer]:.2f}",
            fontsize=9,
        )
    names = ["image", "attention", "Grad-CAM"] if has_attention else ["image", "Grad-CAM"]
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.set_ylabel(name)
    figure.savefig(path, dpi=_DPI)
