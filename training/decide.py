"""Issue an artifact anew with rules for its answers; its weights stay as they are, byte for byte.

The new folder appears whole, verified and reproducing its golden example, or not at all.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.domain.images import RgbImage
from app.domain.labels import NUM_CLASSES
from app.domain.manifest import MANIFEST_NAME, MODEL_CARD_NAME, Manifest, write_manifest
from app.domain.novelty import write_feature_space
from app.domain.rules import FEATURE_SPACE_NAME
from app.inference.models import LoadedModel
from training.cards import model_card
from training.export import ExportError, list_files, verify
from training.novelty import fit_feature_space
from training.prepare import Part, PreparedData
from training.rules import Answers, make_rules
from training.served import load_artifact, predict_all, require_split

Floats = npt.NDArray[np.float32]


def decide(
    artifact: Path,
    data: PreparedData,
    report_progress: Callable[[int, int], None],
    *,
    git_commit: str,
) -> Path:
    """Write the next version of an artifact, with rules and feature space.

    Args:
        artifact: `<name>/<version>/`, calibrated.
        data: The dataset that it was trained on.
        report_progress: Called with (images done, images in all), for each part.
        git_commit: Of this code, 40 hexadecimal digits.

    Returns:
        The new folder.

    Raises:
        ExportError: The next version exists, or the artifact was not calibrated.
        ValueError: It was trained on another split.
        ArtifactError: It must not be served.
    """
    artifact = artifact.resolve()
    model = load_artifact(artifact, fast=True)
    manifest = model.manifest
    output = artifact.parent / str(manifest.version + 1)
    if output.exists():
        raise ExportError(f"{output} exists; a published version never changes.")
    if manifest.calibration is None:
        raise ExportError(
            f"{artifact} was not calibrated; rules need probabilities that mean what they say."
        )
    require_split(manifest, data)

    _, features = _ask(model, data, Part.TRAIN, report_progress)
    space = fit_feature_space(features)
    answers = {}
    for part in (Part.VALIDATION, Part.TEST):
        probabilities, features = _ask(model, data, part, report_progress)
        rows = data.rows(part)
        answers[part] = Answers(
            probabilities, data.labels(rows), data.lesions(rows), space.residual(features)
        )
    rules = make_rules(
        answers[Part.VALIDATION],
        answers[Part.TEST],
        manifest.calibration,
        num_components=len(space.components),
        git_commit=git_commit,
        seed=data.seed,
    )

    scratch = Path(tempfile.mkdtemp(prefix=".decide-", dir=artifact.parent.parent))
    folder = scratch / manifest.name / output.name
    try:
        shutil.copytree(artifact, folder, ignore=shutil.ignore_patterns(f"{MANIFEST_NAME}*"))
        write_feature_space(space, folder / FEATURE_SPACE_NAME)
        changed = manifest.model_copy(update={"version": manifest.version + 1, "decision": rules})
        (folder / MODEL_CARD_NAME).write_text(model_card(changed), encoding="utf-8")
        fields = {**changed.model_dump(), "files": list_files(folder)}
        write_manifest(folder, Manifest.model_validate(fields))
        verify(folder)
        folder.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _ask(
    model: LoadedModel,
    data: PreparedData,
    part: Part,
    report_progress: Callable[[int, int], None],
) -> tuple[Floats, Floats]:
    """Probabilities (num_images, 7) and features (num_images, num_features) of one part."""

    def answer(images: RgbImage) -> Floats:
        outputs = model.engine.predict(images)
        return np.concatenate([outputs["probabilities"], outputs["features"]], axis=1)

    rows = data.rows(part)
    both = predict_all(answer, (data.images[row] for row in rows), len(rows), report_progress)
    return both[:, :NUM_CLASSES], both[:, NUM_CLASSES:]
