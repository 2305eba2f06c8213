"""Recipes: what they refuse, and that the paper's are the paper's."""

import json
from dataclasses import replace
from typing import Any

import pytest

from training.config import (
    Augmentation,
    Backbone,
    CnnReduction,
    Protocol,
    Recipe,
    Schedule,
    Stage,
)
from training.recipes.catalog import RECIPES


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    recipe = RECIPES[name]
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize("name", ["paper-densenet121", "paper-resnet50v2-attention"])
def test_paper_recipes_say_what_the_paper_says(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.stages == (Stage(image_size=224, max_epochs=50, learning_rate=1e-4),)
    assert (recipe.batch_size, recipe.frozen_layers, recipe.backbone_weights) == (
        32,
        100,
        "imagenet",
    )
    assert (recipe.early_stopping_patience, recipe.plateau_patience) == (10, 5)
    assert (recipe.plateau_factor, recipe.class_weight_exponent) == (0.2, 1.0)
    assert recipe.protocol is Protocol.PAPER
    assert recipe.augmentation is Augmentation.PAPER
    assert (recipe.schedule, recipe.weight_decay) == (Schedule.PLATEAU, 0.0)
    assert (recipe.mixup, recipe.label_smoothing, recipe.average_momentum) == (0.0, 0.0, 0.0)
    assert (recipe.cnn_filters, recipe.backbone_rate) == ((64, 128, 256), 1.0)
    assert recipe.attention is (recipe.backbone is Backbone.RESNET50V2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone_weights": "none"}, "frozen_layers"),
        ({"stages": ()}, "at least one stage"),
        ({"batch_size": 0}, "batch_size"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"average_momentum": -0.1}, "average_momentum"),
        ({"mixup": -1.0}, "mixup"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_decay": 0.1, "backbone_rate": 0.0}, "use frozen_layers"),
        (
            {
                "cnn_reduction": CnnReduction.FLATTEN,
                "stages": (Stage(64, 1, 1e-3), Stage(224, 1, 1e-3)),
            },
            "flatten",
        ),
        (
            {"cnn_reduction": CnnReduction.FLATTEN, "stages": (Stage(112, 1, 1e-3),)},
            "flatten",
        ),
        ({"distillation_weight": 0.5}, "needs a teacher"),
        ({"teacher_mirrored": True}, "teacher_mirrored=True needs a teacher"),
        ({"teacher": "models/x/1"}, "would teach nothing"),
        ({"teacher": "models/x/1", "distillation_weight": 1.1}, r"in \[0, 1\]"),
        (
            {
                "teacher": "models/x/1",
                "distillation_weight": 0.5,
                "distillation_temperature": 0.0,
            },
            "temperature",
        ),
    ],
)
def test_senseless_recipes_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(RECIPES["paper-densenet121"], **changes)


@pytest.mark.parametrize(
    ("stage", "words"),
    [((16, 1, 1e-3), "image_size"), ((64, 0, 1e-3), "max_epochs"), ((64, 1, 0.0), "rate")],
)
def test_senseless_stages_are_refused(stage: tuple[int, int, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stage(*stage)


def test_unknown_fields_are_refused() -> None:
    values = RECIPES["paper-densenet121"].to_json()
    with pytest.raises(TypeError, match="surprise"):
        Recipe.from_json({**values, "surprise": 1})


def test_titles() -> None:
    assert RECIPES["paper-densenet121"].title == "CNN-DenseNet121"
    assert RECIPES["paper-resnet50v2-attention"].title == "CNN-ResNet50V2 with attention"


def test_layers_may_stay_frozen_when_an_initial_model_fills_them() -> None:
    recipe = replace(
        RECIPES["paper-densenet121"], backbone_weights="none", initial_model="models/x/1"
    )
    assert recipe.frozen_layers == 100


def test_a_share_of_an_initial_model_needs_one() -> None:
    with pytest.raises(ValueError, match="initial_share=0.5 needs an initial model"):
        replace(RECIPES["paper-densenet121"], initial_share=0.5)


def test_a_published_recipe_names_artifacts_and_no_folders() -> None:
    recipe = replace(
        RECIPES["paper-densenet121"],
        backbone_weights="/home/someone/densenet.weights.h5",
        teacher="/home/someone/models/cnn_resnet50v2_attention/2/",
        distillation_weight=0.5,
        initial_model="models/cnn_densenet121/1",
    )
    published = recipe.published()
    assert published.teacher == "cnn_resnet50v2_attention/2"
    assert published.initial_model == "cnn_densenet121/1"
    assert published.backbone_weights == "densenet.weights.h5"
    assert published.published() == published
    assert RECIPES["paper-densenet121"].published() == RECIPES["paper-densenet121"]
