"""Layers of our own beside Keras's."""

import keras
import numpy as np

from training.layers import FusedBatchNormalization, SharedDropout


def test_the_kernel_normalises_as_keras_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (4, 3, 5, 6)).astype(np.float32)
    found = []
    for kind in (FusedBatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.5)
        y = layer(x, training=True)
        found.append([y.numpy(), layer.moving_mean.numpy(), layer.moving_variance.numpy()])
        found[-1].append(layer(x, training=False).numpy())
    for own, expected in zip(*found, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_dropout_on_one_device_is_keras_own() -> None:
    x = np.ones((4, 100), np.float32)
    own, expected = (
        kind(0.5, seed=3)(x, training=True) for kind in (SharedDropout, keras.layers.Dropout)
    )
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(SharedDropout(0.5)(x), x)
