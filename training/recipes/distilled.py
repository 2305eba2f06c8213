"""The paper's two hybrids with the light hybrid as their teacher.

Commands: `python -m training fit distilled-densenet121 --data data/lesion --run RUN --teacher
models/cnn_efficientnet_lite0/3 --initial-model models/cnn_densenet121/1`, and the same with
`distilled-resnet50v2-attention`; version 2 of CNN-DenseNet121 with `--precision mixed_bfloat16`.

Departures from the paper: those of version 1 (`training.recipes.scratch`), whose weights they begin
with, and those of the light hybrid (`training.recipes.lite`) but for the frozen layers: all are
trained, at one rate. In float32, for processors without bfloat16 are many times slower with it.
CNN-ResNet50V2 reached 0.7171 on the test part so, taught by version 2 of the light hybrid, whose
weights version 3 has too; `training.recipes.transferred` replaced it. CNN-DenseNet121 reached
0.6941, in bfloat16. Sizes and epochs are what two hours on 2 such cores allow; CNN-DenseNet121's,
an hour.
`fit distilled-densenet121-continued --data data/lesion --run RUN` goes on from its version 2 at
twice the image size, two hours more of idle cores: version 3, 0.7395 and balanced 0.5007. `fit
distilled-densenet121-balanced --data data/lesion --run RUN` goes on from version 4, which has its
weights, with classes weighed by all of their weight: it ended below version 4 on the validation
part and became no version. `fit distilled-densenet121-hinted --data data/lesion --run RUN` goes on
from version 4 too, and learns its teacher's maps beside its answers (`training.hints`): version 6,
0.7774 and balanced 0.5471, four and a half hours beside other work. Its accuracy was rising still,
and `fit distilled-densenet121-hinted-continued --data data/lesion --run RUN` goes on from there.
Folders that have left the tree are brought back by `git checkout 126ded9 -- models/NAME/1`, `git
checkout 062f8d4 -- models/cnn_densenet121/2` and `git checkout 36de566 --
models/cnn_densenet121/4`, their teacher by `git checkout 009e4f9 --
models/cnn_efficientnet_lite0/3`.
"""

from dataclasses import replace
from typing import Final

from training.config import Recipe, Stage
from training.recipes.lite import LITE_EFFICIENTNET_LITE0_CONTINUED
from training.recipes.paper import PAPER_DENSENET121, PAPER_RESNET50V2_ATTENTION


def _distilled(paper: Recipe, initial_model: str) -> Recipe:
    """A hybrid of the paper, taught as the light one was and by it."""
    return replace(
        LITE_EFFICIENTNET_LITE0_CONTINUED,
        name=paper.name,
        backbone=paper.backbone,
        attention=paper.attention,
        cnn_filters=paper.cnn_filters,
        backbone_weights="none",
        frozen_layers=0,
        backbone_rate=1.0,
        initial_model=initial_model,
        teacher="models/cnn_efficientnet_lite0/3",
        distillation_weight=0.7,
        distillation_temperature=2.0,
        stages=(
            Stage(image_size=96, max_epochs=6, learning_rate=1e-3),
            Stage(image_size=224, max_epochs=1, learning_rate=3e-4, steps_per_epoch=60),
        ),
    )


DISTILLED_DENSENET121: Final = replace(
    _distilled(PAPER_DENSENET121, "models/cnn_densenet121/1"),
    mixup=0.0,  # so short a run never comes to learn the training images by heart
    stages=(
        Stage(image_size=64, max_epochs=5, learning_rate=1e-3),
        Stage(image_size=112, max_epochs=1, learning_rate=5e-4, steps_per_epoch=100),
        Stage(image_size=224, max_epochs=1, learning_rate=3e-4, steps_per_epoch=40),
    ),
)
DISTILLED_DENSENET121_CONTINUED: Final = replace(
    DISTILLED_DENSENET121,
    initial_model="models/cnn_densenet121/2",
    # Another order of the images. Their distortions are those of the earlier run's next epoch:
    # `training.data` derives them from the seed and the epoch by a sum.
    seed=DISTILLED_DENSENET121.seed + 1,
    stages=(
        Stage(image_size=128, max_epochs=5, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=1, learning_rate=2e-4, steps_per_epoch=90),
    ),
)
DISTILLED_DENSENET121_BALANCED: Final = replace(
    DISTILLED_DENSENET121_CONTINUED,
    initial_model="models/cnn_densenet121/4",
    seed=DISTILLED_DENSENET121.seed + 2,
    class_weight_exponent=1.0,
    stages=(
        Stage(image_size=128, max_epochs=4, learning_rate=1e-3),
        Stage(image_size=224, max_epochs=1, learning_rate=3e-4, steps_per_epoch=100),
    ),
)
DISTILLED_DENSENET121_HINTED: Final = replace(
    DISTILLED_DENSENET121_CONTINUED,
    initial_model="models/cnn_densenet121/4",
    seed=DISTILLED_DENSENET121.seed + 20,
    hint_weight=5.0,
    stages=(
        Stage(image_size=96, max_epochs=6, learning_rate=1e-3),
        Stage(image_size=128, max_epochs=5, learning_rate=7e-4),
        Stage(image_size=224, max_epochs=1, learning_rate=3e-4, steps_per_epoch=100),
    ),
)
DISTILLED_DENSENET121_HINTED_CONTINUED: Final = replace(
    DISTILLED_DENSENET121_HINTED,
    initial_model="models/cnn_densenet121/6",
    seed=DISTILLED_DENSENET121_HINTED.seed + 20,  # other distortions too: it has twelve epochs
    stages=(
        Stage(image_size=128, max_epochs=4, learning_rate=5e-4),
        Stage(image_size=224, max_epochs=1, learning_rate=3e-4),
    ),
)
DISTILLED_RESNET50V2_ATTENTION: Final = _distilled(
    PAPER_RESNET50V2_ATTENTION, "models/cnn_resnet50v2_attention/1"
)
