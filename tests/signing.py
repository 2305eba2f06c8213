"""Keys that tests make, and signatures by them."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.inference.signatures import signature_path


def public_pem(*keys: Ed25519PrivateKey) -> bytes:
    """Their public halves, as a service's file has them."""
    spki = PublicFormat.SubjectPublicKeyInfo
    return b"\n".join(key.public_key().public_bytes(Encoding.PEM, spki) for key in keys)


def private_pem(key: Ed25519PrivateKey, passphrase: str = "") -> bytes:
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def sign_everything(models: Path, key: Ed25519PrivateKey) -> None:
    """Sign all artifacts of a folder, and its ensemble where there is one."""
    for signed in [*models.glob("*/*/manifest.json"), *models.glob("ensemble.json")]:
        signature_path(signed).write_bytes(key.sign(signed.read_bytes()))
