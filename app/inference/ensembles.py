"""Several loaded models that answer as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.domain.decision import disagreement
from app.domain.ensemble import (
    ENSEMBLE_CARD_NAME,
    ENSEMBLE_NAME,
    EnsembleManifest,
    pool,
    read_ensemble,
)
from app.domain.errors import ArtifactDigestError, ArtifactIncompleteError, ManifestError
from app.domain.images import RgbImage
from app.domain.labels import CLASSES
from app.domain.manifest import Runtime, file_sha256
from app.inference.explain import Prediction
from app.inference.models import LoadedModel


@dataclass(frozen=True, slots=True)
class LoadedEnsemble:
    """A verified ensemble, ready to answer.

    Attributes:
        manifest: What it is.
        digest: SHA-256 of `ensemble.json`, which holds the digest of every member.
        members: In the manifest's order.
        card: Its card, Markdown.
    """

    manifest: EnsembleManifest
    digest: str
    members: tuple[LoadedModel, ...]
    card: str

    @property
    def qualified_name(self) -> str:
        """`name@version`."""
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def runtime(self) -> Runtime:
        """What runs the heaviest member, and the others unless they have no 8-bit form."""
        return self.drawn.runtime

    @property
    def drawn(self) -> LoadedModel:
        """The model that heatmaps of its answers are of: the heaviest member."""
        return self.members[self._heaviest]

    @property
    def _heaviest(self) -> int:
        return int(np.argmax([member.weight for member in self.manifest.members]))

    def predict_batch(self, images: RgbImage) -> list[Prediction]:
        """Answer (batch, 224, 224, 3) uint8, one by one; blocks the calling thread."""
        answers = [member.predict_batch(images) for member in self.members]
        return [self.combine(of_image) for of_image in zip(*answers, strict=True)]

    def combine(self, answers: Sequence[Prediction]) -> Prediction:
        """Make one answer of the members' own.

        Args:
            answers: Of one image, in the order of `members`.

        Returns:
            The pooled answer; its maps are the heaviest member's.
        """
        probabilities = pool(
            {
                model.manifest.name: answer.probabilities[None]
                for model, answer in zip(self.members, answers, strict=True)
            },
            {member.name: member.weight for member in self.manifest.members},
            self.manifest.calibration.temperature,
        )[0]
        index = int(probabilities.argmax())
        drawn = answers[self._heaviest]
        return Prediction(
            probabilities,
            CLASSES[index],
            float(probabilities[index]),
            drawn.class_activation,
            drawn.attention,
            self._novelty(answers),
            float(disagreement([answer.probabilities[None] for answer in answers])[0]),
            tuple(answers),
        )

    def _novelty(self, answers: Sequence[Prediction]) -> float | None:
        scores = [
            answer.novelty / model.manifest.decision.novelty.threshold
            for model, answer in zip(self.members, answers, strict=True)
            if model.manifest.decision is not None and answer.novelty is not None
        ]
        return float(np.mean(scores)) if len(scores) == len(self.members) else None


def load_ensemble(models_dir: Path, models: Sequence[LoadedModel]) -> LoadedEnsemble:
    """Read `ensemble.json` beside the models, and find its members among them.

    Args:
        models_dir: Folder of all artifacts.
        models: What is loaded of it.

    Returns:
        The ensemble.

    Raises:
        ArtifactError: It is missing, not of the schema, or a member is missing, another one or
            without rules.
    """
    path = models_dir / ENSEMBLE_NAME
    manifest = read_ensemble(path)
    loaded = {(model.manifest.name, model.manifest.version): model for model in models}
    members = []
    for member in manifest.members:
        model = loaded.get((member.name, member.version))
        if model is None:
            raise ArtifactIncompleteError(
                f"{path}: its member {member.name}@{member.version} is not among the models that "
                "answer. Restore it, or delete the ensemble."
            )
        if model.digest != member.digest:
            raise ArtifactDigestError(
                f"{path}: {member.name} version {member.version} has digest {model.digest}; the "
                f"ensemble was calibrated with {member.digest}."
            )
        if model.manifest.decision is None:
            raise ManifestError(
                f"{path}: its member {model.qualified_name} has no `decision`, which the "
                "ensemble's `out-of-distribution` is made of. Make the ensemble again of members "
                "that have one."
            )
        members.append(model)
    card = models_dir / ENSEMBLE_CARD_NAME
    if not card.exists() or file_sha256(card) != manifest.card_sha256:
        raise ArtifactDigestError(f"{card}: is not the card that {path} names. Restore both.")
    return LoadedEnsemble(
        manifest, file_sha256(path), tuple(members), card.read_text(encoding="utf-8")
    )
