"""Run a SavedModel; knows nothing of HTTP, files' digests or queues."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.domain.errors import ArtifactError
from app.domain.images import RgbImage

SIGNATURE: Final = "serving_default"

Outputs = dict[str, npt.NDArray[np.float32]]


class TensorFlowEngine:
    """A loaded SavedModel with the artifact contract's signature."""

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
