"""What an artifact computes: all answers and maps of an image in one forward pass.

```
image uint8 -> /255 -> hybrid -> logits, features, (attention)
                              -> probabilities = softmax(logits / temperature)
                              -> class_activation: Grad-CAM of all seven classes
```

Grad-CAM weighs the maps that enter the average pooling by the gradient of a class's logit.
Behind a pooling that gradient is the head's Jacobian at the pooled vector over 49, which
for two ReLU layers is a product of three matrices: no backward pass through the backbone.

A mirrored graph asks the hybrid about an image and its three mirrorings at once, and answers with
the mean of the logits and of the features, and of the maps, mirrored back: Grad-CAM is linear in
the logit that it explains. So an answer is the same however a picture is mirrored.

Weights are stored once. Matrices and kernels are stored in half precision and computed with
in float32; vectors (biases, normalisation) stay in float32.
"""

from typing import Any, Final

import keras
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE
from training.architectures import ATTENTION, BACKBONE_MAPS, FEATURES, HEAD_LAYERS
from training.mirrors import mean_of_mirrorings, mirrorings

SIGNATURE: Final = "serving_default"
_ROWS_AXIS: Final = {"class_activation": 2, "attention": 1}
"""Of outputs that are maps."""


class InferenceGraph(tf.Module):
    """A trained hybrid, ready to be saved as SavedModel.

    Attributes:
        has_attention: Whether the outputs hold `attention`.
        num_parameters: Values in the model, as Keras counts them.
    """

    def __init__(
        self, model: keras.Model, temperature: float = 1.0, *, mirrored: bool = False
    ) -> None:
        """Copy a model's weights.

        Args:
            model: From `build_hybrid` at 224 pixels, under the float32 policy.
            temperature: What logits are divided by before the softmax (calibration).
            mirrored: Answer for the image and its three mirrorings together.
        """
        super().__init__(name="dermhybrid")
        self._temperature, self._mirrored = temperature, mirrored
        names = {layer.name for layer in model.layers}
        self.has_attention = ATTENTION in names
        self.num_parameters = int(model.count_params())
        wanted = [FEATURES, BACKBONE_MAPS, *HEAD_LAYERS]
        if self.has_attention:
            wanted.append(ATTENTION)
        self._view = _Untracked(
            keras.Model(model.input, {name: model.get_layer(name).output for name in wanted})
        )
        self._sources = _Untracked(stored_variables(model))
        # Attributes named with a prefix only so that checkpoints list them in order.
        self.stored = [
            tf.Variable(_to_stored(v.value), trainable=False, name=f"v{i:04d}")
            for i, v in enumerate(self._sources.value)
        ]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, MODEL_INPUT_SIZE, MODEL_INPUT_SIZE, 3], tf.uint8, name="image")
        ]
    )
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answer a batch.

        Args:
            image: (batch, 224, 224, 3) uint8 sRGB.

        Returns:
            logits (batch, 7), probabilities (batch, 7), class_activation (batch, 7, 7, 7) as
            class, row, column (signed; Grad-CAM is its positive part), features
            (batch, width), and for attention models attention (batch, 7, 7) in [0, 1];
            all float32.
        """
        values = [tf.cast(v, tf.float32) for v in self.stored]
        mapping = list(zip(self._sources.value, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            view = self._view.value
            if self._mirrored:
                image = mirrorings(image)
            layers = view(tf.cast(image, tf.float32) / 255.0, training=False)
            kernels = [_kernel(view, name) for name in HEAD_LAYERS]
            maps = layers[BACKBONE_MAPS]
            weights = _channel_weights(layers, kernels, num_channels=maps.shape[-1])
        outputs = {
            "logits": layers[HEAD_LAYERS[2]],
            "class_activation": tf.einsum("bhwk,bck->bchw", maps, weights),
            "features": layers[FEATURES],
        }
        if self.has_attention:
            outputs["attention"] = tf.squeeze(layers[ATTENTION], axis=3)
        if self._mirrored:
            outputs = {
                name: mean_of_mirrorings(values, _ROWS_AXIS.get(name))
                for name, values in outputs.items()
            }
        outputs["probabilities"] = tf.nn.softmax(outputs["logits"] / self._temperature)
        return outputs


def stored_variables(model: keras.Model) -> list[keras.Variable]:
    """A hybrid's variables in the order of `InferenceGraph.stored`.

    TensorFlow's dropout seeds are among them (int64): published artifacts hold those too.
    """
    return [variable for variable in model.variables if variable.dtype != "uint32"]


class _Untracked:
    """Hide a Keras object from `tf.Module`, or every variable would be saved twice."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _to_stored(value: tf.Tensor) -> tf.Tensor:
    value = tf.convert_to_tensor(value)
    return tf.cast(value, tf.float16 if value.shape.rank > 1 else tf.float32)


def _kernel(view: keras.Model, layer_name: str) -> tf.Tensor:
    return tf.convert_to_tensor(view.get_layer(layer_name).kernel)


def _channel_weights(
    layers: dict[str, tf.Tensor], kernels: list[tf.Tensor], num_channels: int
) -> tf.Tensor:
    """Grad-CAM's weights: d logit / d map, averaged over places: (batch, class, channel).

    A ReLU's derivative is 1 where its output is positive. Only the rows of the first matrix
    that the backbone's pooled maps feed matter.
    """
    first, second, last = kernels
    rows, columns = layers[BACKBONE_MAPS].shape[1:3]
    on_1 = tf.cast(layers[HEAD_LAYERS[0]] > 0.0, tf.float32)
    on_2 = tf.cast(layers[HEAD_LAYERS[1]] > 0.0, tf.float32)
    gradient = tf.transpose(last)[None] * on_2[:, None, :]
    gradient = _back_through(second, gradient) * on_1[:, None, :]
    gradient = _back_through(first[:num_channels], gradient)
    return gradient / float(rows * columns)


def _back_through(kernel: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """What a dense layer hands back: (batch, class, outputs) -> (batch, class, inputs).

    One product, and the small matrix transposed: as a product for each image, of the kernel's
    transpose, it took TensorFlow five times as long (1280 x 512, four images, two cores).
    """
    num_inputs, num_outputs = kernel.shape
    flat = tf.reshape(gradient, [-1, num_outputs])
    back = tf.transpose(tf.matmul(kernel, flat, transpose_b=True))
    return tf.reshape(back, [-1, gradient.shape[1], num_inputs])
