"""EfficientNet-Lite0 is the published network, and its checkpoint is read without trust."""

import os
import pickle
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from training.efficientnet_lite import (
    efficientnet_lite0,
    imagenet_checkpoint,
    read_torch_checkpoint,
)

MILITARY_UNIFORM = 652
"""ImageNet's class of what the admiral in matplotlib's sample picture wears."""


def test_with_its_weights_it_knows_an_imagenet_class() -> None:
    picture = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    pixels = Image.open(picture).convert("RGB").resize((224, 224))
    checkpoint = read_torch_checkpoint(imagenet_checkpoint())
    model = efficientnet_lite0(keras.Input((224, 224, 3)), imagenet_checkpoint())
    maps = model(np.asarray(pixels, np.float32)[None] / 255.0, training=False).numpy()
    assert maps.shape == (1, 7, 7, 1280)
    scores = maps.mean(axis=(1, 2)) @ checkpoint["_fc.weight"].T + checkpoint["_fc.bias"]
    assert scores.argmax() == MILITARY_UNIFORM
    assert np.exp(scores[0, MILITARY_UNIFORM]) / np.exp(scores).sum() > 0.3


def test_parameters_are_the_published_ones_without_the_classifier() -> None:
    model = efficientnet_lite0(keras.Input((32, 32, 3)), None)
    # 4.65 million with the classifier of 1000 classes (the model's page), statistics apart.
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert round((trainable + 1281 * 1000) / 1e6, 2) == 4.65


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


MAGIC = 0x1950A86A20F9469CFC6C


def test_a_checkpoint_that_names_a_function_runs_nothing(tmp_path: Path) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "was-here"
    parts: tuple[object, ...] = (MAGIC, 1001, {}, Hostile(marker))
    path.write_bytes(b"".join(map(pickle.dumps, parts)))
    with pytest.raises(ValueError, match=r"hostile.pth is no legacy PyTorch checkpoint.*mkdir"):
        read_torch_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"no pickle", pickle.dumps(7), pickle.dumps(MAGIC), b"PK\x03\x04" * 20],
    ids=["empty", "text", "number", "end after the magic number", "zip"],
)
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"other.pth is no legacy PyTorch checkpoint"):
        read_torch_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(imagenet_checkpoint().read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"short.pth is no legacy PyTorch checkpoint"):
        read_torch_checkpoint(path)
