"""Which models a service of several replicas serves: fixed at one place, held by each of them."""

from collections.abc import Mapping
from pathlib import Path

from app.domain.ensemble import ENSEMBLE_NAME, read_ensemble
from app.domain.errors import ArtifactError
from app.domain.manifest import MANIFEST_NAME, file_sha256, read_manifest
from app.inference.registry import ModelRegistry

Release = Mapping[str, str]
"""The digest of each model and of the ensemble, by `name@version`."""


def read_release(models_dir: Path) -> dict[str, str]:
    """What a models folder holds, by its manifests; loads and verifies nothing.

    Raises:
        ArtifactError: There is no manifest, or one cannot be read.
    """
    release = {}
    for path in models_dir.glob(f"*/*/{MANIFEST_NAME}"):
        manifest, digest = read_manifest(path.parent)
        release[f"{manifest.name}@{manifest.version}"] = digest
    if not release:
        raise ArtifactError(
            f"{models_dir.resolve()}: holds no <name>/<version>/{MANIFEST_NAME}; set MODELS_DIR."
        )
    path = models_dir / ENSEMBLE_NAME
    if path.exists():
        ensemble = read_ensemble(path)
        release[f"{ensemble.name}@{ensemble.version}"] = file_sha256(path)
    return release


def loaded_release(registry: ModelRegistry) -> Release:
    """What was loaded and verified."""
    return {model.qualified_name: model.digest for model in [*registry.all(), *registry.models()]}


def require_release(found: Release, release: Release) -> None:
    """Refuse models that are not those of a release, all of them and no other.

    Raises:
        ArtifactError: They differ; the message names them.
    """
    others = sorted({name for name, _ in found.items() ^ release.items()})
    if others:
        raise ArtifactError(
            f"The models folder is not what this service was deployed with: {', '.join(others)}"
            " differ. Every replica must serve the same: put new models into another folder and "
            "deploy the service anew with it."
        )
