"""Run a SavedModel in TensorFlow."""

from pathlib import Path
from typing import Final

import tensorflow as tf

from app.domain.errors import ArtifactError, is_exhaustion
from app.domain.golden import Outputs
from app.domain.images import RgbImage
from app.domain.manifest import Runtime

SIGNATURE: Final = "serving_default"


class TensorFlowEngine:
    """A loaded SavedModel with the artifact contract's signature."""

    runtime: Runtime = "tensorflow"

    def __init__(self, directory: Path) -> None:
        """Load a SavedModel.

        Args:
            directory: Folder that holds `saved_model.pb`.

        Raises:
            ArtifactError: TensorFlow cannot load it, or the signature is missing.
        """
        try:
            self._model = tf.saved_model.load(str(directory))
            self._signature = self._model.signatures[SIGNATURE]
        except Exception as error:  # TensorFlow raises its own and Python's errors alike
            if is_exhaustion(error):
                raise
            raise ArtifactError(
                f"{directory}: TensorFlow cannot load it with signature {SIGNATURE!r}: {error}"
            ) from error

    def predict(self, images: RgbImage) -> Outputs:
        """Answer a batch; blocks the calling thread.

        Args:
            images: (batch, 224, 224, 3) uint8 sRGB.

        Returns:
            The signature's outputs by name, float32, `batch` rows each.
        """
        outputs = self._signature(image=tf.constant(images))
        return {name: values.numpy() for name, values in outputs.items()}


def use_threads(num_threads: int) -> None:
    """Set the processor threads of a model call, of all models in the process.

    Raises:
        RuntimeError: TensorFlow has run already, with another number.
    """
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
