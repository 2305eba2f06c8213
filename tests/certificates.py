"""Certificates for TLS on this machine."""

import subprocess
from pathlib import Path

from tests.programs import require_program


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a self-signed one for 127.0.0.1 and localhost.

    Args:
        folder: For `tls.crt` and `tls.key`, which are replaced.
        name: Its common name.

    Returns:
        Paths of the certificate and of its key, both PEM.
    """
    openssl = require_program("openssl")
    crt, key = folder / "tls.crt", folder / "tls.key"
    request = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={name}"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(crt)]
    subprocess.run([openssl, *request.split(), *names, *files], check=True, capture_output=True)
    return crt, key
