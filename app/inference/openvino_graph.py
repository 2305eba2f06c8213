"""What is rewritten in a model's graph before OpenVINO compiles it; no answer changes."""

from typing import Final

import numpy as np
import openvino
from openvino import opset13 as ops

_CLASS_ACTIVATION: Final = "bhwk,bck->bchw"
"""Grad-CAM's sum over channels, as `training/inference_graph.py` writes it."""

_TO_CHANNELS_LAST: Final = [0, 2, 3, 1]


def rewrite_class_activation(model: openvino.Model) -> int:
    """Make one matrix product of Grad-CAM's sum over channels.

    OpenVINO takes an Einsum apart into a copy of the maps with their channels last, products with
    ones and the matrix product. Its convolutions keep channels first, and so does this.

    Args:
        model: Is changed. Nothing is where it has no such sum.

    Returns:
        How many were rewritten.
    """
    found = [
        operation
        for operation in model.get_ops()
        if operation.get_type_name() == "Einsum"
        and operation.get_attributes()["equation"].replace(" ", "") == _CLASS_ACTIVATION
    ]
    for einsum in found:
        maps, weights = einsum.input_values()
        height, width, _ = (maps.get_partial_shape()[axis].get_length() for axis in (1, 2, 3))
        first = _channels_first(maps)
        flat = ops.reshape(first, np.array([0, 0, -1]), special_zero=True)
        product = ops.matmul(weights, flat, transpose_a=False, transpose_b=False)
        shaped = ops.reshape(product, np.array([0, 0, height, width]), special_zero=True)
        einsum.output(0).replace(shaped.output(0))
    model.validate_nodes_and_infer_types()
    return len(found)


def _channels_first(maps: openvino.Output) -> openvino.Output:
    """What a transposition to channels last was made of, or the maps transposed back."""
    node = maps.get_node()
    if node.get_type_name() == "Transpose":
        order = node.input_value(1).get_node()
        if order.get_type_name() == "Constant" and order.get_data().tolist() == _TO_CHANNELS_LAST:
            return node.input_value(0)
    return ops.transpose(maps, np.array([0, 3, 1, 2])).output(0)
