"""The manifest's schema and the check of every byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import ArtifactDigestError, ArtifactIncompleteError, ManifestError
from app.domain.manifest import QUANTIZED_NAME, read_manifest, verify_files
from app.domain.rules import FEATURE_SPACE_NAME
from tests.conftest import PLAIN_MODEL
from tests.tiny_artifact import add_quantized
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules


@pytest.fixture
def artifact(own_models: Path) -> Path:
    return own_models / PLAIN_MODEL / "1"


def edit(artifact: Path, **changes: Any) -> None:
    path = artifact / "manifest.json"
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def test_intact_artifact_passes(artifact: Path) -> None:
    manifest, digest = read_manifest(artifact)
    verify_files(artifact, manifest)
    assert (manifest.name, manifest.version) == (PLAIN_MODEL, 1)
    assert len(digest) == 64


def test_digest_changes_with_any_byte_of_the_manifest(artifact: Path) -> None:
    _, before = read_manifest(artifact)
    edit(artifact, title="Another")
    _, after = read_manifest(artifact)
    assert before != after


def test_every_file_is_checked_for_every_kind_of_damage(artifact: Path) -> None:
    manifest, _ = read_manifest(artifact)
    for name in manifest.files:
        path = artifact / name
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(ArtifactDigestError, match=path.name):
            verify_files(artifact, manifest)
        path.unlink()
        with pytest.raises(ArtifactIncompleteError, match=path.name):
            verify_files(artifact, manifest)
        path.write_bytes(content)
    verify_files(artifact, manifest)


def test_an_8_bit_form_is_described_if_and_only_if_it_is_there(artifact: Path) -> None:
    add_quantized(artifact, seed=9)
    manifest, _ = read_manifest(artifact)
    verify_files(artifact, manifest)
    described = json.loads((artifact / "manifest.json").read_text())
    edit(artifact, quantized=None)
    with pytest.raises(ManifestError, match="if and only if quantized is set"):
        read_manifest(artifact)
    del described["files"][QUANTIZED_NAME]
    edit(artifact, **described)
    with pytest.raises(ManifestError, match="if and only if quantized is set"):
        read_manifest(artifact)


def test_rules_name_an_operating_point_that_is_there(artifact: Path) -> None:
    files = read_manifest(artifact)[0].files | {FEATURE_SPACE_NAME: "0" * 64}
    points = tiny_point(), tiny_point("melanoma", ["mel"])
    described = {
        "files": files,
        "decision": tiny_rules().model_dump(mode="json"),
        "calibration": tiny_calibration(*points).model_dump(mode="json"),
    }
    edit(artifact, **described)
    assert read_manifest(artifact)[0].decision == tiny_rules()
    edit(artifact, decision=described["decision"] | {"referring_sensitivity": 0.91})
    with pytest.raises(ManifestError, match=r"decision\.referring_sensitivity, 0\.91"):
        read_manifest(artifact)
    of_melanoma = tiny_calibration(points[1]).model_dump(mode="json")
    edit(artifact, **described | {"calibration": of_melanoma})
    with pytest.raises(ManifestError, match=r"decision\.referring_sensitivity, 0\.9"):
        read_manifest(artifact)


@pytest.mark.parametrize("labels", [["melanoma"], ["mel", "mel"]])
def test_an_operating_point_is_of_classes(artifact: Path, labels: list[str]) -> None:
    content = tiny_calibration(tiny_point()).model_dump(mode="json")
    content["operating_points"][0]["labels"] = labels
    edit(artifact, calibration=content)
    with pytest.raises(ManifestError, match="each once, received"):
        read_manifest(artifact)


def test_unlisted_file_is_refused(artifact: Path) -> None:
    manifest, _ = read_manifest(artifact)
    (artifact / "variables" / "extra.bin").write_bytes(b"x")
    with pytest.raises(ArtifactIncompleteError, match="extra.bin"):
        verify_files(artifact, manifest)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": ["bcc", "akiec", "bkl", "df", "mel", "nv", "vasc"]}, "classes"),
        ({"version": 2}, "lies in"),
        ({"name": "other"}, "lies in"),
        ({"name": "../x"}, "name"),
        ({"schema_version": 2}, "schema_version"),
        ({"git_commit": "main"}, "git_commit"),
        ({"surprise": 1}, "surprise"),
        ({"metrics": None}, "metrics"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "leaves the artifact"),
        ({"files": {}}, "saved_model.pb"),
        ({"input": {"height": 299}}, "input.height"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_field_is_named(artifact: Path, changes: dict[str, Any], named: str) -> None:
    edit(artifact, **changes)
    with pytest.raises(ManifestError, match=named) as caught:
        read_manifest(artifact)
    assert "manifest.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_unreadable_manifest_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match="manifest.json"):
        read_manifest(artifact)


def test_missing_or_huge_manifest_is_refused(artifact: Path) -> None:
    path = artifact / "manifest.json"
    path.write_bytes(b" " * 2_000_000)
    with pytest.raises(ManifestError, match="larger"):
        read_manifest(artifact)
    path.unlink()
    with pytest.raises(ManifestError, match="manifest.json"):
        read_manifest(artifact)
