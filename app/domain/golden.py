"""The artifact's own test: known input, known answer; and the shapes every model owes.

Knows nothing of the runtime that computed the outputs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.errors import GoldenExampleError, ImageRejectedError, is_exhaustion
from app.domain.images import RgbImage, decode_image, to_model_input
from app.domain.labels import NUM_CLASSES
from app.domain.manifest import Manifest, Runtime

Outputs = Mapping[str, npt.NDArray[np.float32]]

MAP_SIZE: Final = 7
"""Rows and columns of the maps that a heatmap is drawn from: 224 / 32."""


def golden_input(directory: Path, manifest: Manifest) -> RgbImage:
    """The golden example as model input: (1, 224, 224, 3) uint8.

    Raises:
        GoldenExampleError: The picture cannot be read.
    """
    path = directory / manifest.golden_example.file
    try:
        return to_model_input(decode_image(path.read_bytes()).pixels)[None]
    except (OSError, ImageRejectedError) as error:
        if is_exhaustion(error):
            raise
        raise GoldenExampleError(f"{path}: cannot be read: {error}") from error


def check_outputs(outputs: Outputs, batch_size: int, *, has_attention: bool) -> None:
    """Check names, shapes and values of a model's outputs.

    Raises:
        GoldenExampleError: An output is missing, misshapen, not finite, or the
            probabilities do not sum to 1.
    """
    expected = {
        "logits": (batch_size, NUM_CLASSES),
        "probabilities": (batch_size, NUM_CLASSES),
        "class_activation": (batch_size, NUM_CLASSES, MAP_SIZE, MAP_SIZE),
        "features": (batch_size, outputs["features"].shape[-1] if "features" in outputs else 0),
    }
    if has_attention:
        expected["attention"] = (batch_size, MAP_SIZE, MAP_SIZE)
    if set(outputs) != set(expected):
        raise GoldenExampleError(
            f"The model's outputs are {sorted(outputs)}; its manifest promises {sorted(expected)}."
        )
    for name, shape in expected.items():
        if outputs[name].shape != shape:
            raise GoldenExampleError(
                f"Output {name!r} has shape {outputs[name].shape}; expected {shape}."
            )
        if not np.isfinite(outputs[name]).all():
            raise GoldenExampleError(f"Output {name!r} holds values that are not finite.")
    sums = outputs["probabilities"].sum(axis=1)
    if np.abs(sums - 1.0).max() > 1e-4:
        raise GoldenExampleError(f"The probabilities sum to {sums.tolist()}; expected 1.")


def check_golden(directory: Path, manifest: Manifest, outputs: Outputs, runtime: Runtime) -> None:
    """Check the outputs for `golden_input` against the manifest.

    Raises:
        GoldenExampleError: They differ by more than the manifest's tolerance.
    """
    check_outputs(outputs, 1, has_attention=manifest.has_attention)
    golden = manifest.expected(runtime)
    difference = float(np.abs(outputs["probabilities"][0] - np.array(golden.probabilities)).max())
    if difference > golden.tolerance:
        raise GoldenExampleError(
            f"{directory / golden.file}: the model's probabilities differ by {difference:.2e} "
            f"from the manifest's; at most {golden.tolerance:.0e} is rounding. The model, its "
            "runtime or this processor computes something else than what was measured."
        )
