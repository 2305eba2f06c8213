"""The student's loss is Hinton's, and the teacher leaves no trace in what is saved."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tiny_artifact import TinyModel
from tests.training.tiny_recipe import TINY
from training.architectures import build_hybrid
from training.distillation import (
    DistilledHybrid,
    answers_alone,
    logits_of,
    mirrored,
    teacher_view,
)
from training.hints import hint_maps

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 1, (5, 32, 32, 3)).astype(np.float32)
LABELS = np.eye(7, dtype=np.float32)[[0, 1, 2, 3, 4]]
WEIGHTS = np.array([0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
TEACHER = TinyModel(attention=False, seed=1)


def teach(images: tf.Tensor) -> tf.Tensor:
    return TEACHER.serve(images)["logits"]


def student() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3), name="image")
    pooled = keras.layers.AveragePooling2D(8)(image)
    logits = keras.layers.Dense(7)(keras.layers.Flatten()(pooled))
    return keras.Model(image, logits, name="student")


def distilled(weight: float, temperature: float = 1.0, rate: float = 0.0) -> DistilledHybrid:
    model = DistilledHybrid(student(), answers_alone(teach), weight=weight, temperature=temperature)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 2.0), (1.0, 1.0), (0.7, 4.0)])
def test_the_loss_is_the_weighted_sum_of_both_cross_entropies(
    weight: float, temperature: float
) -> None:
    model = distilled(weight, temperature)
    logits = model(IMAGES).numpy().astype(np.float64)
    views = np.stack([np.asarray(teacher_view(IMAGES[i : i + 1]))[0] for i in range(5)])
    targets = softmax(teach(tf.constant(views)).numpy().astype(np.float64) / temperature)
    hard = -(LABELS * np.log(softmax(logits))).sum(axis=1) * WEIGHTS
    soft = -(targets * np.log(softmax(logits / temperature))).sum(axis=1)
    expected = ((1 - weight) * hard + weight * temperature**2 * soft).mean()

    def loss(inputs: object, *, training: bool) -> float:
        return float(model.compute_loss(inputs, LABELS, model(IMAGES), WEIGHTS, training=training))

    assert loss(IMAGES, training=True) == pytest.approx(expected, rel=1e-4)
    with_metadata = {"image": IMAGES, "metadata": np.zeros((5, 20), np.float32)}
    assert loss(with_metadata, training=True) == pytest.approx(expected, rel=1e-4)
    assert loss(IMAGES, training=False) == pytest.approx(hard.mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_hints_add_what_is_unexplained_to_training_and_nothing_to_validation() -> None:
    keras.utils.set_random_seed(2)
    student, teacher = (build_hybrid(TINY, size) for size in (32, 224))
    show = keras.Model(teacher.input, [teacher.output, *hint_maps(teacher)])

    def lesson(images: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, *maps = show(tf.cast(images, tf.float32) / 255.0)
        return logits, maps

    channels = [each.shape[-1] for each in hint_maps(teacher)]
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        model = DistilledHybrid(
            student, lesson, weight=0.5, temperature=2.0, hint_weight=weight, hint_channels=channels
        )
        model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
        outputs = model(IMAGES)
        np.testing.assert_array_equal(logits_of(outputs), student(IMAGES))
        if weight:
            maps = model._hints(outputs["maps"], lesson(teacher_view(IMAGES))[1])
            unexplained = float(maps)
        losses[weight] = [
            float(model.compute_loss(IMAGES, LABELS, outputs, WEIGHTS, training=training))
            for training in (True, False)
        ]
    assert unexplained > 0.1
    assert losses[1.0][0] - losses[0.0][0] == pytest.approx(unexplained, rel=1e-3)
    assert losses[3.0][0] - losses[0.0][0] == pytest.approx(3.0 * unexplained, rel=1e-3)
    assert losses[3.0][1] == pytest.approx(losses[0.0][1])


def test_a_mirrored_teacher_answers_with_the_mean_over_the_four_mirrorings() -> None:
    images = RANDOM.integers(0, 256, (3, 224, 224, 3), np.uint8)
    rows, columns = (1,), (2,)
    views = [images, *(np.flip(images, axes) for axes in (rows, columns, rows + columns))]
    corner = [view[:, 0, :7, 0] / 255.0 for view in views]

    def sees_a_corner(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(images[:, 0, :7, 0], tf.float32) / 255.0

    received = mirrored(sees_a_corner)(tf.constant(images)).numpy()
    np.testing.assert_allclose(received, np.mean(corner, axis=0), atol=1e-6)


def test_fit_follows_the_teacher_and_its_accuracy_counts_true_labels() -> None:
    answers = teach(teacher_view(IMAGES)).numpy().argmax(axis=1)
    wrong = np.eye(7, dtype=np.float32)[(answers + 1) % 7]
    model = distilled(1.0, rate=0.2)
    before = model.train_on_batch(IMAGES, wrong, return_dict=True)["loss"]
    logs = model.fit(IMAGES, wrong, epochs=40, verbose=0).history
    assert logs["loss"][-1] < before
    assert (model.predict(IMAGES, verbose=0).argmax(axis=1) == answers).all()
    assert logs["accuracy"][-1] == 0.0
    loss, accuracy = model.evaluate(IMAGES, wrong, verbose=0)
    assert accuracy == 0.0
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert loss == pytest.approx(float(plain(wrong, model(IMAGES))), rel=1e-4)


def test_checkpoints_and_weight_files_are_the_students_alone(tmp_path: Path) -> None:
    model = distilled(0.5)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    keys = [key for key, _ in tf.train.list_variables(str(tmp_path / "checkpoint"))]
    assert [key for key in keys if "kernel" in key]
    assert not [key for key in keys if "teacher" in key]
    model.layers[-1].kernel.assign_add(tf.ones_like(model.layers[-1].kernel))
    model.save_weights(tmp_path / "student.weights.h5")
    fresh = student()
    fresh.load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_allclose(fresh(IMAGES), model(IMAGES))


def test_the_teacher_sees_the_students_pixels_at_its_own_size() -> None:
    pixels = RANDOM.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    view = teacher_view(tf.constant(pixels.astype(np.float32) / 255.0))
    assert view.dtype == tf.uint8
    np.testing.assert_array_equal(view, pixels)
    small = teacher_view(tf.fill([1, 32, 32, 3], 0.25 + 0.4 / 255.0))  # 64.15
    assert small.shape == (1, 224, 224, 3)
    assert (small.numpy() == 64).all()
    assert (teacher_view(tf.fill([1, 32, 32, 3], 63.6 / 255.0)).numpy() == 64).all()
