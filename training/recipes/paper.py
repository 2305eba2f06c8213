"""The paper's two hybrids with the paper's settings (sections III.B to III.E).

Command: `python -m training fit paper-densenet121 --data DIR --run DIR`. Needs ImageNet
weights, which Keras downloads, and in practice a GPU; no score of ours: the weights could
not be had where this project is built. The paper reports 0.8622 and 0.8128 accuracy.
"""

from typing import Final

from training.config import Backbone, Protocol, Recipe

PAPER_DENSENET121: Final = Recipe(
    name="cnn_densenet121",
    backbone=Backbone.DENSENET121,
    attention=False,
    protocol=Protocol.PAPER,
)

PAPER_RESNET50V2_ATTENTION: Final = Recipe(
    name="cnn_resnet50v2_attention",
    backbone=Backbone.RESNET50V2,
    attention=True,
    protocol=Protocol.PAPER,
)
