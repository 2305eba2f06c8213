"""The two hybrids from random weights on two CPU cores: version 1 of both artifacts."""

from dataclasses import replace
from typing import Final

from training.config import Precision, Protocol, Stage
from training.recipes.paper import PAPER_DENSENET121, PAPER_RESNET50V2_ATTENTION

SCRATCH_DENSENET121: Final = replace(
    PAPER_DENSENET121,
    backbone_weights="none",
    frozen_layers=0,
    stages=(
        Stage(image_size=64, max_epochs=5, learning_rate=1e-3),
        Stage(image_size=112, max_epochs=1, learning_rate=5e-4),
        Stage(image_size=224, max_epochs=1, learning_rate=2e-4, steps_per_epoch=100),
    ),
    class_weight_exponent=0.5,
    precision=Precision.MIXED_BFLOAT16,
    protocol=Protocol.LESION,
)

SCRATCH_RESNET50V2_ATTENTION: Final = replace(
    PAPER_RESNET50V2_ATTENTION,
    backbone_weights=SCRATCH_DENSENET121.backbone_weights,
    frozen_layers=SCRATCH_DENSENET121.frozen_layers,
    stages=SCRATCH_DENSENET121.stages,
    class_weight_exponent=SCRATCH_DENSENET121.class_weight_exponent,
    precision=SCRATCH_DENSENET121.precision,
    protocol=SCRATCH_DENSENET121.protocol,
)
