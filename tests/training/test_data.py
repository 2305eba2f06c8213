"""What the network is fed."""

from dataclasses import replace

import numpy as np
import pytest

from training.config import Augmentation, Backbone, Recipe
from training.data import (
    Examples,
    class_weights,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)

EXAMPLES = Examples(
    np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
    np.arange(10) % 7,
)


def recipe_of_four(augmentation: Augmentation = Augmentation.NONE, mixup: float = 0.0) -> Recipe:
    return Recipe(
        "x",
        Backbone.DENSENET121,
        attention=False,
        batch_size=4,
        seed=1,
        augmentation=augmentation,
        mixup=mixup,
    )


def epoch(
    epoch_index: int,
    first_step: int = 0,
    num_steps: int = 3,
    augmentation: Augmentation = Augmentation.NONE,
    mixup: float = 0.0,
) -> list[tuple[np.ndarray, ...]]:
    recipe = recipe_of_four(augmentation=augmentation, mixup=mixup)
    batches = training_batches(
        EXAMPLES,
        recipe,
        np.arange(7, dtype=np.float32),
        epoch=epoch_index,
        steps=range(first_step, num_steps),
    )
    return [tuple(t.numpy() for t in batch) for batch in batches]


def test_an_epoch_holds_every_image_once_with_its_label_and_weight() -> None:
    images, labels, weights = (np.concatenate(parts) for parts in zip(*epoch(0), strict=True))
    assert images.dtype == np.float32
    originals = EXAMPLES.images.astype(np.float32) / 255.0
    for image, label, weight in zip(images, labels, weights, strict=True):
        (row,) = np.flatnonzero((np.abs(originals - image) < 1e-6).all(axis=(1, 2, 3)))
        assert label.argmax() == EXAMPLES.labels[row] == weight
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10


def test_epochs_differ_and_repeat_by_seed() -> None:
    np.testing.assert_array_equal(epoch(0)[0][0], epoch(0)[0][0])
    assert np.abs(epoch(0)[0][0] - epoch(1)[0][0]).max() > 0.1


@pytest.mark.parametrize("augmentation", list(Augmentation))
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_resumed_epoch_goes_on_with_the_very_batches(
    augmentation: Augmentation, mixup: float
) -> None:
    whole = epoch(3, augmentation=augmentation, mixup=mixup)
    rest = epoch(3, first_step=1, augmentation=augmentation, mixup=mixup)
    assert len(rest) == len(whole) - 1
    for expected, received in zip(whole[1:], rest, strict=True):
        for a, b in zip(expected, received, strict=True):
            np.testing.assert_array_equal(a, b)


def test_mixup_mixes_images_labels_and_weights_by_one_share() -> None:
    images, labels, weights = epoch(0)[0]
    mixed_images, mixed_labels, mixed_weights = epoch(0, mixup=0.4)[0]
    for row in range(4):
        pair = np.stack([images[row].ravel(), images[3 - row].ravel()], axis=1)
        share, rest = np.linalg.lstsq(pair, mixed_images[row].ravel(), rcond=None)[0]
        assert share + rest == pytest.approx(1.0, abs=1e-4)
        label = share * labels[row] + rest * labels[3 - row]
        np.testing.assert_allclose(mixed_labels[row], label, atol=1e-4)
        weight = share * weights[row] + rest * weights[3 - row]
        assert mixed_weights[row] == pytest.approx(weight, abs=1e-3)
    assert (mixed_labels.max(axis=1) < 0.999).any()


@pytest.mark.parametrize("augmentation", [Augmentation.PAPER, Augmentation.DERMOSCOPY])
def test_augmentation_changes_images_and_keeps_the_range(augmentation: Augmentation) -> None:
    plain, distorted = epoch(0)[0][0], epoch(0, augmentation=augmentation)[0][0]
    assert np.abs(plain - distorted).mean() > 0.05
    assert distorted.min() >= 0.0
    assert distorted.max() <= 1.0


def test_evaluation_keeps_the_order() -> None:
    parts = [tuple(t.numpy() for t in batch) for batch in evaluation_batches(EXAMPLES, 4)]
    images, labels = (np.concatenate(p) for p in zip(*parts, strict=True))
    np.testing.assert_allclose(images, EXAMPLES.images / 255.0, atol=1e-6)
    np.testing.assert_array_equal(labels.argmax(axis=1), EXAMPLES.labels)


