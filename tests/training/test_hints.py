"""A student learns to tell its teacher's maps, and nothing of that is left in what is kept."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.architectures import BACKBONE_MAPS, build_hybrid
from training.config import Backbone, Recipe
from training.hints import Hints, hint_maps

TWO_DEVICES = """
import tensorflow as tf
from training.hints import Hints

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
maps = [tf.random.stateless_normal([4, size, size, 3], [size, 0]) for size in (12, 6, 3)]
taught = [tf.random.stateless_normal([4, size, size, 5], [size, 1]) for size in (12, 6, 3)]
with strategy.scope():
    hints = Hints((5, 5, 5))
    hints.build([each.shape for each in maps])

def rows(context):
    first = 2 * context.replica_id_in_sync_group
    return [[each[first : first + 2] for each in some] for some in (maps, taught)]

shared = strategy.experimental_distribute_values_from_function(rows)
losses = tf.function(lambda: strategy.run(hints, args=shared))()
print(float(hints(maps, taught)), float(strategy.reduce("SUM", losses, axis=None)))
"""
RANDOM = np.random.default_rng(0)


def maps(size: int, channels: int, rows: int = 4) -> tf.Tensor:
    values = RANDOM.normal(2.0, 3.0, (rows, size, size, channels))
    return tf.constant(values.astype(np.float32))


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "attention", "channels"),
    [
        (Backbone.DENSENET121, False, [256, 512, 1024]),
        (Backbone.RESNET50V2, True, [128, 256, 2048]),
        (Backbone.EFFICIENTNET_LITE0, True, [240, 672, 1280]),
    ],
)
def test_hints_are_the_last_maps_of_each_stride_of_the_backbone(
    backbone: Backbone, attention: bool, channels: list[int]
) -> None:
    recipe = Recipe("tiny", backbone, attention=attention, backbone_weights="none", frozen_layers=0)
    hybrid = build_hybrid(recipe, 96)
    found = hint_maps(hybrid)
    expected = [(None, 96 // s, 96 // s, c) for s, c in zip((8, 16, 32), channels, strict=True)]
    assert [tuple(each.shape) for each in found] == expected
    assert found[-1] is hybrid.get_layer(BACKBONE_MAPS).output  # what the heatmap is made of


def test_unexplained_is_the_mean_square_by_which_standardised_maps_are_missed() -> None:
    own = [maps(size, 3) for size in (12, 6, 3)]
    taught = [maps(size, channels) for size, channels in zip((12, 6, 3), (5, 6, 7), strict=True)]
    hints = Hints((5, 6, 7))
    hints.build([each.shape for each in own])
    assert float(hints(own, taught)) == pytest.approx(1.0, rel=1e-4)  # it tells nothing yet

    errors = []
    for projection, mine, other in zip(hints.weights[::2], own, taught, strict=True):
        projection.assign(RANDOM.normal(0, 0.1, projection.shape))
        told = standardised(np.asarray(mine)) @ np.asarray(projection)
        errors.append(np.square(told - standardised(np.asarray(other))).mean())
    assert float(hints(own, taught)) == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_teachers_larger_maps_are_averaged_over_the_students_places(compiled: bool) -> None:
    own = [maps(size, 3) for size in (8, 4, 3)]
    taught = [maps(size, 5) for size in (28, 14, 7)]  # at 224 pixels
    hints = Hints((5, 5, 5))
    hints.build([each.shape for each in own])
    for weight in hints.weights:
        weight.assign(RANDOM.normal(0, 0.3, weight.shape))

    def averaged(large: tf.Tensor, size: int) -> tf.Tensor:
        # Every place cut into as many parts as there are averages, so that means are plain ones.
        fine = np.repeat(np.repeat(np.asarray(large), size, axis=1), size, axis=2)
        parts = fine.reshape(len(fine), size, large.shape[1], size, large.shape[2], -1)
        return tf.constant(parts.mean((2, 4)))

    small = [averaged(each, mine.shape[1]) for each, mine in zip(taught, own, strict=True)]
    ask = tf.function(hints, jit_compile=compiled)
    assert float(ask(own, taught)) == pytest.approx(float(hints(own, small)), rel=1e-4)


def test_two_devices_add_up_to_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, check=True
    )
    whole, together = map(float, done.stdout.split())
    assert together == pytest.approx(whole, rel=1e-5)


def test_learning_explains_what_can_be_explained() -> None:
    own = [maps(size, 6) for size in (12, 6, 3)]
    mixing = [RANDOM.normal(0, 1, (6, 5)).astype(np.float32) for _ in own]
    taught = [
        tf.constant(standardised(np.asarray(each)) @ matrix)
        for each, matrix in zip(own, mixing, strict=True)
    ]
    hints = Hints((5, 5, 5))
    hints.build([each.shape for each in own])
    optimizer = keras.optimizers.Adam(0.02)
    losses = []
    for _ in range(150):
        with tf.GradientTape() as tape:
            loss = hints(own, taught)
        losses.append(float(loss))
        gradients = tape.gradient(loss, hints.trainable_variables)
        optimizer.apply_gradients(zip(gradients, hints.trainable_variables, strict=True))
    assert losses[-1] < 0.4 * losses[0]
