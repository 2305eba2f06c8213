"""Only intact artifacts are loaded, and asked for by name and version."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.domain.errors import (
    ArtifactDigestError,
    ArtifactError,
    ArtifactIncompleteError,
    GoldenExampleError,
    ManifestError,
    ModelNotFoundError,
)
from app.domain.manifest import file_sha256
from app.inference.registry import ModelRegistry, load_registry
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL
from tests.tiny_artifact import write_tiny_artifact


def load(models: Path, default: str | None = None) -> ModelRegistry:
    return load_registry(models, default, TensorFlowEngine)


@pytest.fixture(scope="module")
def registry(tiny_models: Path) -> ModelRegistry:
    return load(tiny_models)


def test_names_and_versions(registry: ModelRegistry) -> None:
    assert registry.get(PLAIN_MODEL).manifest.version == 2
    assert registry.get(f"{PLAIN_MODEL}@1").manifest.version == 1
    assert registry.default is registry.get(PLAIN_MODEL)
    assert [(m.manifest.name, m.manifest.version) for m in registry.all()] == [
        (PLAIN_MODEL, 2),
        (PLAIN_MODEL, 1),
        (ATTENTION_MODEL, 1),
    ]


@pytest.mark.parametrize("name", ["", "unknown", f"{PLAIN_MODEL}@3", f"{PLAIN_MODEL}@", "@1"])
def test_unknown_names_are_refused_with_the_known_ones(registry: ModelRegistry, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"{PLAIN_MODEL}@2"):
        registry.get(name)


def test_default_can_be_chosen_and_must_exist(tiny_models: Path) -> None:
    assert load(tiny_models, ATTENTION_MODEL).default.manifest.name == ATTENTION_MODEL
    with pytest.raises(ArtifactError, match="default"):
        load(tiny_models, "unknown")


def test_without_a_choice_the_best_measured_model_answers(tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path, "a", measured=0.6)
    write_tiny_artifact(tmp_path, "b", version=1, measured=0.9)
    write_tiny_artifact(tmp_path, "b", version=2, measured=0.5)
    write_tiny_artifact(tmp_path, "c", measured=0.7)
    assert load(tmp_path).default.manifest.name == "c"


def test_versions_really_differ(registry: ModelRegistry) -> None:
    image = np.full((224, 224, 3), (40, 90, 200), np.uint8)
    old = registry.get(f"{PLAIN_MODEL}@1").predict_batch(image[None])[0]
    new = registry.get(f"{PLAIN_MODEL}@2").predict_batch(image[None])[0]
    assert np.abs(old.probabilities - new.probabilities).max() > 0.01


def test_one_changed_byte_stops_the_start(own_models: Path) -> None:
    path = own_models / ATTENTION_MODEL / "1" / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactDigestError, match="variables.data-00000-of-00001"):
        load(own_models)


def test_a_file_that_cannot_be_read_stops_the_start_by_its_name(own_models: Path) -> None:
    path = own_models / ATTENTION_MODEL / "1" / "variables" / "variables.data-00000-of-00001"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # which opens, and gives an error to who reads its start
    with pytest.raises(ArtifactIncompleteError, match=r"data-00000-of-00001: cannot be read \("):
        load(own_models)


def test_folder_without_manifest_stops_the_start(own_models: Path) -> None:
    (own_models / "half_copied" / "1").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"half_copied/1/manifest\.json"):
        load(own_models)


def test_other_weights_with_a_matching_digest_fail_the_golden_example(own_models: Path) -> None:
    """A manifest can be rewritten by whoever swaps the weights; the answers still differ."""
    target, source = own_models / PLAIN_MODEL / "1", own_models / PLAIN_MODEL / "2"
    shutil.rmtree(target / "variables")
    shutil.copytree(source / "variables", target / "variables")
    manifest = json.loads((target / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = file_sha256(target / name)
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GoldenExampleError, match=r"golden_input\.png"):
        load(own_models)


def test_no_models_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="MODELS_DIR"):
        load(tmp_path / "missing")
    with pytest.raises(ArtifactError, match="MODELS_DIR"):
        load(tmp_path)


def test_engine_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot load"):
        TensorFlowEngine(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "unsigned"))
    with pytest.raises(ArtifactError, match="serving_default"):
        TensorFlowEngine(tmp_path / "unsigned")