def test_metadata_go_with_their_images() -> None:
    rows = np.arange(10, dtype=np.float32)[:, None] * np.ones((1, 20), np.float32)
    examples = Examples(EXAMPLES.images, EXAMPLES.labels, rows)
    ones = np.ones(7, np.float32)
    batches = training_batches(examples, recipe_of_four(), ones, epoch=0, steps=range(3))
    numbers = []
    for inputs, labels, _ in batches:
        assert set(inputs) == {"image", "metadata"}
        for image, values, label in zip(*(inputs.values()), labels, strict=True):
            row = int(values[0])
            numbers.append(row)
            np.testing.assert_allclose(image, EXAMPLES.images[row] / 255.0, atol=1e-6)
            assert label.numpy().argmax() == EXAMPLES.labels[row]
    assert sorted(numbers) == list(range(10))
    evaluated = [inputs["metadata"].numpy() for inputs, _ in evaluation_batches(examples, 4)]
    np.testing.assert_array_equal(np.concatenate(evaluated), rows)


def test_mixup_mixes_images_labels_weights_and_metadata_by_one_share() -> None:
    # Row i: all pixels 10 i, metadata i: whatever the pairs, all must tell the same mixture.
    numbers = np.arange(7)
    images = np.broadcast_to(10 * numbers[:, None, None, None], (7, 8, 8, 3)).astype(np.uint8)
    metadata = np.repeat(numbers[:, None], 20, axis=1).astype(np.float32)
    recipe = replace(recipe_of_four(), mixup=0.5, batch_size=7)
    examples = Examples(images, numbers, metadata)
    ((inputs, labels, weights),) = training_batches(
        examples, recipe, numbers.astype(np.float32), epoch=0, steps=range(1)
    )
    expected = labels.numpy() @ numbers
    assert (np.abs(expected - np.round(expected)) > 1e-3).any()  # something was mixed
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    np.testing.assert_allclose(inputs["metadata"][:, 0], expected, atol=1e-4)
    pixels = inputs["image"].numpy()[:, 0, 0, 0]
    np.testing.assert_allclose(pixels * 25.5, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "batch", "limit", "replicas", "steps"),
    [
        (10, 4, None, 1, 3),
        (8, 4, None, 1, 2),
        (1, 32, None, 1, 1),
        (10, 4, 2, 1, 2),
        (10, 4, 9, 1, 3),
        (10, 4, None, 4, 2),
        (10, 4, None, 2, 3),
    ],
)
def test_steps_per_epoch(
    images: int, batch: int, limit: int | None, replicas: int, steps: int
) -> None:
    assert steps_per_epoch(images, batch, limit, replicas) == steps


def test_fewer_images_than_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="3 training images are too few for 4 devices"):
        steps_per_epoch(3, 8, None, 4)


def test_replicas_have_as_many_rows_each() -> None:
    ones = np.ones(7, np.float32)
    batches = training_batches(
        EXAMPLES, recipe_of_four(), ones, epoch=0, steps=range(2), num_replicas=4
    )
    assert [len(batch[1]) for batch in batches] == [4, 4]


def test_a_short_epoch_is_the_beginning_of_the_whole_one() -> None:
    whole, short = epoch(0), epoch(0, num_steps=2)
    assert len(short) == 2
    np.testing.assert_array_equal(short[1][0], whole[1][0])


def test_class_weights() -> None:
    labels = np.repeat([0, 1, 5], [10, 40, 50])
    balanced = class_weights(labels, 1.0)
    np.testing.assert_allclose(balanced[[0, 1, 5]] * [10, 40, 50], 100 / 3, rtol=1e-5)
    assert (balanced[[2, 3, 4, 6]] == 0).all()
    np.testing.assert_allclose(class_weights(labels, 0.0)[[0, 1, 5]], 1.0)
    root = class_weights(labels, 0.5)
    assert root[0] / root[1] == pytest.approx(2.0)
    assert root[labels].mean() == pytest.approx(1.0)
