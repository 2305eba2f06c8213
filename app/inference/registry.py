"""Find, verify, load and warm up artifacts; one bad artifact stops the start."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from app.domain.errors import ArtifactError, ModelNotFoundError
from app.domain.golden import Outputs, check_golden, golden_input
from app.domain.images import RgbImage
from app.domain.manifest import (
    MANIFEST_NAME,
    MODEL_CARD_NAME,
    Manifest,
    Runtime,
    read_manifest,
    verify_files,
)
from app.inference.explain import Prediction, interpret

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What runs a model.

    Attributes:
        runtime: Its name.
    """

    runtime: Runtime

    def predict(self, images: RgbImage) -> Outputs:
        """Outputs for (batch, 224, 224, 3) uint8."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified artifact, ready to answer.

    Attributes:
        manifest: What it is.
        digest: SHA-256 of `manifest.json`, which in turn fixes every other byte.
        engine: Runs it.
        directory: Where it was read from.
        golden: Its golden example, (1, 224, 224, 3) uint8.
        card: Its model card, Markdown.
    """

    manifest: Manifest
    digest: str
    engine: Engine
    directory: Path
    golden: RgbImage
    card: str

    @property
    def qualified_name(self) -> str:
        """`name@version`."""
        return f"{self.manifest.name}@{self.manifest.version}"

    def self_test(self) -> None:
        """Answer the golden example again; blocks the calling thread.

        Raises:
            GoldenExampleError: The answer is not the manifest's any more.
        """
        outputs = self.engine.predict(self.golden)
        check_golden(self.directory, self.manifest, outputs, self.engine.runtime)

    def predict(self, image: RgbImage) -> Prediction:
        """Answer one model input, (224, 224, 3) uint8; blocks the calling thread."""
        return self.predict_batch(image[None])[0]

    def predict_batch(self, images: RgbImage) -> list[Prediction]:
        """Answer (batch, 224, 224, 3) uint8, one by one; blocks the calling thread."""
        outputs = self.engine.predict(images)
        return [interpret(outputs, row) for row in range(len(outputs["probabilities"]))]


class ModelRegistry:
    """The loaded models by name and version.

    Attributes:
        default: Answers where no model is named.
        shadow: Scores what the default answers and answers nobody; None where there is none.
    """

    def __init__(
        self, models: list[LoadedModel], default_name: str | None, shadow_name: str | None = None
    ) -> None:
        """Index models.

        Args:
            models: At least one beside the shadow.
            default_name: Name of the default, or None for the one whose newest version has the
                highest balanced accuracy in its manifest.
            shadow_name: `name@version` of the shadow.

        Raises:
            ArtifactError: No model, or none of the default's or the shadow's name.
        """
        shadows = [model for model in models if model.qualified_name == shadow_name]
        if shadow_name is not None and not shadows:
            raise ArtifactError(f"The shadow {shadow_name} is not among the models.")
        self.shadow = shadows[0] if shadows else None
        served = [model for model in models if model is not self.shadow]
        if not served:
            raise ArtifactError("There is no model to serve.")
        self._models = sorted(served, key=lambda m: (m.manifest.name, -m.manifest.version))
        try:
            self.default = self.get(default_name) if default_name else self._best()
        except ModelNotFoundError as error:
            raise ArtifactError(f"The default model cannot be served: {error}") from error

    def _best(self) -> LoadedModel:
        newest = {model.manifest.name: model for model in reversed(self._models)}
        by_name = [newest[name] for name in sorted(newest)]
        return max(by_name, key=lambda m: m.manifest.metrics.balanced_accuracy.value)

    def get(self, name: str) -> LoadedModel:
        """The newest version of a model, or `name@version` exactly.

        Raises:
            ModelNotFoundError: None is loaded.
        """
        for model in self._models:
            if name in (model.manifest.name, model.qualified_name):
                return model
        raise ModelNotFoundError(f"No such model; loaded are: {', '.join(self.names())}.")

    def names(self) -> list[str]:
        """`name@version` of every model that answers."""
        return [model.qualified_name for model in self._models]

    def all(self) -> list[LoadedModel]:
        """Every model that answers, by name, the newest version first."""
        return list(self._models)

    def with_shadow(self) -> list[LoadedModel]:
        """Every loaded model."""
        return self.all() if self.shadow is None else [*self._models, self.shadow]


def load_registry(
    models_dir: Path,
    default_name: str | None,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel] = MappingProxyType({}),
    *,
    shadow_name: str | None = None,
) -> ModelRegistry:
    """Load every artifact below a folder.

    Args:
        models_dir: Folder of `<name>/<version>/`.
        default_name: See `ModelRegistry`.
        make_engine: Loads a SavedModel.
        known: Models by digest that are not loaded again; their files are verified all the
            same.
        shadow_name: See `ModelRegistry`.

    Returns:
        The models, each verified; each that was loaded has passed its golden example.

    Raises:
        ArtifactError: The folder has no artifact, or one of them must not be served; the
            message names the file.
    """
    if not models_dir.is_dir():
        raise ArtifactError(f"{models_dir.resolve()}: no such folder; set MODELS_DIR.")
    folders = sorted(
        version
        for name in models_dir.iterdir()
        if name.is_dir() and not name.name.startswith(".")
        for version in name.iterdir()
        if version.is_dir()
    )
    if not folders:
        raise ArtifactError(
            f"{models_dir.resolve()}: holds no <name>/<version>/{MANIFEST_NAME}; set MODELS_DIR."
        )
    models = [load_model(folder, make_engine, known) for folder in folders]
    return ModelRegistry(models, default_name, shadow_name)


def load_model(
    directory: Path,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel] = MappingProxyType({}),
) -> LoadedModel:
    """Verify, load and test one artifact, or verify it and take over the known one.

    Raises:
        ArtifactError: It must not be served; the message names the file.
    """
    manifest, digest = read_manifest(directory)
    verify_files(directory, manifest)
    if digest in known:
        return known[digest]
    golden = golden_input(directory, manifest)
    card = (directory / MODEL_CARD_NAME).read_text(encoding="utf-8", errors="replace")
    model = LoadedModel(manifest, digest, make_engine(directory), directory, golden, card)
    model.self_test()
    logger.info(
        "model loaded",
        extra={
            "model": manifest.name,
            "version": manifest.version,
            "digest": digest,
            "runtime": model.engine.runtime,
        },
    )
    return model
