"""An answer is read from its own row."""

import numpy as np
import pytest

from app.domain.errors import HeatmapUnavailableError
from app.domain.heatmaps import HeatmapMethod
from app.inference.explain import explain, interpret

PROBABILITIES = np.array(
    [[0.1, 0.5, 0.1, 0.1, 0.1, 0.05, 0.05], [0.0, 0.1, 0.0, 0.0, 0.7, 0.2, 0.0]], np.float32
)
ACTIVATION = np.random.default_rng(0).normal(size=(2, 7, 7, 7)).astype(np.float32)


ATTENTION = np.random.default_rng(1).uniform(size=(2, 7, 7)).astype(np.float32)
PLAIN = {"probabilities": PROBABILITIES, "class_activation": ACTIVATION}
WITH_ATTENTION = {**PLAIN, "attention": ATTENTION}


def test_plain_model_explains_the_predicted_class() -> None:
    answer = interpret(PLAIN, 1)
    assert answer.predicted.label == "mel"
    assert answer.confidence == pytest.approx(0.7)
    heatmap = explain(answer)
    assert heatmap.method is HeatmapMethod.GRAD_CAM
    assert heatmap.class_index == 4
    np.testing.assert_array_equal(heatmap.values, np.maximum(ACTIVATION[1, 4], 0))


def test_attention_model_shows_its_attention() -> None:
    answer = interpret(WITH_ATTENTION, 0)
    assert answer.predicted.label == "bcc"
    for heatmap in (explain(answer), explain(answer, HeatmapMethod.ATTENTION)):
        assert heatmap.method is HeatmapMethod.ATTENTION
        assert heatmap.class_index is None
        np.testing.assert_array_equal(heatmap.values, ATTENTION[0])


@pytest.mark.parametrize("outputs", [PLAIN, WITH_ATTENTION], ids=["plain", "attention"])
@pytest.mark.parametrize("method", [None, HeatmapMethod.GRAD_CAM])
def test_a_class_is_explained_by_grad_cam(
    outputs: dict[str, np.ndarray], method: HeatmapMethod | None
) -> None:
    answer = interpret(outputs, 1)
    for index in range(7):
        heatmap = explain(answer, method, index)
        assert (heatmap.method, heatmap.class_index) == (HeatmapMethod.GRAD_CAM, index)
        np.testing.assert_array_equal(heatmap.values, np.maximum(ACTIVATION[1, index], 0))


def test_grad_cam_can_be_asked_of_a_model_with_attention() -> None:
    heatmap = explain(interpret(WITH_ATTENTION, 1), HeatmapMethod.GRAD_CAM)
    assert (heatmap.method, heatmap.class_index) == (HeatmapMethod.GRAD_CAM, 4)


def test_attention_has_no_class_and_is_not_invented() -> None:
    with pytest.raises(HeatmapUnavailableError, match="has no class"):
        explain(interpret(WITH_ATTENTION, 0), HeatmapMethod.ATTENTION, 3)
    with pytest.raises(HeatmapUnavailableError, match="no attention"):
        explain(interpret(PLAIN, 0), HeatmapMethod.ATTENTION)


def test_an_answer_does_not_keep_its_batch_alive() -> None:
    answer = interpret(WITH_ATTENTION, 0)
    assert answer.attention is not None
    for values in (answer.probabilities, answer.class_activation, answer.attention):
        assert values.base is None
