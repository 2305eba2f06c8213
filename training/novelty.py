"""Find what the training images span, and how far other images lie outside of it."""

from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from app.domain.novelty import FeatureSpace

EXPLAINED_VARIANCE: Final = 0.99
"""Of the training images' features; chosen without a look at foreign pictures."""


def fit_feature_space(features: npt.NDArray[np.float32]) -> FeatureSpace:
    """The least number of principal components that explain enough, as they are stored.

    Args:
        features: (num_images, num_features) float32 of the training part.

    Returns:
        Rounded to float16 and back, so that thresholds are of what is served.
    """
    # An exact, deterministic decomposition: signs and order are the same at every call.
    found = PCA(svd_solver="covariance_eigh").fit(features.astype(np.float64))
    explained = np.cumsum(found.explained_variance_ratio_)
    # Nothing lies outside of all components.
    count = min(int(np.searchsorted(explained, EXPLAINED_VARIANCE)) + 1, len(explained) - 1)
    return FeatureSpace(
        found.mean_.astype(np.float16).astype(np.float32),
        found.components_[:count].astype(np.float16).astype(np.float32),
    )
