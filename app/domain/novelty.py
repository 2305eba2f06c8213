"""How far a picture's features lie outside of what the training images span.

The residual of ViM (Wang, Li, Feng and Zhang, "ViM: Out-of-Distribution with Virtual-logit
Matching", CVPR 2022), on its own: the length of the part of the penultimate features that the
principal components of the training part do not explain. Others were measured beside it
(docs/out-of-distribution.md).
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from app.domain.errors import ManifestError, is_exhaustion


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """What the training images span.

    Attributes:
        mean: (num_features,) float32, of the training images' features.
        components: (num_components, num_features) float32, orthonormal rows but for rounding.
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]

    def residual(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The score: 0 for features within the space, without an upper bound.

        Args:
            features: (batch, num_features) float32.

        Returns:
            (batch,) float32.
        """
        centred = features - self.mean
        outside = centred - (centred @ self.components.T) @ self.components
        return np.asarray(np.linalg.norm(outside, axis=1), np.float32)


def write_feature_space(space: FeatureSpace, path: Path) -> None:
    """Write mean and components as float16, compressed; the same bytes at every call."""
    np.savez_compressed(
        path,
        mean=space.mean.astype(np.float16),
        components=space.components.astype(np.float16),
    )


def read_feature_space(path: Path, num_components: int) -> FeatureSpace:
    """Read what `write_feature_space` wrote.

    Args:
        path: A file whose SHA-256 was checked.
        num_components: Which the manifest names.

    Raises:
        ManifestError: It cannot be read, or has another form.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            mean = stored["mean"].astype(np.float32)
            components = stored["components"].astype(np.float32)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        if is_exhaustion(error):
            raise
        raise ManifestError(f"{path}: cannot be read as a feature space: {error}.") from error
    if components.shape != (num_components, *mean.shape) or mean.ndim != 1:
        raise ManifestError(
            f"{path}: mean {mean.shape} and components {components.shape} are not of one space of "
            f"{num_components} components, which the manifest names."
        )
    return FeatureSpace(mean, components)
