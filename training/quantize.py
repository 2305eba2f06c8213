"""Add the 8-bit form to an artifact: quantise, compare with float32, write (ADR-0010)."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.domain.golden import Outputs, golden_input
from app.domain.labels import LABELS
from app.domain.manifest import (
    MODEL_CARD_NAME,
    SIGNATURE_SUFFIX,
    Change,
    GoldenExample,
    Manifest,
    Quantized,
    write_manifest,
)
from app.inference.openvino_engine import OpenVinoEngine
from training.cards import model_card
from training.export import list_files, verify
from training.prepare import Part, PreparedData
from training.quantized_graph import NUM_CALIBRATION_IMAGES, NUM_THREADS, write_graph
from training.served import BATCH_SIZE, require_split

MAX_ACCURACY_LOSS: Final = 0.005
MAX_RECALL_LOSS: Final = 0.02

GOLDEN_TOLERANCE: Final = 1e-2
"""A value on the edge of a quantisation step falls on either side, by processor."""


class QuantizationError(ValueError):
    """An 8-bit form that cannot be made, or must not be published."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A form's answers to many images.

    Attributes:
        probabilities: (num_images, 7) float32.
        class_activation: (num_images, 7, 7, 7) float32: class, row, column.
    """

    probabilities: npt.NDArray[np.float32]
    class_activation: npt.NDArray[np.float32]


def quantize(
    folder: Path,
    data: PreparedData,
    report_progress: Callable[[int, int], None],
    *,
    git_commit: str,
) -> Quantized:
    """Add the 8-bit form to `models/<name>/<version>/`, and its figures to manifest and card.

    Args:
        folder: The artifact; it is replaced as a whole or stays as it is. Where a kill comes
            between the two renames it is in `.quantize-*/replaced`, and the next call says so.
        data: The dataset that it was trained on, with the same split.
        report_progress: Called with (images done, images in all) of the comparison.
        git_commit: Of this code, 40 hexadecimal digits.

    Raises:
        ArtifactError: The artifact is not intact.
        QuantizationError: It has an 8-bit form, or that form answers worse than float32 by
            more than this project allows; the message has the figures.
        ValueError: It was trained on another split.
    """
    folder = folder.resolve()
    if not folder.exists() and (left := [*folder.parent.parent.glob(".quantize-*/replaced")]):
        raise QuantizationError(
            f"{folder} was being replaced when a process was killed. Put it back: "
            f"mv {left[0]} {folder}"
        )
    manifest = verify(folder)
    if manifest.quantized is not None:
        raise QuantizationError(
            f"{folder} has an 8-bit form; export the version again for a new one."
        )
    require_split(manifest, data)
    scratch = Path(tempfile.mkdtemp(prefix=".quantize-", dir=folder.parent.parent))
    made = scratch / folder.parent.name / folder.name
    try:
        shutil.copytree(folder, made, ignore=shutil.ignore_patterns(f"*{SIGNATURE_SUFFIX}"))
        write_graph(made, data)
        quantized = _measure(made, manifest, data, report_progress, git_commit)
        require_quality(quantized)
        complete = manifest.model_copy(update={"quantized": quantized})
        (made / MODEL_CARD_NAME).write_text(model_card(complete), encoding="utf-8")
        write_manifest(made, complete.model_copy(update={"files": list_files(made)}))
        verify(made)
        _exchange(folder, made, scratch / "replaced")
    finally:
        if folder.exists():  # else the artifact itself is in there
            shutil.rmtree(scratch, ignore_errors=True)
    return quantized


def _exchange(folder: Path, made: Path, replaced: Path) -> None:
    """Put what was made in the artifact's place, or leave that as it is.

    A kill between the two renames leaves the artifact at `replaced`.
    """
    folder.rename(replaced)
    try:
        made.rename(folder)
    except BaseException:
        replaced.rename(folder)
        raise


def _measure(
    folder: Path,
    manifest: Manifest,
    data: PreparedData,
    report_progress: Callable[[int, int], None],
    git_commit: str,
) -> Quantized:
    rows = data.rows(Part.VALIDATION)
    engines = [OpenVinoEngine(folder, NUM_THREADS, quantized=q) for q in (False, True)]
    before, after = (
        _answer_all(engine, data, rows, partial(_report_form, report_progress, form, len(rows)))
        for form, engine in enumerate(engines)
    )
    golden = engines[1].predict(golden_input(folder, manifest))["probabilities"][0]
    return compare(
        data.labels(rows),
        before,
        after,
        tool=f"nncf {version('nncf')}, openvino {version('openvino')}",
        git_commit=git_commit,
        num_calibration_images=min(NUM_CALIBRATION_IMAGES, len(data.rows(Part.TRAIN))),
        golden_example=GoldenExample(
            probabilities=[float(p) for p in golden], tolerance=GOLDEN_TOLERANCE
        ),
    )


def _report_form(report: Callable[[int, int], None], form: int, num_images: int, done: int) -> None:
    report(form * num_images + done, 2 * num_images)


def _answer_all(
    engine: OpenVinoEngine,
    data: PreparedData,
    rows: npt.NDArray[np.int64],
    report_progress: Callable[[int], None],
) -> Answers:
    outputs: list[Outputs] = []
    for start in range(0, len(rows), BATCH_SIZE):
        chosen = rows[start : start + BATCH_SIZE]
        outputs.append(engine.predict(data.images[chosen]))
        report_progress(start + len(chosen))
    return Answers(
        *(
            np.concatenate([o[name] for o in outputs])
            for name in ("probabilities", "class_activation")
        )
    )


def compare(
    labels: npt.NDArray[np.int64], before: Answers, after: Answers, **origin: Any
) -> Quantized:
    """Compare two forms' answers to the same images.

    Args:
        labels: (num_images,) int64 class indices.
        before: In float32.
        after: In 8 bits.
        **origin: The other fields of `Quantized`.
    """
    named = [answers.probabilities.argmax(axis=1) for answers in (before, after)]
    right = [chosen == labels for chosen in named]
    change = np.abs(after.probabilities - before.probabilities).max(axis=1)
    images = np.arange(len(labels))
    maps = [
        answers.class_activation[images, named[0]].reshape(len(labels), -1).astype(np.float64)
        for answers in (before, after)
    ]
    recall = {
        label: Change(
            before=right[0][labels == index].mean(), after=right[1][labels == index].mean()
        )
        for index, label in enumerate(LABELS)
    }
    return Quantized(
        num_images=len(labels),
        accuracy=Change(before=right[0].mean(), after=right[1].mean()),
        recall=recall,
        other_answers=(named[0] != named[1]).mean(),
        median_change=float(np.median(change)),
        largest_change=float(change.max()),
        heatmap_correlation=float(np.median(_correlation(*maps))),
        **origin,
    )


def _correlation(
    one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Pearson's, of each row; 0 where a row has one value everywhere."""
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (one, other))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    product: npt.NDArray[np.float64] = (one * other).sum(axis=1)
    return np.divide(product, norms, out=np.zeros_like(product), where=norms > 0.0)


def require_quality(quantized: Quantized) -> None:
    """Refuse an 8-bit form that answers worse than this project allows.

    Raises:
        QuantizationError: Accuracy or the recall of a class falls too far.
    """
    losses = {"accuracy": (quantized.accuracy, MAX_ACCURACY_LOSS)} | {
        f"recall of {label}": (change, MAX_RECALL_LOSS)
        for label, change in quantized.recall.items()
    }
    worse = [
        f"{name} falls from {change.before:.4f} to {change.after:.4f}, by more than {allowed}"
        for name, (change, allowed) in losses.items()
        if change.before - change.after > allowed
    ]
    if worse:
        raise QuantizationError(
            "In 8 bits it answers worse on the validation part; nothing was written: "
            + "; ".join(worse)
        )
