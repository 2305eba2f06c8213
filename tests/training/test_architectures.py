"""The hybrids have the parts and the parameters of the paper."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures import (
    ATTENTION,
    BACKBONE_MAPS,
    FEATURES,
    backbone_variables,
    build_hybrid,
)
from training.config import Backbone, CnnReduction, Recipe

DENSENET = Recipe(
    "densenet", Backbone.DENSENET121, attention=False, backbone_weights="none", frozen_layers=0
)
RESNET = replace(DENSENET, name="resnet", backbone=Backbone.RESNET50V2, attention=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "reduction", "parameters"),
    [
        (DENSENET, CnnReduction.POOL, 8_199_111),
        (RESNET, CnnReduction.POOL, 25_252_744),
        (DENSENET, CnnReduction.FLATTEN, 110_828_487),
        (RESNET, CnnReduction.FLATTEN, 127_882_120),
    ],
    ids=["densenet pool", "resnet pool", "densenet flatten", "resnet flatten"],
)
def test_parameters(recipe: Recipe, reduction: CnnReduction, parameters: int) -> None:
    model = build_hybrid(replace(recipe, cnn_reduction=reduction), 224)
    assert model.count_params() == parameters
    keras.backend.clear_session()


@pytest.mark.slow
def test_resnet_hybrid_has_the_papers_shapes() -> None:
    model = build_hybrid(RESNET, 224)
    shapes = {
        name: model.get_layer(name).output.shape[1:]
        for name in ("cnn_3_pool", ATTENTION, BACKBONE_MAPS, FEATURES, "head_1", "head_2", "logits")
    }
    assert shapes == {
        "cnn_3_pool": (28, 28, 256),
        ATTENTION: (7, 7, 1),
        BACKBONE_MAPS: (7, 7, 2048),
        FEATURES: (2048 + 256,),
        "head_1": (512,),
        "head_2": (256,),
        "logits": (7,),
    }
    assert model.get_layer("head_1_dropout").rate == 0.5
    assert model.get_layer("head_2_dropout").rate == 0.3


def test_ablations_leave_their_part_out() -> None:
    without_attention = build_hybrid(replace(RESNET, attention=False), 32)
    assert ATTENTION not in {layer.name for layer in without_attention.layers}
    without_cnn = build_hybrid(replace(DENSENET, cnn_path=False), 32)
    assert without_cnn.get_layer(FEATURES).output.shape[1:] == (1024,)
    assert not [layer for layer in without_cnn.layers if layer.name.startswith("cnn_")]


def test_local_weights_are_read_and_the_first_hundred_layers_kept(tmp_path: Path) -> None:
    source = keras.applications.DenseNet121(include_top=False, weights=None)
    path = tmp_path / "backbone.weights.h5"
    source.save_weights(path)
    model = build_hybrid(replace(DENSENET, backbone_weights=str(path), frozen_layers=100), 32)
    first = source.get_layer("conv1_conv").kernel.numpy()
    np.testing.assert_array_equal(model.get_layer("conv1_conv").kernel.numpy(), first)
    assert sum(not layer.trainable for layer in model.layers) == 100
    kept = [layer.name for layer in source.layers[:100] if layer.weights]
    assert not any(model.get_layer(name).trainable for name in kept)
    assert model.get_layer("conv5_block16_2_conv").trainable
    assert model.get_layer("cnn_1_conv").trainable


def test_metadata_enter_behind_the_pooled_image() -> None:
    recipe = replace(DENSENET, cnn_filters=(4, 4), metadata=True)
    model = build_hybrid(recipe, 32)
    features = model.get_layer(FEATURES)
    assert features.output.shape[1:] == (1024 + 4 + 32,)
    names = [tensor._keras_history.operation.name for tensor in features.input]
    assert names == ["backbone_pool", "cnn_pool", "metadata_dense"]
    trained = {variable.path.split("/")[0] for variable in backbone_variables(model)}
    assert "metadata_dense" not in trained

    random = np.random.default_rng(0)
    images = np.repeat(random.uniform(0, 1, (1, 32, 32, 3)), 2, axis=0).astype(np.float32)
    metadata = np.eye(2, 20, dtype=np.float32)
    logits = model({"image": images, "metadata": metadata}).numpy()
    assert np.abs(logits[0] - logits[1]).max() > 1e-6
