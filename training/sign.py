"""Sign an artifact, or the ensemble, that was checked (ADR-0027); the service can only check."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.domain.ensemble import (
    ENSEMBLE_CARD_NAME,
    ENSEMBLE_NAME,
    EnsembleManifest,
    read_ensemble,
)
from app.domain.errors import ArtifactDigestError
from app.domain.manifest import MANIFEST_NAME, Manifest, file_sha256, read_manifest
from app.inference.signatures import PublicKeys, signature_path
from training.export import verify as verify_artifact


class SigningError(Exception):
    """A key that nothing can be signed with."""


def check(target: Path, keys: PublicKeys | None = None) -> Manifest | EnsembleManifest:
    """Check an artifact or the ensemble: every byte, golden examples, and who signed it.

    Args:
        target: `<name>/<version>/`, or `ensemble.json` beside its members.
        keys: Whose signatures count; None where none is needed.

    Raises:
        ArtifactError: Something is wrong; the message names the file.
    """
    target = target.resolve()
    if keys is not None:
        keys.check(_signed(target))
    return verify_artifact(target) if target.is_dir() else _verify_ensemble(target, keys)


def sign(target: Path, key: Ed25519PrivateKey) -> Path:
    """Check an artifact or the ensemble as `check` does, then write its signature.

    Args:
        target: `<name>/<version>/`, or `ensemble.json` beside its members.
        key: Signs.

    Returns:
        The signature's path; one that was there is replaced.

    Raises:
        ArtifactError: Something is wrong; nothing is written then.
    """
    signed = _signed(target.resolve())
    data = signed.read_bytes() if signed.is_file() else b""
    check(target)
    if signed.read_bytes() != data:
        raise ArtifactDigestError(f"{signed}: was changed while it was checked; sign it again.")
    output = signature_path(signed)
    # Not within the artifact, which holds nothing that its manifest does not list.
    folder = output.parent.parent if target.is_dir() else output.parent
    descriptor, scratch = tempfile.mkstemp(prefix=".sign-", dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.sign(data))
    Path(scratch).chmod(0o644)
    Path(scratch).replace(output)
    return output


def read_private_key(path: Path, ask_passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """Read the key to sign with.

    Args:
        path: PEM, as `openssl genpkey -algorithm ed25519` writes it, encrypted or not.
        ask_passphrase: Called where it is encrypted.

    Raises:
        SigningError: It cannot be read, or is of another kind.
    """
    try:
        data = path.read_bytes()
        try:
            key = load_pem_private_key(data, password=None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(data, password=ask_passphrase().encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{path}: no private key could be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path}: expected an Ed25519 key, received another kind.")
    return key


def _signed(target: Path) -> Path:
    return target / MANIFEST_NAME if target.is_dir() else target


def _verify_ensemble(path: Path, keys: PublicKeys | None) -> EnsembleManifest:
    ensemble = read_ensemble(path)
    card = path.with_name(ENSEMBLE_CARD_NAME)
    if not card.exists() or file_sha256(card) != ensemble.card_sha256:
        raise ArtifactDigestError(f"{card}: is not the card that {ENSEMBLE_NAME} names.")
    for member in ensemble.members:
        folder = path.parent / member.name / str(member.version)
        check(folder, keys)
        if read_manifest(folder)[1] != member.digest:
            raise ArtifactDigestError(
                f"{folder}: is another one than {ENSEMBLE_NAME} was calibrated with."
            )
    return ensemble
