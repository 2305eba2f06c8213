"""Run an artifact in OpenVINO, in float32 or 8 bits; TensorFlow is not loaded."""

from pathlib import Path

import numpy as np
import openvino

from app.domain.errors import ArtifactError, is_exhaustion
from app.domain.golden import Outputs
from app.domain.images import RgbImage
from app.domain.manifest import QUANTIZED_NAME, Runtime
from app.inference.openvino_graph import rewrite_class_activation


class OpenVinoEngine:
    """An artifact's SavedModel, or its 8-bit form, compiled for this processor.

    Attributes:
        runtime: Which of the two forms it is.
    """

    runtime: Runtime

    def __init__(self, directory: Path, num_threads: int, *, quantized: bool = False) -> None:
        """Read and compile an artifact.

        Args:
            directory: Folder that holds `saved_model.pb`.
            num_threads: Processor threads of a model call.
            quantized: Take the 8-bit form where the artifact has one.

        Raises:
            ArtifactError: OpenVINO cannot read or compile it.
        """
        in_8_bits = quantized and (directory / QUANTIZED_NAME).exists()
        self.runtime = "openvino-int8" if in_8_bits else "openvino"
        graph = directory / QUANTIZED_NAME if in_8_bits else directory
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # or processors with bfloat16 would use it
            "INFERENCE_NUM_THREADS": num_threads,
        }
        try:
            core = openvino.Core()
            model = core.read_model(str(graph))
            rewrite_class_activation(model)
            self._model = core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError for anything at all
            if is_exhaustion(error):
                raise
            raise ArtifactError(f"{directory}: OpenVINO cannot load it: {error}") from error

    def predict(self, images: RgbImage) -> Outputs:
        """Answer a batch; blocks the calling thread, one caller at a time.

        Args:
            images: (batch, 224, 224, 3) uint8 sRGB.

        Returns:
            The signature's outputs by name, float32, `batch` rows each.
        """
        outputs = self._model({"image": images})
        return {port.get_any_name(): np.array(values) for port, values in outputs.items()}
