"""Make an artifact of a finished and measured run, and check one that exists.

The folder appears whole, verified and reproducing its golden example, or not at all.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import tensorflow as tf

from app.domain.card import DATA_TERMS
from app.domain.golden import check_golden, golden_input
from app.domain.heatmaps import encode_png
from app.domain.images import to_model_input
from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.manifest import (
    MANIFEST_NAME,
    MODEL_CARD_NAME,
    SIGNATURE_SUFFIX,
    GoldenExample,
    InputSpec,
    Manifest,
    Training,
    TrainingEpoch,
    TrainingProcess,
    file_sha256,
    read_manifest,
    verify_files,
    write_manifest,
)
from app.domain.measurements import Metrics
from app.inference.models import Engine
from app.inference.openvino_engine import OpenVinoEngine
from app.inference.tensorflow_engine import TensorFlowEngine
from training.cards import model_card
from training.evaluate import evaluation_folder, load_graph, read_calibration
from training.inference_graph import SIGNATURE, InferenceGraph
from training.prepare import Part
from training.run_folder import read_history, read_processes, read_result, read_run_owner
from training.synthetic import draw_lesion

GOLDEN_TOLERANCE: Final = 1e-3
"""float32 on another processor moves probabilities by about 1e-5; other weights by more."""

_GOLDEN_SEED: Final = 1


class ExportError(Exception):
    """An artifact that cannot be made as asked."""


def export(run: Path, models: Path, version: int, *, git_commit: str) -> Path:
    """Write `models/<name>/<version>/`.

    Args:
        run: A finished run's folder, measured on the test part.
        models: Folder of all artifacts.
        version: Of the new one.
        git_commit: Of this code, 40 hexadecimal digits.

    Returns:
        The new folder.

    Raises:
        ExportError: It exists, the run was not measured on the test part, or its hybrid takes
            metadata.
    """
    owner = read_run_owner(run)
    if owner.recipe.metadata:
        raise ExportError(
            f"{run} holds a hybrid with metadata, which is a measured option of training; an "
            "artifact takes an image alone. Train it with metadata=False."
        )
    output = models / owner.recipe.name / str(version)
    if output.exists():
        raise ExportError(f"{output} exists; a published version never changes. Take a new one.")
    measured = evaluation_folder(run, Part.TEST) / "metrics.json"
    if not measured.exists():
        raise ExportError(
            f"{measured} is missing; run `python -m training evaluate {run} --part test`."
        )
    graph, calibration = load_graph(run), read_calibration(run)
    result = read_result(run)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=models))
    # The loader compares folder names with the manifest, so the scratch folder has them too.
    folder = scratch / owner.recipe.name / str(version)
    try:
        save_graph(graph, folder)
        golden = _write_golden(graph, folder)
        manifest = Manifest(
            name=owner.recipe.name,
            version=version,
            title=owner.recipe.title,
            classes=list(LABELS),
            input=InputSpec(),
            num_parameters=graph.num_parameters,
            has_attention=graph.has_attention,
            git_commit=git_commit,
            training=Training(
                recipe=owner.recipe.published().to_json(),
                protocol=owner.recipe.protocol.value,
                data_fingerprint=owner.data_fingerprint,
                split_seed=owner.split_seed,
                split_fingerprint=owner.split_fingerprint,
                processes=[TrainingProcess(**line) for line in read_processes(run)],
                steps=result.steps,
                epochs=result.epochs,
                seconds=result.seconds,
                hardware=result.hardware,
                history=[
                    TrainingEpoch(**{name: line[name] for name in TrainingEpoch.model_fields})
                    for line in read_history(run)
                ],
            ),
            calibration=calibration,
            metrics=Metrics.model_validate_json(measured.read_bytes()),
            golden_example=golden,
            license=f"CC BY-NC 4.0, from the data: {DATA_TERMS}",
            files={},
        )
        (folder / MODEL_CARD_NAME).write_text(model_card(manifest), encoding="utf-8")
        write_manifest(folder, manifest.model_copy(update={"files": list_files(folder)}))
        verify(folder)
        folder.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def verify(directory: Path) -> Manifest:
    """Check an artifact's manifest, every byte of it, and its golden example in every form.

    Raises:
        ArtifactError: Something is wrong; the message names the file.
    """
    manifest, _ = read_manifest(directory)
    verify_files(directory, manifest)
    image = golden_input(directory, manifest)
    engines: list[Engine] = [TensorFlowEngine(directory)]
    if manifest.quantized is not None:
        engines.append(OpenVinoEngine(directory, num_threads=1, quantized=True))
    for engine in engines:
        check_golden(directory, manifest, engine.predict(image), engine.runtime)
    return manifest


def list_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in an artifact's folder but manifest and signature, by its path."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {MANIFEST_NAME, MANIFEST_NAME + SIGNATURE_SUFFIX}
    }


def save_graph(graph: InferenceGraph, folder: Path) -> None:
    """Write a graph as SavedModel with the contract's one signature."""
    tf.saved_model.save(graph, str(folder), signatures={SIGNATURE: graph.serve})
    assets = folder / "assets"
    if not any(assets.iterdir()):
        assets.rmdir()  # git does not keep empty folders


def _write_golden(graph: InferenceGraph, folder: Path) -> GoldenExample:
    """Draw the golden picture and ask the graph in memory, not the file under test."""
    picture = draw_lesion(_GOLDEN_SEED, CLASS_INDEX["mel"])
    golden = GoldenExample(probabilities=[0.0] * len(LABELS), tolerance=GOLDEN_TOLERANCE)
    (folder / golden.file).write_bytes(encode_png(picture))
    image = tf.constant(to_model_input(picture)[None])
    probabilities = graph.serve(image)["probabilities"].numpy()
    return golden.model_copy(
        update={"probabilities": [float(p) for p in probabilities[0].astype(np.float64)]}
    )
