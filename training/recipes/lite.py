"""The light hybrid from ImageNet weights on two CPU cores, and the run that goes on from it.

Commands: `python -m training fit lite-efficientnet-lite0 --data data/lesion --run RUN` made version
1 of the artifact; `fit lite-efficientnet-lite0-continued` starts from that artifact's weights
(`--initial-model FOLDER`) and makes version 2. Hardware: 2 CPU cores shared with other work. Seed:
the recipe's.

Departures from the paper: another backbone with attention, a CNN path of a quarter of the width,
ImageNet weights of which the stem and the first three blocks (27 layers) stay as they are, a
backbone that learns at half the rate, AdamW with a cosine, averaged weights, dermoscopic
augmentation, label smoothing, the root of the class weights, most epochs at 160 pixels.

While the first run was under way its second stage was shortened before it began, from 2 epochs to
1. The second run mixes images in pairs, for the first ended with 0.85 on the training part and 0.81
on validation. While it was under way, after the first of its three epochs at 224 pixels, noise
became part of the dermoscopic augmentation: grain of one grey level had been found to move a
probability of version 1 by up to 0.35.

Test part of protocol `lesion`, once each: accuracy 0.8079 and 0.8214, balanced accuracy 0.6527 and
0.7484. Version 1's folder has left the tree with version 2: `git checkout 25f0050 --
models/cnn_efficientnet_lite0/1` brings it back.

`fit lite-efficientnet-lite0-balanced` goes on from version 3 (version 2 with its rules) for an
epoch at 224 pixels with classes weighed by all of their weight, and keeps weights halfway between
both: no share of them was better on the validation part than version 3, which stays.

`fit lite-efficientnet-lite0-mirrored` goes on from version 3 for four epochs at 224 pixels and is
taught by it: by the mean of version 3's answers to an image and to its three mirrorings, which is
better than any one of them. What is kept has 0.4 of version 3's weights, and answers for mirrorings
together too (ADR-0032): versions 4, 5 with rules, and 6 with an 8-bit form as well. Test part of
protocol `lesion`, once: accuracy 0.8298, balanced accuracy 0.7683. Version 3's folder has left the
tree since: `git checkout 009e4f9 -- models/cnn_efficientnet_lite0/3` brings it back.

`fit lite-efficientnet-lite0-by-image --data data/paper` is trained and measured on the paper's
split, in which photographs of one lesion fall into several parts; `fit
lite-efficientnet-lite0-by-image-continued --initial-model FOLDER` goes on from there with no class
weighed more than another, and `fit lite-efficientnet-lite0-by-image-mixed --initial-model FOLDER`
from that with images mixed in pairs. Their figures show what such a split adds; their models are
not served. Test part of protocol `paper`, once each: accuracy 0.8248, 0.8437 and 0.8512, balanced
0.7713, 0.7562 and 0.7578.
"""

from dataclasses import replace
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
        Stage(image_size=224, max_epochs=1, learning_rate=3e-4),
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

LITE_EFFICIENTNET_LITE0_CONTINUED: Final = replace(
    LITE_EFFICIENTNET_LITE0,
    initial_model="models/cnn_efficientnet_lite0/1",
    mixup=0.2,
    seed=LITE_EFFICIENTNET_LITE0.seed + 1,  # else it would meet the same distortions again
    stages=(
        Stage(image_size=160, max_epochs=12, learning_rate=8e-4),
        Stage(image_size=224, max_epochs=3, learning_rate=3e-4),
    ),
)

LITE_EFFICIENTNET_LITE0_BALANCED: Final = replace(
    LITE_EFFICIENTNET_LITE0_CONTINUED,
    initial_model="models/cnn_efficientnet_lite0/3",
    initial_share=0.5,
    class_weight_exponent=1.0,
    seed=LITE_EFFICIENTNET_LITE0.seed + 2,
    stages=(Stage(image_size=224, max_epochs=1, learning_rate=3e-4),),
)

LITE_EFFICIENTNET_LITE0_MIRRORED: Final = replace(
    LITE_EFFICIENTNET_LITE0_CONTINUED,
    initial_model="models/cnn_efficientnet_lite0/3",
    teacher="models/cnn_efficientnet_lite0/3",
    teacher_mirrored=True,
    mirrored=True,
    initial_share=0.4,
    distillation_weight=0.5,
    distillation_temperature=2.0,
    seed=LITE_EFFICIENTNET_LITE0.seed + 3,
    stages=(Stage(image_size=224, max_epochs=4, learning_rate=4e-4),),
)

LITE_EFFICIENTNET_LITE0_BY_IMAGE: Final = replace(
    LITE_EFFICIENTNET_LITE0,
    stages=(
        Stage(image_size=160, max_epochs=12, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=2, learning_rate=3e-4),
    ),
    protocol=Protocol.PAPER,
)

LITE_EFFICIENTNET_LITE0_BY_IMAGE_CONTINUED: Final = replace(
    LITE_EFFICIENTNET_LITE0_BY_IMAGE,
    initial_model="runs/by-image-models/cnn_efficientnet_lite0/1",
    class_weight_exponent=0.0,
    seed=LITE_EFFICIENTNET_LITE0_BY_IMAGE.seed + 1,
    stages=(
        Stage(image_size=160, max_epochs=7, learning_rate=8e-4),
        Stage(image_size=224, max_epochs=2, learning_rate=3e-4),
    ),
)

LITE_EFFICIENTNET_LITE0_BY_IMAGE_MIXED: Final = replace(
    LITE_EFFICIENTNET_LITE0_BY_IMAGE_CONTINUED,
    initial_model="runs/by-image-models/cnn_efficientnet_lite0/2",
    mixup=0.2,
    seed=LITE_EFFICIENTNET_LITE0_BY_IMAGE.seed + 2,
    stages=(
        Stage(image_size=160, max_epochs=8, learning_rate=6e-4),
        Stage(image_size=224, max_epochs=4, learning_rate=3e-4),
    ),
)
