"""What a training run is: a frozen `Recipe`; an ablation is `replace(BASE, attention=False)`.

Knows nothing of TensorFlow, so that recipes can be read and checked anywhere.
"""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

PAPER_FROZEN_LAYERS = 100
"""Layers of a pre-trained backbone that stay as they are (the paper, section III.D)."""

DISTILLATION_WEIGHT = 0.5
DISTILLATION_TEMPERATURE = 2.0
"""What a run takes where only a teacher is named; choices, not measured (ADR-0005)."""


class Backbone(StrEnum):
    """The pre-trainable half of a hybrid, by its published name."""

    DENSENET121 = "DenseNet121"
    RESNET50V2 = "ResNet50V2"
    EFFICIENTNET_LITE0 = "EfficientNet-Lite0"


class Augmentation(StrEnum):
    """How training images are distorted (`training.augment.RANGES`)."""

    NONE = "none"
    PAPER = "paper"
    """Rotation, shifts, shear, zoom, horizontal flip (section III.B)."""

    DERMOSCOPY = "dermoscopy"
    """Also quarter turns and vertical flips, for a lesion has no upright, and colour."""


class Schedule(StrEnum):
    """How the learning rate falls within a stage."""

    PLATEAU = "plateau"
    """By a factor when the validation loss stalls (the paper, section III.D)."""

    COSINE = "cosine"
    """To zero over the stage's epochs along half a cosine (Loshchilov and Hutter, 2017)."""


class CnnReduction(StrEnum):
    """How the custom CNN path's 28x28x256 maps become a vector (ADR-0002)."""

    POOL = "pool"
    FLATTEN = "flatten"


class Precision(StrEnum):
    """Keras dtype policies: half-precision arithmetic, float32 variables."""

    FLOAT32 = "float32"
    MIXED_FLOAT16 = "mixed_float16"
    MIXED_BFLOAT16 = "mixed_bfloat16"


