"""Open the way to the FHIR server that the settings name; its packages are loaded here alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.interop.fhir_server import FhirServer


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """How tokens are got: the arguments of `smart_backend.TokenSource`."""

    token_url: str
    client_id: str
    key_file: Path
    key_id: str
    scope: str


def open_fhir_server(
    base_url: str, access: TokenAccess | None, timeout_seconds: float
) -> "FhirServer":
    """Make a client; nothing is asked yet.

    Args:
        base_url: Of the server.
        access: None for a server that wants no token.
        timeout_seconds: To connect, and between two pieces of an answer.

    Raises:
        ImportError: The extra `interop` is not installed.
        ValueError: The key is of another kind than the standard has.
        OSError: The key cannot be read.
    """
    import httpx2

    from app.interop.fhir_server import FhirServer
    from app.interop.smart_backend import TokenSource

    client = httpx2.AsyncClient(timeout=timeout_seconds, follow_redirects=False)
    tokens = None
    if access is not None:
        tokens = TokenSource(
            client, access.token_url, access.client_id, access.key_file, access.key_id, access.scope
        )
    return FhirServer(client, base_url, tokens)
