"""The two hybrids from random weights on two CPU cores: version 1 of both artifacts.

Command: `python -m training fit scratch-densenet121 --data data/lesion --run RUN`, and the same
with `scratch-resnet50v2-attention`. Hardware: both at once on 2 CPU cores shared with other
work, 90 and 75 minutes. Seed: the recipe's.

Departures from the paper, all for want of ImageNet weights and of a GPU: nothing frozen,
progressive image sizes, larger steps, seven short epochs, the root of the class weights, and
bfloat16 arithmetic (on these cores 1.5 and 1.25 times as many images a second at 112 pixels).

Test part of protocol `lesion`, once: accuracy 0.6582 and 0.6921, balanced accuracy 0.4150 and
0.4316 (`models/*/1/manifest.json`). Always answering `nv` scores 0.6692 and 0.1429.

While the runs were under way their later stages were shortened twice, each time before the
stage began: from 7 to 5 epochs at 64 pixels, and from an epoch at 160 pixels to 100 steps at
224. The recipes below are what was trained. Validation accuracy jumped between 0.10 and 0.68
from epoch to epoch at a rate of 1e-3: the averages of batch normalisation lag behind.
"""

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
