"""Choose what runs the models; a runtime that was not chosen is not loaded."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from app.domain.manifest import Runtime
from app.inference.models import Engine
from app.inference.processors import available_processors


def engine_maker(runtime: Runtime, num_threads: int | None = None) -> Callable[[Path], Engine]:
    """Make the function that loads a SavedModel.

    Args:
        runtime: What runs it; `openvino-int8` runs an artifact without an 8-bit form in float32.
        num_threads: Processor threads of a model call; None for `available_processors`.

    Returns:
        Takes an artifact's folder, raises `ArtifactError` where it cannot be loaded.

    Raises:
        ImportError: The runtime's package is not installed.
    """
    available = available_processors()
    if runtime != "tensorflow":
        from app.inference.openvino_engine import OpenVinoEngine

        return partial(
            OpenVinoEngine,
            num_threads=num_threads or available,
            quantized=runtime == "openvino-int8",
        )
    from app.inference.tensorflow_engine import TensorFlowEngine, use_threads

    # By itself, TensorFlow takes all that the process may run on, whatever its quota.
    if num_threads is not None or available < len(os.sched_getaffinity(0)):
        use_threads(num_threads or available)
    return TensorFlowEngine
