"""Access tokens by SMART Backend Services: OAuth 2 client credentials with a signed assertion.

https://hl7.org/fhir/smart-app-launch/backend-services.html
"""

import asyncio
import uuid
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.domain.errors import FhirServerError

ASSERTION_SECONDS: Final = 240
"""Life of an assertion; the standard allows 300."""
SPARE_SECONDS: Final = 15.0
"""A token is not used in the last seconds of its life."""
_MAX_TOKEN_LENGTH: Final = 16_384
_MAX_TOKEN_SECONDS: Final = 86_400

SigningKey = EllipticCurvePrivateKey | RSAPrivateKey


def read_signing_key(path: Path) -> tuple[SigningKey, str]:
    """Read a private key.

    Args:
        path: PEM without a password: elliptic curve P-384, or RSA.

    Returns:
        The key, and the algorithm that the standard has for it.

    Raises:
        ValueError: It is of another kind.
        OSError: It cannot be read.
    """
    key = load_pem_private_key(path.read_bytes(), password=None)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
        return key, "ES384"
    if isinstance(key, RSAPrivateKey):
        return key, "RS384"
    raise ValueError(f"{path}: expected a private key of P-384 or RSA, received another kind.")


class TokenSource:
    """Gets tokens, and keeps one as long as it is good."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        token_url: str,
        client_id: str,
        key_file: Path,
        key_id: str,
        scope: str,
    ) -> None:
        """Read the key.

        Args:
            client: Sends requests, with its own limits on time.
            token_url: Of the authorization server.
            client_id: As registered there.
            key_file: For `read_signing_key`.
            key_id: Under which the public key is registered.
            scope: What is asked for.
        """
        self._client, self._token_url, self._client_id = client, token_url, client_id
        self._key, self._algorithm = read_signing_key(key_file)
        self._key_id, self._scope = key_id, scope
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0

    async def get(self) -> str:
        """A token that is good now.

        Raises:
            FhirServerError: The authorization server gives none.
        """
        async with self._lock:  # those who wait take what the first one got
            if monotonic() >= self._good_until:
                self._token, seconds = await self._ask()
                self._good_until = monotonic() + seconds - SPARE_SECONDS
            return self._token

    def forget(self, token: str) -> None:
        """Do not use a token again that was refused."""
        if token == self._token:
            self._good_until = 0.0

    async def _ask(self) -> tuple[str, float]:
        form = {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self._assertion(),
        }
        try:
            response = await self._client.post(self._token_url, data=form)
            given: dict[str, Any] = response.json() if response.status_code == 200 else {}
            token, seconds = str(given["access_token"]), float(given.get("expires_in", 300))
        except httpx2.HTTPError as error:
            raise FhirServerError(
                f"The FHIR server's authorization server failed ({type(error).__name__}). "
                "Repeat the request later."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise FhirServerError(
                f"The FHIR server's authorization server gave no token (status "
                f"{response.status_code}). The operator has to look at client id, key and scope."
            ) from error
        usable = 0 < len(token) <= _MAX_TOKEN_LENGTH and token.isascii() and token.isprintable()
        if not usable or not 0 <= seconds <= _MAX_TOKEN_SECONDS:
            raise FhirServerError("The FHIR server's authorization server gave no usable token.")
        return token, seconds

    def _assertion(self) -> str:
        now = int(time())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._token_url,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": uuid.uuid4().hex,
        }
        return jwt.encode(claims, self._key, self._algorithm, headers={"kid": self._key_id})
