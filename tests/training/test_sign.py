"""`python -m training sign` signs what is intact, with a key that the service never sees."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner, Result

from app.inference.registry import load_registry
from app.inference.runtimes import engine_maker
from tests.signing import private_pem, public_pem
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble
from training.cli import app

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two models and their ensemble."""
    folder = tmp_path / "models"
    members = [
        write_tiny_artifact(
            folder,
            name,
            seed=seed,
            calibration=tiny_calibration(tiny_point(threshold=1.0)),
            decision=tiny_rules(min_confidence=0.1, max_set_size=7, novelty=0.5),
        )
        for seed, name in enumerate(("light", "heavy"))
    ]
    rules = tiny_rules(
        min_confidence=0.1,
        max_set_size=7,
        novelty=1.0,
        num_components=None,
        max_disagreement=1.0,
    )
    write_tiny_ensemble(folder, members, (0.5, 0.5), rules=rules)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key's file, and its public half's."""
    private, public = tmp_path / "key.pem", tmp_path / "keys.pem"
    private.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    return private, public


def run(*arguments: object, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


def test_signed_artifacts_and_the_ensemble_are_verified_and_served(
    models: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    refused = run("verify", models / "ensemble.json", "--public-keys", public)
    assert refused.exit_code == 1
    assert "ensemble.json.sig: missing" in refused.output
    for target in (models / "light" / "1", models / "heavy" / "1", models / "ensemble.json"):
        assert run("verify", target).exit_code == 0
        done = run("sign", target, "--key", private)
        assert done.exit_code == 0, done.output
        done = run("verify", target, "--public-keys", public)
        assert done.exit_code == 0, done.output
        assert "signed by a key in" in done.output
    assert not list(models.rglob(".sign-*"))
    registry = load_registry(models, None, engine_maker("openvino"), public_keys=public)
    assert registry.names() == ["heavy@1", "light@1", "ensemble@1"]


def test_what_is_not_intact_is_not_signed(models: Path, keys: tuple[Path, Path]) -> None:
    private, _ = keys
    card = models / "light" / "1" / "MODEL_CARD.md"
    card.write_text("# Better\n")
    for target in (models / "light" / "1", models / "ensemble.json"):
        refused = run("sign", target, "--key", private)
        assert refused.exit_code == 1
        assert "MODEL_CARD.md: SHA-256" in refused.output
    assert not list(models.rglob("*.sig"))


def test_an_ensembles_members_must_be_signed_too(models: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert run("sign", models / "ensemble.json", "--key", private).exit_code == 0
    refused = run("verify", models / "ensemble.json", "--public-keys", public)
    assert refused.exit_code == 1
    assert "light/1/manifest.json.sig: missing" in refused.output


def test_a_passphrase_is_asked_for(models: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    private.write_bytes(private_pem(KEY, "correct horse"))
    target = models / "light" / "1"
    refused = run("sign", target, "--key", private, typed="battery staple\n")
    assert refused.exit_code == 1
    assert "no private key could be read" in refused.output
    done = run("sign", target, "--key", private, typed="correct horse\n")
    assert done.exit_code == 0, done.output
    assert "horse" not in done.output
    assert run("verify", target, "--public-keys", public).exit_code == 0


def test_other_keys_and_other_files_are_refused(models: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    target = models / "light" / "1"
    other = generate_private_key(SECP256R1())
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for key, words in (
        (private, "expected an Ed25519 key"),
        (public, "no private key"),
        (target, "no private key"),
    ):
        refused = run("sign", target, "--key", key)
        assert refused.exit_code == 1
        assert words in refused.output
    assert not list(models.rglob("*.sig"))
