"""A hybrid that also learns from another model's answers to the very same images.

```
images ─┬─ student ─┬─ logits ─┬─ (1 - w) x cross-entropy with the labels, sample weights ─┐
        │           │          └─ w x T^2 x cross-entropy at temperature T ────────────────┤
        │           └─ maps ────── h x what they leave unexplained of the teacher's maps ──┤
        └─ 224 px, uint8 ── teacher ── logits / T ── softmax; maps                       loss
```

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; teacher and
student see one view, augmentation and mixup included, as in Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent", CVPR 2022. ADR-0005.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import keras
import tensorflow as tf

from app.domain.images import MODEL_INPUT_SIZE
from training.hints import Hints, hint_maps
from training.mirrors import mean_of_mirrorings, mirrorings

Answers = Callable[[tf.Tensor], tf.Tensor]
"""(batch, 224, 224, 3) uint8 -> logits (batch, 7) float32."""

Lessons = Callable[[tf.Tensor], tuple[tf.Tensor, Sequence[tf.Tensor]]]
"""The same images -> logits, and maps (batch, rows, columns, channels), for each hint one."""

_LOGITS: Final = "logits"
_MAPS: Final = "maps"


class DistilledHybrid(keras.Model):
    """A student with its parent's layers and weights; validation measures the labels alone."""

    def __init__(
        self,
        student: keras.Model,
        teacher: Lessons,
        *,
        weight: float,
        temperature: float,
        hint_weight: float = 0.0,
        hint_channels: Sequence[int] = (),
    ) -> None:
        """Wrap a student's layers.

        Args:
            student: From `build_hybrid`; this model shares its layers.
            teacher: A plain function or method: checkpoints would hold the variables of a
                `tf.Module` too.
            weight: Share of the loss that the teacher's answers have, in [0, 1].
            temperature: What both networks' logits are divided by for that share.
            hint_weight: What the hints' loss is multiplied by; 0: there are none.
            hint_channels: Of the teacher's maps.
        """
        maps = hint_maps(student) if hint_weight else []
        outputs = {_LOGITS: student.output, _MAPS: maps} if maps else student.output
        super().__init__(student.input, outputs, name=student.name)
        self._teacher = teacher
        self._weight = weight
        self._temperature = temperature
        self._hint_weight = hint_weight
        if maps:
            self._hints = Hints(hint_channels)
            self._hints.build([each.shape for each in maps])
        # The Kullback-Leibler divergence up to the teacher's entropy, which has no gradient.
        self._imitation = keras.losses.CategoricalCrossentropy(from_logits=True)

    def compute_loss(
        self,
        x: tf.Tensor | Mapping[str, tf.Tensor],
        y: tf.Tensor,
        y_pred: tf.Tensor | Mapping[str, Any],
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss of a batch.

        Args:
            x: Images (batch, size, size, 3) float32 in [0, 1], alone or as `image` beside
                other inputs.
            y: Labels (batch, 7) float32 that sum to 1.
            y_pred: The student's logits (batch, 7) float32, and with hints its maps.
            sample_weight: (batch,) float32, of the labels' share alone: the teacher's answers
                tell classes apart without regard to how rare they are.
            training: Otherwise the labels' cross-entropy is the whole loss.

        Returns:
            () float32.
        """
        logits = logits_of(y_pred)
        loss = super().compute_loss(x, y, logits, sample_weight, training=training)
        if not training:
            return loss
        images = x["image"] if isinstance(x, Mapping) else x
        answers, maps = self._teacher(teacher_view(images))
        targets = tf.nn.softmax(answers / self._temperature)
        # Gradients of softened targets shrink with T^2 (Hinton et al., section 2).
        imitation = self._temperature**2 * self._imitation(targets, logits / self._temperature)
        loss = (1.0 - self._weight) * loss + self._weight * imitation
        if self._hint_weight:
            loss += self._hint_weight * self._hints(y_pred[_MAPS], maps)
        return loss


def logits_of(outputs: tf.Tensor | Mapping[str, Any]) -> tf.Tensor:
    """The logits (batch, 7) float32 among the outputs of a hybrid that is trained."""
    return outputs[_LOGITS] if isinstance(outputs, Mapping) else outputs


def answers_alone(teacher: Answers) -> Lessons:
    """A teacher that shows nobody its maps."""
    return lambda images: (teacher(images), ())


def mirrored(teacher: Answers) -> Answers:
    """A teacher that answers alike however a picture is mirrored, at four times the work.

    The mean of the logits is that of the log-probabilities, up to what a softmax takes away.
    """

    def answer(images: tf.Tensor) -> tf.Tensor:
        return mean_of_mirrorings(teacher(mirrorings(images)))

    return answer


def teacher_view(images: tf.Tensor) -> tf.Tensor:
    """A student's batch as an artifact takes it.

    Args:
        images: (batch, size, size, 3) float32 in [0, 1].

    Returns:
        (batch, 224, 224, 3) uint8, resized bilinearly and rounded.
    """
    resized = tf.image.resize(images, (MODEL_INPUT_SIZE, MODEL_INPUT_SIZE), "bilinear")
    return tf.cast(tf.clip_by_value(tf.round(resized * 255.0), 0.0, 255.0), tf.uint8)