class Protocol(StrEnum):
    """How images are divided into train / validation / test, 64/16/20."""

    PAPER = "paper"
    """Stratified by class; a lesion's photographs may fall into several parts."""

    LESION = "lesion"
    """Stratified by class, all photographs of a lesion in one part."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training at one image size (progressive resizing).

    Attributes:
        image_size: Side of the square input in pixels.
        max_epochs: Passes over the training part, at most.
        learning_rate: Adam's step size at the stage's start.
        steps_per_epoch: Steps after which an epoch ends early; None: every image once.
    """

    image_size: int
    max_epochs: int
    learning_rate: float
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        # A backbone halves the image five times.
        if self.image_size < 32:
            raise ValueError(f"image_size must be at least 32 pixels, received {self.image_size}.")
        if self.max_epochs < 1:
            raise ValueError(f"max_epochs must be at least 1, received {self.max_epochs}.")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {self.steps_per_epoch}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, received {self.learning_rate}.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a run's outcome, beside the data.

    The defaults are the paper's (sections III.B to III.E).

    Attributes:
        name: The model's name, as in `models/<name>/`.
        backbone: Network beside the custom CNN path.
        attention: Weigh the backbone's maps by a 1x1 convolution with a sigmoid.
        cnn_path: Have the custom CNN path at all.
        cnn_filters: Filters of that path's three convolutions.
        cnn_reduction: Pool or flatten that path's maps.
        backbone_weights: "imagenet" (Keras downloads them; a package brings those of
            EfficientNet-Lite0), "none", or a weights file.
        initial_model: Folder `models/NAME/VERSION` of an artifact whose weights the whole
            network begins with, in place of the backbone's; "": none.
        initial_share: Of the initial model in the weights that are kept at the end
            (`training.interpolate`); 0: those that were learnt.
        frozen_layers: The backbone's first layers that are not trained.
        metadata: Have age, sex and place as a second input (`training.metadata`); such a
            hybrid is trained and measured but not exported.
        augmentation: How training images are distorted on the fly.
        mixup: Images are mixed in pairs by shares drawn from Beta(mixup, mixup); 0: not
            (Zhang et al., 2018).
        label_smoothing: Share of each label that is spread over all classes.
        teacher: Folder `models/NAME/VERSION` of an artifact whose answers to each augmented
            batch are imitated (ADR-0005); "": none.
        teacher_mirrored: It answers with the mean of its answers to an image and to the three
            that mirrors make of it.
        distillation_weight: Share of the loss that measures the imitation; the rest is the
            true labels'.
        distillation_temperature: What both networks' logits are divided by for it.
        hint_weight: What is added to the loss for the teacher's maps that the backbone's do not
            explain is multiplied by this (`training.hints`); 0: answers are the whole lesson.
        stages: Image sizes, one after the other; the last is what the model is judged at.
        batch_size: Images a step.
        class_weight_exponent: 1 weighs classes by inverse frequency as the paper does, 0 not
            at all, 0.5 by the inverse square root.
        weight_decay: Share of each matrix and kernel, times the head's learning rate for the
            backbone too, that a step takes away (AdamW; Loshchilov and Hutter, 2019); 0: plain
            Adam.
        backbone_rate: The backbone's learning rate over that of all other layers.
        schedule: How the learning rate falls.
        warmup_steps: Steps of a stage over which a cosine's rate first rises from zero; a tenth
            of the stage at most (`training.progress.LAG_SHARE`).
        average_momentum: Weights are validated and kept as exponential moving averages with
            this momentum a step, which reach back over a tenth of a stage at most; 0: as they are.
        early_stopping_patience: Epochs without a better validation loss that end a stage.
        plateau_patience: Epochs without a better validation loss that lower the rate.
        plateau_factor: What the rate is then multiplied by.
        precision: Keras dtype policy.
        mirrored: The artifact answers with the mean of its answers to an image and to the three
            that mirrors make of it (test-time augmentation), at four times the work.
        protocol: The split that the run is made for.
        seed: Of initial weights, order of images, augmentation and dropout.
    """

    name: str
    backbone: Backbone
    attention: bool
    cnn_path: bool = True
    cnn_filters: tuple[int, ...] = (64, 128, 256)
    cnn_reduction: CnnReduction = CnnReduction.POOL
    backbone_weights: str = "imagenet"
    initial_model: str = ""
    initial_share: float = 0.0
    frozen_layers: int = PAPER_FROZEN_LAYERS
    metadata: bool = False
    augmentation: Augmentation = Augmentation.PAPER
    mixup: float = 0.0
    label_smoothing: float = 0.0
    teacher: str = ""
    teacher_mirrored: bool = False
    distillation_weight: float = 0.0
    distillation_temperature: float = 1.0
    hint_weight: float = 0.0
    stages: tuple[Stage, ...] = (Stage(image_size=224, max_epochs=50, learning_rate=1e-4),)
    batch_size: int = 32
    class_weight_exponent: float = 1.0
    weight_decay: float = 0.0
    backbone_rate: float = 1.0
    schedule: Schedule = Schedule.PLATEAU
    warmup_steps: int = 0
    average_momentum: float = 0.0
    early_stopping_patience: int = 10
    plateau_patience: int = 5
    plateau_factor: float = 0.2
    precision: Precision = Precision.FLOAT32
    mirrored: bool = False
    protocol: Protocol = Protocol.LESION
    seed: int = 20180814

    def __post_init__(self) -> None:
        """Refuse combinations that cannot train or would not mean what they say."""
        if not self.stages:
            raise ValueError("A recipe needs at least one stage.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, received {self.batch_size}.")
        for field in ("label_smoothing", "average_momentum", "initial_share"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise ValueError(f"{field} must be in [0, 1), received {getattr(self, field)}.")
        for field in ("mixup", "weight_decay", "backbone_rate", "warmup_steps"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative, got {getattr(self, field)}.")
        if self.weight_decay and not self.backbone_rate:
            raise ValueError(
                "backbone_rate=0 with weight_decay would shrink the backbone and teach it nothing; "
                "use frozen_layers."
            )
        self._check_distillation()
        if not self.initial_model:
            self._check_without_initial_model()
        sizes = {stage.image_size for stage in self.stages}
        if self.cnn_path and self.cnn_reduction is CnnReduction.FLATTEN and sizes != {224}:
            raise ValueError(
                "cnn_reduction='flatten' ties the head to the image size, and models are served "
                f"at 224 pixels; received stages at {sorted(sizes)}."
            )

    def _check_without_initial_model(self) -> None:
        if self.initial_share:
            raise ValueError(
                f"initial_share={self.initial_share} needs an initial model: name the folder of an "
                "artifact, models/NAME/VERSION."
            )
        if self.backbone_weights == "none" and self.frozen_layers:
            raise ValueError(
                f"frozen_layers={self.frozen_layers} with backbone_weights='none' would keep "
                "random weights for ever; use frozen_layers=0 or name an initial_model."
            )

    def _check_distillation(self) -> None:
        if not 0.0 <= self.distillation_weight <= 1.0:
            raise ValueError(
                f"distillation_weight must be in [0, 1], received {self.distillation_weight}."
            )
        if not self.distillation_temperature > 0.0:
            raise ValueError(
                "distillation_temperature must be positive, "
                f"received {self.distillation_temperature}."
            )
        if self.distillation_weight and not self.teacher:
            raise ValueError(
                f"distillation_weight={self.distillation_weight} needs a teacher: name the folder "
                "of an artifact, models/NAME/VERSION."
            )
        if self.teacher_mirrored and not self.teacher:
            raise ValueError(
                "teacher_mirrored=True needs a teacher: name the folder of an artifact, "
                "models/NAME/VERSION."
            )
        if self.hint_weight < 0.0 or (self.hint_weight and not self.teacher):
            raise ValueError(
                f"hint_weight={self.hint_weight} must be positive and needs a teacher: name the "
                "folder of an artifact, models/NAME/VERSION."
            )
        if self.hint_weight and self.teacher_mirrored:
            raise ValueError(
                "hint_weight with teacher_mirrored=True is not supported: a mean over mirrorings "
                "has maps of no image. Use one of the two."
            )
        if self.hint_weight and any(stage.image_size % 32 for stage in self.stages):
            raise ValueError(
                "hint_weight needs stages at multiples of 32 pixels, so that maps of both networks "
                f"lie on one grid; received {[stage.image_size for stage in self.stages]}."
            )
        if self.teacher and not self.distillation_weight:
            raise ValueError(
                f"teacher={self.teacher!r} with distillation_weight=0 would teach nothing; use a "
                "weight in (0, 1]."
            )

    @property
    def title(self) -> str:
        """The hybrid's name in the paper's manner."""
        title = f"CNN-{self.backbone}" if self.cnn_path else str(self.backbone)
        return f"{title} with attention" if self.attention else title

    def published(self) -> "Recipe":
        """The recipe without the folders of the machine that it ran on.

        Artifacts keep `name/version`, a weights file its name.
        """
        return dataclasses.replace(
            self,
            backbone_weights=Path(self.backbone_weights).name,
            initial_model=_name_and_version(self.initial_model),
            teacher=_name_and_version(self.teacher),
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recipe":
        """Rebuild a recipe from `to_json`'s output.

        Raises:
            TypeError: A field is unknown or missing.
            ValueError: A value is out of range.
        """
        return cls(
            **{
                **values,
                "backbone": Backbone(values["backbone"]),
                "cnn_filters": tuple(values["cnn_filters"]),
                "cnn_reduction": CnnReduction(values["cnn_reduction"]),
                "augmentation": Augmentation(values["augmentation"]),
                "schedule": Schedule(values["schedule"]),
                "precision": Precision(values["precision"]),
                "protocol": Protocol(values["protocol"]),
                "stages": tuple(Stage(**stage) for stage in values["stages"]),
            }
        )


def _name_and_version(artifact: str) -> str:
    """The last two parts of an artifact's folder."""
    return "/".join(Path(artifact).resolve().parts[-2:]) if artifact else ""
