"""The paper's hybrids (figures 1 and 2) as functional Keras models.

```
image [0,1] ─┬─ backbone ── (x attention) ── backbone_maps ── average pool ─────────────────┐
             └─ 3 x (Conv 3x3, ReLU, BatchNorm, MaxPool) ── average pool | flatten ─────────┤
(metadata ───── Dense 32, ReLU ─────────────────────────────────────────────────────────────┤)
   probabilities ── softmax ── logits 7 ── Dropout 0.3 ── 256 ── Dropout 0.5 ── 512 ── features
```
"""

from pathlib import Path
from typing import Final

import keras
from keras import layers

from app.domain.labels import NUM_CLASSES
from training.config import Backbone, CnnReduction, Recipe
from training.efficientnet_lite import efficientnet_lite0, imagenet_checkpoint
from training.layers import FusedBatchNormalization, SharedDropout
from training.metadata import METADATA_WIDTH

HEAD_UNITS: Final = (512, 256)
HEAD_DROPOUT: Final = (0.5, 0.3)
METADATA_UNITS: Final = 32

# Names of the layers that export and tests look up.
BACKBONE_MAPS: Final = "backbone_maps"
ATTENTION: Final = "attention"
FEATURES: Final = "features"
HEAD_LAYERS: Final = ("head_1", "head_2", "logits")

_OWN_LAYERS: Final = ("cnn_", ATTENTION, "metadata_", "head_", HEAD_LAYERS[2])
"""How the names of weighted layers outside of the backbone begin."""

_APPLICATIONS: Final = {
    Backbone.DENSENET121: keras.applications.DenseNet121,
    Backbone.RESNET50V2: keras.applications.ResNet50V2,
}


def build_hybrid(recipe: Recipe, image_size: int) -> keras.Model:
    """Build a recipe's network with initial weights.

    Args:
        recipe: Which hybrid, with which parts.
        image_size: Side of the square input in pixels.

    Returns:
        (batch, image_size, image_size, 3) float32 in [0, 1] -> logits (batch, 7) float32;
        with metadata, a dictionary of that `image` and `metadata` (batch, 20) float32.
        `head_1`'s input is the layer `features`, of which the first values are the average
        of the layer `backbone_maps`.

    Raises:
        ValueError: The backbone's weights do not fit.
        OSError: The backbone's weights cannot be read or downloaded.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    inputs = image
    maps = _backbone_maps(recipe, image)
    if recipe.attention:
        weights = layers.Conv2D(1, 1, activation="sigmoid", name=ATTENTION)(maps)
        maps = layers.Multiply(name=BACKBONE_MAPS)([maps, weights])
    else:
        maps = layers.Identity(name=BACKBONE_MAPS)(maps)
    parts = [layers.GlobalAveragePooling2D(name="backbone_pool")(maps)]
    if recipe.cnn_path:
        parts.append(_cnn_path(image, recipe))
    if recipe.metadata:
        metadata = keras.Input((METADATA_WIDTH,), name="metadata")
        inputs = {"image": image, "metadata": metadata}
        dense = layers.Dense(METADATA_UNITS, activation="relu", name="metadata_dense")
        parts.append(dense(metadata))
    if len(parts) > 1:
        features = layers.Concatenate(name=FEATURES)(parts)
    else:
        features = layers.Identity(name=FEATURES)(parts[0])

    x = features
    for name, units, rate in zip(HEAD_LAYERS[:2], HEAD_UNITS, HEAD_DROPOUT, strict=True):
        x = layers.Dense(units, activation="relu", name=name)(x)
        x = SharedDropout(rate, name=f"{name}_dropout")(x)
    # float32 under any dtype policy, so that the loss does not overflow.
    logits = layers.Dense(NUM_CLASSES, name=HEAD_LAYERS[2], dtype="float32")(x)
    return keras.Model(inputs, logits, name=recipe.name)


def backbone_variables(model: keras.Model) -> list[keras.Variable]:
    """The trainable weights of a hybrid's backbone."""
    return [
        variable
        for layer in model.layers
        if not is_own_layer(layer)
        for variable in layer.trainable_variables
    ]


def is_own_layer(layer: keras.layers.Layer) -> bool:
    """Whether a layer with weights is none of a hybrid's backbone."""
    return bool(layer.name.startswith(_OWN_LAYERS))


def _backbone_maps(recipe: Recipe, image: keras.KerasTensor) -> keras.KerasTensor:
    weights = None if recipe.backbone_weights == "none" else recipe.backbone_weights
    if recipe.backbone is Backbone.EFFICIENTNET_LITE0:
        backbone = efficientnet_lite0(image, _lite_checkpoint(recipe.backbone_weights))
    else:
        backbone = _APPLICATIONS[recipe.backbone](
            include_top=False, weights=weights, input_tensor=image
        )
    for layer in backbone.layers[: recipe.frozen_layers]:
        layer.trainable = False
    return backbone.output


def _lite_checkpoint(weights: str) -> Path | None:
    if weights == "none":
        return None
    return imagenet_checkpoint() if weights == "imagenet" else Path(weights)


def _cnn_path(image: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    x = image
    for block, filters in enumerate(recipe.cnn_filters, start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"cnn_{block}_conv")(
            x
        )
        x = FusedBatchNormalization(name=f"cnn_{block}_norm")(x)
        x = layers.MaxPooling2D(2, name=f"cnn_{block}_pool")(x)
    if recipe.cnn_reduction is CnnReduction.FLATTEN:
        return layers.Flatten(name="cnn_flatten")(x)
    return layers.GlobalAveragePooling2D(name="cnn_pool")(x)
