"""Make a graph's 8-bit form: ranges, rounding, and the mean that rounding moves (ADR-0010)."""

from pathlib import Path
from typing import Final

import nncf
import numpy as np
import numpy.typing as npt
import openvino
from nncf.quantization.advanced_parameters import OverflowFix
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from openvino import opset13

# What `openvino.convert_model` ends with; it has no other door for a model in memory.
from openvino._offline_transformations import apply_moc_transformations

from app.domain.manifest import QUANTIZED_NAME
from training.prepare import Part, PreparedData
from training.served import BATCH_SIZE

NUM_CALIBRATION_IMAGES: Final = 300
NUM_THREADS: Final = 2

_FLOAT_TYPES: Final = ("MatMul", "Einsum", "ReduceMean", "Sigmoid")


def write_graph(folder: Path, data: PreparedData) -> None:
    """Quantise the SavedModel in a folder and put the result beside it.

    Args:
        folder: `models/NAME/VERSION`, with no 8-bit form yet.
        data: The ranges are of images of its training part.
    """
    model = openvino.Core().read_model(str(folder))
    _fold(model)
    rows = np.random.default_rng(data.seed).permutation(data.rows(Part.TRAIN))
    rows = rows[:NUM_CALIBRATION_IMAGES]
    images = [{"image": data.images[row][None]} for row in rows]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(
            names=_attention_scores(model), types=list(_FLOAT_TYPES), validate=False
        ),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # 8-bit products saturate on processors without VNNI.
            overflow_fix=OverflowFix.ENABLE,
            # The mean of the images' extremes, NNCF's own choice, cuts off what tells the
            # rare picture from the common one (docs/experiments.md, 2026-11-27).
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        ),
    )
    shift_logits(quantized, _mean_logits(model, data, rows) - _mean_logits(quantized, data, rows))
    path = folder / QUANTIZED_NAME
    path.parent.mkdir()
    openvino.save_model(quantized, path, compress_to_fp16=True)


def _mean_logits(
    model: openvino.Model, data: PreparedData, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Of some images, (7,) float32."""
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": NUM_THREADS},
    )
    batches = (data.images[rows[i : i + BATCH_SIZE]] for i in range(0, len(rows), BATCH_SIZE))
    logits = [compiled({"image": images})["logits"].copy() for images in batches]
    return np.concatenate(logits).mean(axis=0)


def shift_logits(model: openvino.Model, shift: npt.NDArray[np.float32]) -> None:
    """Add to a graph's logits, before anything is made of them.

    Rounding does not only scatter answers, it moves their mean, which is taken back so (bias
    correction: Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", ICCV 2019, section 4.2, with the images of the ranges).

    Args:
        model: Is changed; has an output `logits`.
        shift: (7,) float32.
    """
    logits = model.output("logits").get_node().input_value(0)
    consumers = list(logits.get_target_inputs())
    shifted = opset13.add(logits, opset13.constant(shift.astype(np.float32)[None])).output(0)
    for consumer in consumers:
        consumer.replace_source_output(shifted)
    names = logits.get_names()
    logits.set_names(set())
    shifted.set_names(names)
    model.validate_nodes_and_infer_types()


def _fold(model: openvino.Model) -> None:
    """Merge normalisation into convolutions, which half-precision constants prevent."""
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "Convert":
            continue
        source = operation.input_value(0).get_node()
        if source.get_type_name() == "Constant" and source.get_element_type() == openvino.Type.f16:
            constant = opset13.constant(source.data.astype(np.float32))
            operation.output(0).replace(constant.output(0))
    apply_moc_transformations(model, cf=False)


def _attention_scores(model: openvino.Model) -> list[str]:
    """Names of the convolutions that make attention: those to a single channel."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ops()
        if operation.get_type_name() == "Convolution"
        and operation.get_output_partial_shape(0)[1] == 1
    ]
