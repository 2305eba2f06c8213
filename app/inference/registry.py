"""All artifacts of a folder; one bad artifact stops the start."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from app.domain.ensemble import ENSEMBLE_NAME
from app.domain.errors import ArtifactError, ModelNotFoundError, is_exhaustion
from app.domain.manifest import MANIFEST_NAME
from app.inference.ensembles import LoadedEnsemble, load_ensemble
from app.inference.models import Engine, LoadedModel, load_model
from app.inference.signatures import PublicKeys, read_public_keys, require_signed

Loaded = LoadedModel | LoadedEnsemble
"""Whatever answers."""


class ModelRegistry:
    """The loaded models by name and version, and their ensemble.

    Attributes:
        default: Answers where no model is named.
        ensemble: Answers by its name; None where there is none.
        shadow: Scores what the default answers and answers nobody; None where there is none.
    """

    def __init__(
        self,
        models: list[LoadedModel],
        default_name: str | None,
        shadow_name: str | None = None,
        find_ensemble: Callable[[list[LoadedModel]], LoadedEnsemble] | None = None,
    ) -> None:
        """Index models.

        Args:
            models: At least one beside the shadow.
            default_name: Name of the default, or None for the one whose newest version has the
                highest balanced accuracy in its manifest.
            shadow_name: `name@version` of the shadow.
            find_ensemble: Makes an ensemble of the models that answer; None where there is none.

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
        self.ensemble = find_ensemble(self._models) if find_ensemble else None
        try:
            self.default: Loaded = self.get(default_name) if default_name else self._best()
        except ModelNotFoundError as error:
            raise ArtifactError(f"The default model cannot be served: {error}") from error

    def _best(self) -> LoadedModel:
        newest = {model.manifest.name: model for model in reversed(self._models)}
        by_name = [newest[name] for name in sorted(newest)]
        return max(by_name, key=lambda m: m.manifest.metrics.balanced_accuracy.value)

    def get(self, name: str) -> Loaded:
        """The newest version of a model or the ensemble, or `name@version` exactly.

        Raises:
            ModelNotFoundError: None is loaded.
        """
        for model in self.all():
            if name in (model.manifest.name, model.qualified_name):
                return model
        raise ModelNotFoundError(f"No such model; loaded are: {', '.join(self.names())}.")

    def names(self) -> list[str]:
        """`name@version` of everything that answers."""
        return [model.qualified_name for model in self.all()]

    def all(self) -> list[Loaded]:
        """Everything that answers: models by name, the newest version first, then the ensemble."""
        return [*self._models, self.ensemble] if self.ensemble else list(self._models)

    def models(self) -> list[LoadedModel]:
        """Every loaded model, the shadow included."""
        return self._models if self.shadow is None else [*self._models, self.shadow]


def load_registry(
    models_dir: Path,
    default_name: str | None,
    make_engine: Callable[[Path], Engine],
    known: Mapping[str, LoadedModel] = MappingProxyType({}),
    *,
    shadow_name: str | None = None,
    public_keys: Path | None = None,
) -> ModelRegistry:
    """Load every artifact below a folder.

    Args:
        models_dir: Folder of `<name>/<version>/`.
        default_name: See `ModelRegistry`.
        make_engine: Loads a SavedModel.
        known: Models by digest that are not loaded again; their files are verified all the
            same.
        shadow_name: See `ModelRegistry`.
        public_keys: File of the keys that everything must be signed by; None where nothing must.

    Returns:
        The models, each verified; each that was loaded has passed its golden example.

    Raises:
        ArtifactError: The folder has no artifact, or one of them must not be served; the
            message names the file.
    """
    if not models_dir.is_dir():
        raise ArtifactError(f"{models_dir.resolve()}: no such folder; set MODELS_DIR.")
    folders = _list_folders(models_dir)
    if not folders:
        raise ArtifactError(
            f"{models_dir.resolve()}: holds no <name>/<version>/{MANIFEST_NAME}; set MODELS_DIR."
        )
    keys = None if public_keys is None else read_public_keys(public_keys)
    models = [load_model(folder, make_engine, known, keys) for folder in folders]

    def find(served: list[LoadedModel]) -> LoadedEnsemble:
        return _load_signed_ensemble(models_dir, served, keys)

    has_ensemble = (models_dir / ENSEMBLE_NAME).exists()
    return ModelRegistry(models, default_name, shadow_name, find if has_ensemble else None)


def _list_folders(models_dir: Path) -> list[Path]:
    try:
        return sorted(
            version
            for name in models_dir.iterdir()
            if name.is_dir() and not name.name.startswith(".")
            for version in name.iterdir()
            if version.is_dir()
        )
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise ArtifactError(
            f"{error.filename}: cannot be read ({error.strerror}). The models' folder holds "
            "nothing that the service's user may not read."
        ) from error


def _load_signed_ensemble(
    models_dir: Path, models: list[LoadedModel], keys: PublicKeys | None
) -> LoadedEnsemble:
    path = models_dir / ENSEMBLE_NAME
    signed_digest = None if keys is None else keys.check(path)
    ensemble = load_ensemble(models_dir, models)
    require_signed(path, ensemble.digest, signed_digest)
    return ensemble
