"""CNN-ResNet50V2 with attention from ImageNet weights of ResNet50, taught by the light hybrid.

Commands: `python -m training resnet50-weights --data data/lesion` writes the backbone's weights
(`training.resnet50_imagenet`), then `python -m training fit transferred-resnet50v2-attention
--data data/lesion --run RUN`. Hardware: 2 CPU cores with bfloat16 units (a step of 32 images at
96 pixels takes 0.62 of the time that it takes in float32). Seed: the recipe's.

Departures from the paper: the backbone's weights come from the first version of ResNet50; all of
it is trained, at 0.4 of the head's rate; AdamW with a cosine, averaged weights, dermoscopic
augmentation, label smoothing, the root of the class weights, half of the loss a teacher's; most
epochs at 128 pixels; bfloat16.

Test part of protocol `lesion`, once: accuracy 0.7924, balanced accuracy 0.5682.

`fit transferred-resnet50v2-attention-continued --data data/lesion --run RUN` goes on from its
artifact, version 5, for one epoch at 224 pixels, where the first run had 60 steps. In float32, for
processors without bfloat16 units; classes are weighed by all of their weight and not its root, for
balanced accuracy had fallen behind accuracy. What is kept lies halfway between version 5's weights
and those that were learnt: by the validation part it has the accuracy of the first and the balanced
accuracy of the second (docs/experiments.md). Test part of protocol `lesion`, once: accuracy 0.7874,
balanced accuracy 0.6649. Version 5's folder has left the tree since: `git checkout 9f553f2 --
models/cnn_resnet50v2_attention/5` brings it back, and `git checkout 009e4f9 --
models/cnn_efficientnet_lite0/3` the teacher.

`fit transferred-resnet50v2-attention-by-image --data data/paper --run RUN` is the same in float32
and three epochs at 128 pixels on a split by image as the paper's. Its teacher,
`lite-efficientnet-lite0-by-image` exported to `runs/by-image-models` (or `--teacher FOLDER`), has
not seen that split's test part either. Test part of protocol `paper`, once: accuracy
0.7534, balanced accuracy 0.5780.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from training.config import Precision, Protocol, Stage
from training.recipes.lite import LITE_EFFICIENTNET_LITE0
from training.recipes.paper import PAPER_RESNET50V2_ATTENTION

CARRIED_OVER_WEIGHTS: Final = Path("data/resnet50v2-imagenet.weights.h5")
"""Where `resnet50-weights` writes them."""
CARRIED_OVER_MODELS: Final = frozenset({"cnn_resnet50v2_attention/5"})
"""Published models that began with them, as recipes that go on from one name it."""

TRANSFERRED_RESNET50V2_ATTENTION: Final = replace(
    LITE_EFFICIENTNET_LITE0,
    name=PAPER_RESNET50V2_ATTENTION.name,
    backbone=PAPER_RESNET50V2_ATTENTION.backbone,
    attention=PAPER_RESNET50V2_ATTENTION.attention,
    cnn_filters=PAPER_RESNET50V2_ATTENTION.cnn_filters,
    backbone_weights=str(CARRIED_OVER_WEIGHTS),
    frozen_layers=0,
    backbone_rate=0.4,
    teacher="models/cnn_efficientnet_lite0/3",
    distillation_weight=0.5,
    distillation_temperature=2.0,
    stages=(
        Stage(image_size=128, max_epochs=5, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=1, learning_rate=2e-4, steps_per_epoch=60),
    ),
    precision=Precision.MIXED_BFLOAT16,
)

TRANSFERRED_RESNET50V2_ATTENTION_CONTINUED: Final = replace(
    TRANSFERRED_RESNET50V2_ATTENTION,
    backbone_weights="none",
    initial_model="models/cnn_resnet50v2_attention/5",
    initial_share=0.5,
    class_weight_exponent=1.0,
    seed=TRANSFERRED_RESNET50V2_ATTENTION.seed + 1,  # another order of the images
    stages=(Stage(image_size=224, max_epochs=1, learning_rate=3e-4),),
    precision=Precision.FLOAT32,
)

TRANSFERRED_RESNET50V2_ATTENTION_BY_IMAGE: Final = replace(
    TRANSFERRED_RESNET50V2_ATTENTION,
    teacher="runs/by-image-models/cnn_efficientnet_lite0/1",
    protocol=Protocol.PAPER,
    stages=(
        Stage(image_size=128, max_epochs=3, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=1, learning_rate=2e-4, steps_per_epoch=60),
    ),
    precision=Precision.FLOAT32,
)
