"""Check who signed a manifest; nothing here can sign (ADR-0027)."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.domain.errors import ArtifactSignatureError, is_exhaustion
from app.domain.manifest import SIGNATURE_SUFFIX

SIGNATURE_BYTES: Final = 64
MAX_KEYS_BYTES: Final = 64 * 1024
_MAX_SIGNED_BYTES: Final = 1 << 20
"""As manifests may have."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def signature_path(signed: Path) -> Path:
    """Where the signature of a manifest, or of an ensemble, is."""
    return signed.with_name(signed.name + SIGNATURE_SUFFIX)


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """Whose signatures count.

    Attributes:
        source: Where they were read from.
        keys: At least one.
    """

    source: Path
    keys: tuple[Ed25519PublicKey, ...]

    def check(self, signed: Path) -> str:
        """Check the signature of a manifest, or of an ensemble.

        Args:
            signed: `manifest.json` or `ensemble.json`; its signature is beside it.

        Returns:
            SHA-256 of the bytes that were checked, in hexadecimal.

        Raises:
            ArtifactSignatureError: It is not signed by one of the keys as it is; the message names
                the file.
        """
        beside = signature_path(signed)
        if not beside.is_file():
            raise ArtifactSignatureError(
                f"{beside}: missing; MODEL_PUBLIC_KEYS is set, so only signed models are served. "
                "Sign it once it is accepted: `python -m training sign`."
            )
        data = _read(signed, _MAX_SIGNED_BYTES)
        signature = _read(beside, SIGNATURE_BYTES)
        if len(signature) != SIGNATURE_BYTES:
            raise ArtifactSignatureError(
                f"{beside}: expected {SIGNATURE_BYTES} bytes, received {len(signature)}. It is no "
                "Ed25519 signature; sign again."
            )
        for key in self.keys:
            try:
                key.verify(signature, data)
            except InvalidSignature:
                continue
            return sha256(data).hexdigest()
        raise ArtifactSignatureError(
            f"{beside}: is of none of the {len(self.keys)} keys in {self.source}: {signed.name} "
            "was changed after it was signed, or somebody else signed it. Find out which before "
            "you serve it."
        )


def require_signed(path: Path, digest: str, signed_digest: str | None) -> None:
    """See to it that what was read is what was checked.

    Args:
        path: Of the file.
        digest: SHA-256 of what was read.
        signed_digest: What `PublicKeys.check` gave; None where no signature is needed.

    Raises:
        ArtifactSignatureError: The file was exchanged in between.
    """
    if signed_digest is not None and digest != signed_digest:
        raise ArtifactSignatureError(f"{path}: was changed while it was read. Load it again.")


def read_public_keys(path: Path) -> PublicKeys:
    """Read the keys whose signatures count.

    Args:
        path: PEM, one Ed25519 public key or more; text between them is ignored.

    Raises:
        ArtifactSignatureError: There is none, or something else is among them.
    """
    blocks = list(_PEM.finditer(_read(path, MAX_KEYS_BYTES)))
    if not blocks:
        raise ArtifactSignatureError(
            f"{path}: holds no public key. Expected PEM, as `openssl pkey -pubout` writes it."
        )
    return PublicKeys(path, tuple(_read_key(path, block) for block in blocks))


def _read_key(path: Path, block: re.Match[bytes]) -> Ed25519PublicKey:
    kind = block[1].decode("ascii")
    if "PRIVATE" in kind:
        raise ArtifactSignatureError(
            f"{path}: holds a private key, which must not be where models are served. Remove it, "
            "and take a new one: whoever could read this file can sign."
        )
    try:
        key = load_pem_public_key(block[0])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ArtifactSignatureError(f"{path}: a {kind} in it cannot be read.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ArtifactSignatureError(f"{path}: expected Ed25519 keys alone, received another kind.")
    return key


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise ArtifactSignatureError(f"{path}: cannot be read: {error}.") from error
    if len(data) > max_bytes:
        raise ArtifactSignatureError(f"{path}: larger than {max_bytes:,} bytes.")
    return data
