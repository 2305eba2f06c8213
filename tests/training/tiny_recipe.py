"""The light hybrid with random weights and a narrow CNN path: what trains in seconds."""

from training.config import Backbone, Recipe

TINY = Recipe(
    "tiny",
    Backbone.EFFICIENTNET_LITE0,
    attention=True,
    cnn_filters=(4,),
    backbone_weights="none",
    frozen_layers=0,
)
