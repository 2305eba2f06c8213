"""Train a recipe's ablations at a reduced size and compare them on the validation part.

```
base recipe -> one short stage -> variants -> RUNS/<variant>/     runs as of `fit`
                                           -> RUNS/ablations.json a row a variant
```

The paper's section V leaves out the CNN path, attention and augmentation; the other variants are
this project's. The test part is never touched: an ablation chooses, and choices are made on the
validation part. A variant with a row is not trained again.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.domain.measurements import Interval
from training.config import (
    DISTILLATION_TEMPERATURE,
    DISTILLATION_WEIGHT,
    Augmentation,
    CnnReduction,
    Recipe,
)
from training.evaluate import measure_as_trained
from training.fit import fit
from training.prepare import Part, PreparedData
from training.progress import Progress
from training.run_folder import RESULT_NAME, RunError, claim, read_result, write_json

BASE: Final = "base"

VARIANTS: Final = (
    BASE,
    "distilled",
    "flatten",
    "metadata",
    "no-attention",
    "no-augmentation",
    "no-cnn-path",
    "no-imagenet",
)

_INTERVALS: Final = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True, slots=True)
class AblationRow:
    """A variant's figures on the validation part, at the image size it was trained at.

    Attributes:
        variant: One of `VARIANTS`.
        accuracy: With a 95 % interval over lesions; so are the next two.
        balanced_accuracy: Mean recall of the classes.
        macro_f1: Mean F1 of the classes.
        epochs: Trained.
        seconds: Spent training.
        hardware: What was trained on, in words.
    """

    variant: str
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    epochs: int
    seconds: float
    hardware: str

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "variant": self.variant,
            **{name: getattr(self, name).model_dump(mode="json") for name in _INTERVALS},
            "epochs": self.epochs,
            "seconds": self.seconds,
            "hardware": self.hardware,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AblationRow":
        """Rebuild a row from `to_json`'s output."""
        intervals = {name: Interval.model_validate(values[name]) for name in _INTERVALS}
        return cls(**{**values, **intervals})


def reduced(
    recipe: Recipe, image_size: int, max_epochs: int, steps_per_epoch: int | None
) -> Recipe:
    """A recipe in one short stage, at its first stage's learning rate.

    Raises:
        ValueError: The recipe flattens its CNN path and the size is not 224 pixels.
    """
    stage = replace(
        recipe.stages[0],
        image_size=image_size,
        max_epochs=max_epochs,
        steps_per_epoch=steps_per_epoch,
    )
    return replace(recipe, stages=(stage,))


def variants(base: Recipe, teacher: str = "") -> dict[str, Recipe]:
    """The variants that a recipe has, by name in alphabetical order.

    Args:
        base: What is varied. A part that it lacks cannot be left out.
        teacher: Folder of an artifact for `distilled`; "": no such variant.
    """
    made = {BASE: base, "metadata": replace(base, metadata=True)}
    if teacher:
        made["distilled"] = replace(
            base,
            teacher=teacher,
            distillation_weight=base.distillation_weight or DISTILLATION_WEIGHT,
            distillation_temperature=(
                base.distillation_temperature if base.teacher else DISTILLATION_TEMPERATURE
            ),
        )
    if base.cnn_path:
        made["no-cnn-path"] = replace(base, cnn_path=False)
        if {stage.image_size for stage in base.stages} == {224}:
            made["flatten"] = replace(base, cnn_reduction=CnnReduction.FLATTEN)
    if base.attention:
        made["no-attention"] = replace(base, attention=False)
    if base.augmentation is not Augmentation.NONE:
        made["no-augmentation"] = replace(base, augmentation=Augmentation.NONE)
    if base.backbone_weights != "none" or base.initial_model:
        made["no-imagenet"] = replace(
            base, backbone_weights="none", initial_model="", initial_share=0.0, frozen_layers=0
        )
    return {
        name: recipe
        for name, recipe in sorted(made.items())
        if name == BASE or recipe != base  # else the base has it already
    }


def choose(available: dict[str, Recipe], names: Iterable[str]) -> dict[str, Recipe]:
    """Some of the variants; all of them where no name is given.

    Raises:
        ValueError: The recipe has no such variant.
    """
    wanted = set(names) or set(available)
    if missing := sorted(wanted - set(available)):
        raise ValueError(
            f"This recipe has no variant {', '.join(missing)}; it has {', '.join(available)}. "
            "`distilled` needs --teacher, `flatten` 224 pixels."
        )
    return {name: recipe for name, recipe in available.items() if name in wanted}


def ablate(
    chosen: dict[str, Recipe],
    base: Recipe,
    data: PreparedData,
    runs: Path,
    *,
    report_step: Callable[[str, Progress, int], None] = lambda _variant, _progress, _steps: None,
) -> list[AblationRow]:
    """Train and measure what has no row yet; write `ablations.json` after each variant.

    Args:
        chosen: Recipes by the variant's name.
        base: What all of them vary, reduced.
        data: A dataset prepared for the recipe's protocol.
        runs: Folder of all runs; made if missing.
        report_step: Called after each step with (variant, progress, steps of the epoch).

    Returns:
        The rows of all variants in the file, in alphabetical order.

    Raises:
        RunError: The folder holds ablations of another base or dataset, or of another recipe
            or teacher for the same variant.
    """
    path = runs / "ablations.json"
    facts = {
        "base": base.published().to_json(),
        "data_fingerprint": data.fingerprint,
        "split_fingerprint": data.split_fingerprint,
        "part": Part.VALIDATION.value,
    }
    rows = _read_rows(path, facts)
    for name, recipe in chosen.items():
        claim(runs / name, recipe, data)
        if name not in rows:
            rows[name] = _train(name, recipe, data, runs / name, report_step)
            lines = [rows[variant].to_json() for variant in sorted(rows)]
            write_json(path, {**facts, "variants": lines})
    return [rows[variant] for variant in sorted(rows)]


def _train(
    name: str,
    recipe: Recipe,
    data: PreparedData,
    run: Path,
    report_step: Callable[[str, Progress, int], None],
) -> AblationRow:
    if not (run / RESULT_NAME).exists():
        fit(
            recipe,
            data,
            run,
            report_step=lambda progress, steps, _loss: report_step(name, progress, steps),
        )
    result = read_result(run)
    metrics = measure_as_trained(run, data, Part.VALIDATION)
    return AblationRow(
        name,
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.macro_f1,
        result.epochs,
        result.seconds,
        result.hardware,
    )


def _read_rows(path: Path, facts: dict[str, Any]) -> dict[str, AblationRow]:
    if not path.exists():
        return {}
    values = json.loads(path.read_text(encoding="utf-8"))
    # Fields that came later have their defaults.
    values["base"] = Recipe.from_json(values["base"]).to_json()
    if {name: values.get(name) for name in facts} != facts:
        raise RunError(
            f"{path} compares variants of another recipe or dataset; name another folder."
        )
    return {line["variant"]: AblationRow.from_json(line) for line in values["variants"]}
