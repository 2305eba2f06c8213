"""Rewriting a graph changes no answer."""

from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from app.inference.openvino_graph import rewrite_class_activation
from tests.conftest import REPOSITORY

MODELS = sorted((REPOSITORY / "models").glob("*/*/saved_model.pb"))
RNG = np.random.default_rng(0)


def answers(model: openvino.Model, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {port.get_any_name(): np.array(v) for port, v in compiled(inputs).items()}


def sum_over_channels(equation: str, *, transposed: bool) -> openvino.Model:
    shape = [-1, 5, 2, 3] if transposed else [-1, 2, 3, 5]
    given = ops.parameter(shape, np.float32)
    maps = ops.transpose(given, np.array([0, 2, 3, 1])) if transposed else given
    weights = ops.parameter([-1, 7, 5], np.float32)
    summed = ops.einsum([maps, weights], equation)
    summed.output(0).set_names({"class_activation"})
    return openvino.Model([summed], [given, weights])


@pytest.mark.parametrize("transposed", [True, False])
def test_grad_cam_is_the_sum_over_channels(*, transposed: bool) -> None:
    maps = RNG.standard_normal((4, 2, 3, 5), np.float32)
    weights = RNG.standard_normal((4, 7, 5), np.float32)
    model = sum_over_channels("bhwk,bck->bchw", transposed=transposed)
    assert rewrite_class_activation(model) == 1
    assert "Einsum" not in {operation.get_type_name() for operation in model.get_ops()}
    given = np.ascontiguousarray(maps.transpose(0, 3, 1, 2)) if transposed else maps
    found = answers(model, given, weights)["class_activation"]
    expected = np.einsum("bhwk,bck->bchw", maps, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_another_sum_is_left_as_it_is() -> None:
    model = sum_over_channels("bhwk,bck->bhwc", transposed=False)
    assert rewrite_class_activation(model) == 0
    assert "Einsum" in {operation.get_type_name() for operation in model.get_ops()}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parts[-3])
def test_a_committed_model_answers_as_before(path: Path) -> None:
    plain, rewritten = (openvino.Core().read_model(str(path.parent)) for _ in range(2))
    assert rewrite_class_activation(rewritten) == 1
    images = RNG.integers(0, 256, (2, 224, 224, 3), np.uint8)
    before, after = answers(plain, images), answers(rewritten, images)
    assert before.keys() == after.keys()
    for output, values in before.items():
        np.testing.assert_allclose(after[output], values, rtol=1e-4, atol=1e-5, err_msg=output)
