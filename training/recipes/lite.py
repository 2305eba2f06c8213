"""The light hybrid from ImageNet weights on two CPU cores."""

from typing import Final

from training.config import Augmentation, Backbone, Protocol, Recipe, Schedule, Stage

LITE_EFFICIENTNET_LITE0: Final = Recipe(
    name="cnn_efficientnet_lite0",
    backbone=Backbone.EFFICIENTNET_LITE0,
    attention=True,
    cnn_filters=(16, 32, 64),
    frozen_layers=27,
    augmentation=Augmentation.DERMOSCOPY,
    label_smoothing=0.05,
    stages=(
        Stage(image_size=160, max_epochs=10, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=2, learning_rate=3e-4),
    ),
    class_weight_exponent=0.5,
    weight_decay=0.02,
    backbone_rate=0.5,
    schedule=Schedule.COSINE,
    warmup_steps=100,
    average_momentum=0.99,
    early_stopping_patience=50,
    protocol=Protocol.LESION,
)
