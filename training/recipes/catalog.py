"""The recipes by the name that the command line takes."""

from typing import Final

from training.config import Recipe
from training.recipes.distilled import (
    DISTILLED_DENSENET121,
    DISTILLED_DENSENET121_BALANCED,
    DISTILLED_DENSENET121_CONTINUED,
    DISTILLED_DENSENET121_HINTED,
    DISTILLED_DENSENET121_HINTED_CONTINUED,
    DISTILLED_RESNET50V2_ATTENTION,
)
from training.recipes.lite import (
    LITE_EFFICIENTNET_LITE0,
    LITE_EFFICIENTNET_LITE0_BALANCED,
    LITE_EFFICIENTNET_LITE0_BY_IMAGE,
    LITE_EFFICIENTNET_LITE0_BY_IMAGE_CONTINUED,
    LITE_EFFICIENTNET_LITE0_BY_IMAGE_MIXED,
    LITE_EFFICIENTNET_LITE0_CONTINUED,
    LITE_EFFICIENTNET_LITE0_MIRRORED,
)
from training.recipes.paper import PAPER_DENSENET121, PAPER_RESNET50V2_ATTENTION
from training.recipes.scratch import SCRATCH_DENSENET121, SCRATCH_RESNET50V2_ATTENTION
from training.recipes.transferred import (
    TRANSFERRED_RESNET50V2_ATTENTION,
    TRANSFERRED_RESNET50V2_ATTENTION_BY_IMAGE,
    TRANSFERRED_RESNET50V2_ATTENTION_CONTINUED,
)

RECIPES: Final[dict[str, Recipe]] = {
    "paper-densenet121": PAPER_DENSENET121,
    "paper-resnet50v2-attention": PAPER_RESNET50V2_ATTENTION,
    "lite-efficientnet-lite0": LITE_EFFICIENTNET_LITE0,
    "lite-efficientnet-lite0-continued": LITE_EFFICIENTNET_LITE0_CONTINUED,
    "lite-efficientnet-lite0-balanced": LITE_EFFICIENTNET_LITE0_BALANCED,
    "lite-efficientnet-lite0-mirrored": LITE_EFFICIENTNET_LITE0_MIRRORED,
    "lite-efficientnet-lite0-by-image": LITE_EFFICIENTNET_LITE0_BY_IMAGE,
    "lite-efficientnet-lite0-by-image-continued": LITE_EFFICIENTNET_LITE0_BY_IMAGE_CONTINUED,
    "lite-efficientnet-lite0-by-image-mixed": LITE_EFFICIENTNET_LITE0_BY_IMAGE_MIXED,
    "distilled-densenet121": DISTILLED_DENSENET121,
    "distilled-densenet121-continued": DISTILLED_DENSENET121_CONTINUED,
    "distilled-densenet121-balanced": DISTILLED_DENSENET121_BALANCED,
    "distilled-densenet121-hinted": DISTILLED_DENSENET121_HINTED,
    "distilled-densenet121-hinted-continued": DISTILLED_DENSENET121_HINTED_CONTINUED,
    "distilled-resnet50v2-attention": DISTILLED_RESNET50V2_ATTENTION,
    "transferred-resnet50v2-attention": TRANSFERRED_RESNET50V2_ATTENTION,
    "transferred-resnet50v2-attention-continued": TRANSFERRED_RESNET50V2_ATTENTION_CONTINUED,
    "transferred-resnet50v2-attention-by-image": TRANSFERRED_RESNET50V2_ATTENTION_BY_IMAGE,
    "scratch-densenet121": SCRATCH_DENSENET121,
    "scratch-resnet50v2-attention": SCRATCH_RESNET50V2_ATTENTION,
}
