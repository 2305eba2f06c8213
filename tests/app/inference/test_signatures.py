"""What nobody whose signature counts has signed is not loaded."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.domain.errors import ArtifactDigestError, ArtifactSignatureError
from app.inference.registry import ModelRegistry, load_registry
from app.inference.runtimes import engine_maker
from app.inference.signatures import MAX_KEYS_BYTES, read_public_keys, signature_path
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL
from tests.programs import require_program
from tests.signing import private_pem, public_pem, sign_everything

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    path = tmp_path / "keys.pem"
    path.write_bytes(public_pem(KEY))
    return path


def load(models: Path, keys: Path | None) -> ModelRegistry:
    return load_registry(models, None, engine_maker("openvino"), public_keys=keys)


def test_signed_models_are_loaded_with_the_key_and_without(own_models: Path, trusted: Path) -> None:
    sign_everything(own_models, KEY)
    for keys in (trusted, None):
        assert len(load(own_models, keys).models()) == 3


def test_either_of_two_keys_counts(own_models: Path, trusted: Path) -> None:
    sign_everything(own_models, OTHER_KEY)
    manifest = own_models / PLAIN_MODEL / "1" / "manifest.json"
    signature_path(manifest).write_bytes(KEY.sign(manifest.read_bytes()))
    trusted.write_bytes(b"the old key\n" + public_pem(OTHER_KEY, KEY) + b"the new key\n")
    assert len(load(own_models, trusted).models()) == 3


def of_another_model(manifest: Path, right: bytes) -> None:
    other = manifest.parents[2] / PLAIN_MODEL / "1" / "manifest.json"
    signature_path(manifest).write_bytes(signature_path(other).read_bytes())
    assert signature_path(manifest).read_bytes() != right


def folder_in_its_place(manifest: Path, _right: bytes) -> None:
    signature_path(manifest).unlink()
    signature_path(manifest).mkdir()


DAMAGE: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "unsigned": (lambda m, _: signature_path(m).unlink(), "missing; MODEL_PUBLIC_KEYS is set"),
    "a folder": (folder_in_its_place, "missing; MODEL_PUBLIC_KEYS is set"),
    "other key": (
        lambda m, _: signature_path(m).write_bytes(OTHER_KEY.sign(m.read_bytes())),
        "of none of the 1 keys",
    ),
    "of another model": (of_another_model, "of none of the 1 keys"),
    "manifest changed": (
        lambda m, _: m.write_bytes(m.read_bytes() + b"\n"),
        "of none of the 1 keys",
    ),
    "bit changed": (
        lambda m, right: signature_path(m).write_bytes(bytes([right[0] ^ 1]) + right[1:]),
        "of none of the 1 keys",
    ),
    "empty": (lambda m, _: signature_path(m).write_bytes(b""), "64 bytes, received 0"),
    "cut": (lambda m, right: signature_path(m).write_bytes(right[:-1]), "64 bytes, received 63"),
    "long": (
        lambda m, right: signature_path(m).write_bytes(right + bytes(1 << 20)),
        "larger than 64 bytes",
    ),
    "huge manifest": (lambda m, _: m.write_bytes(b" " * (1 << 21)), "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_model_that_is_not_rightly_signed_refuses_all(
    own_models: Path, trusted: Path, damage: str
) -> None:
    sign_everything(own_models, KEY)
    manifest = own_models / ATTENTION_MODEL / "1" / "manifest.json"
    do_damage, words = DAMAGE[damage]
    do_damage(manifest, signature_path(manifest).read_bytes())
    with pytest.raises(ArtifactSignatureError, match=words) as refused:
        load(own_models, trusted)
    assert f"{ATTENTION_MODEL}/1/manifest.json" in str(refused.value)


def test_the_signature_holds_every_other_file_too(own_models: Path, trusted: Path) -> None:
    sign_everything(own_models, KEY)
    card = own_models / PLAIN_MODEL / "2" / "MODEL_CARD.md"
    card.write_text(card.read_text() + "and better than any dermatologist\n")
    with pytest.raises(ArtifactDigestError, match=r"MODEL_CARD\.md"):
        load(own_models, trusted)


def elliptic_curve() -> bytes:
    public = generate_private_key(SECP256R1()).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no public key"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here", "holds no public key"),
        (private_pem(KEY), "holds a private key"),
        (public_pem(KEY) + private_pem(OTHER_KEY), "holds a private key"),
        (elliptic_curve(), "expected Ed25519 keys alone"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (public_pem(KEY) * (MAX_KEYS_BYTES // 100), "larger than"),
    ],
)
def test_a_file_of_anything_but_public_keys_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(content)
    with pytest.raises(ArtifactSignatureError, match=words) as refused:
        read_public_keys(path)
    assert "MC4CAQAwBQYDK2VwBCIE" not in str(refused.value)  # how a private key begins


def test_a_missing_file_of_keys_refuses_everything(own_models: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactSignatureError, match="cannot be read"):
        load(own_models, tmp_path / "missing.pem")


def test_openssl_makes_the_keys_and_the_signatures(own_models: Path, tmp_path: Path) -> None:
    openssl = require_program("openssl")
    key, trusted = tmp_path / "key.pem", tmp_path / "keys.pem"

    def run(*arguments: object) -> None:
        command = [openssl, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    run("genpkey", "-algorithm", "ed25519", "-out", key)
    run("pkey", "-in", key, "-pubout", "-out", trusted)
    for manifest in own_models.glob("*/*/manifest.json"):
        files = ("-in", manifest, "-out", signature_path(manifest))
        run("pkeyutl", "-sign", "-rawin", "-inkey", key, *files)
    assert len(load(own_models, trusted).models()) == 3
