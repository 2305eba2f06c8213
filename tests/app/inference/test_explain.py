"""An answer is read from its own row."""

import numpy as np
import pytest

from app.domain.heatmaps import HeatmapMethod
from app.inference.explain import interpret

PROBABILITIES = np.array(
    [[0.1, 0.5, 0.1, 0.1, 0.1, 0.05, 0.05], [0.0, 0.1, 0.0, 0.0, 0.7, 0.2, 0.0]], np.float32
)
ACTIVATION = np.random.default_rng(0).normal(size=(2, 7, 7, 7)).astype(np.float32)


def test_plain_model_explains_the_predicted_class() -> None:
    outputs = {"probabilities": PROBABILITIES, "class_activation": ACTIVATION}
    answer = interpret(outputs, 1)
    assert answer.predicted.label == "mel"
    assert answer.confidence == pytest.approx(0.7)
    assert answer.heatmap.method is HeatmapMethod.GRAD_CAM
    assert answer.heatmap.class_index == 4
    np.testing.assert_array_equal(answer.heatmap.values, np.maximum(ACTIVATION[1, 4], 0))


def test_attention_model_shows_its_attention() -> None:
    attention = np.random.default_rng(1).uniform(size=(2, 7, 7)).astype(np.float32)
    outputs = {
        "probabilities": PROBABILITIES,
        "class_activation": ACTIVATION,
        "attention": attention,
    }
    answer = interpret(outputs, 0)
    assert answer.predicted.label == "bcc"
    assert answer.heatmap.method is HeatmapMethod.ATTENTION
    assert answer.heatmap.class_index is None
    np.testing.assert_array_equal(answer.heatmap.values, attention[0])
