"""OAuth 2.0 access tokens that are JWTs: signature, issuer, audience, time and scopes (ADR-0022).

PyJWT verifies; what is here chooses the keys, pins what is accepted, and reads the scopes.
"""

import json
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from app.access.fetched_keys import FetchedKeys, choose_key
from app.access.scopes import Caller, granted
from app.access.watched_file import WatchedFile
from app.domain.errors import AccessConfigurationError, NotAuthenticatedError

ALGORITHMS: Final = ("RS256", "RS384", "PS256", "PS384", "ES256", "ES384")
"""Accepted whatever a token says of itself: public keys alone, those of SMART App Launch (RS384,
ES384) among them. With a shared secret, whoever can check a token could make one."""
LEEWAY_SECONDS: Final = 30
"""How far the clocks of both servers may be apart."""
MAX_TOKEN_LENGTH: Final = 8192

_CLIENT: Final = re.compile(r"[\x21-\x7e]{1,128}")


class TokenVerifier:
    """Tells callers by their tokens."""

    def __init__(self, issuer: str, audience: str, jwks: str) -> None:
        """Accept one issuer's tokens; reads a file of keys, and fetches nothing yet.

        Args:
            issuer: What `iss` must be.
            audience: What must be among `aud`.
            jwks: The issuer's keys as a JSON Web Key Set: an https URL (http for this machine
                alone: whoever could change the answer could make tokens), or the path of a file.

        Raises:
            AccessConfigurationError: The file is no JSON Web Key Set, or the URL is of plain http.
        """
        self._issuer, self._audience = issuer, audience
        self._file: WatchedFile[jwt.PyJWKSet] | None = None
        self._fetched: FetchedKeys | None = None
        url = urlsplit(jwks)
        if url.scheme == "http" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise AccessConfigurationError("OAUTH_JWKS: expected https, or a file.")
        if url.scheme in {"http", "https"}:
            self._fetched = FetchedKeys(jwks)
        else:
            self._file = WatchedFile(Path(jwks), _parse_jwks)

    async def find_caller(self, token: str) -> Caller:
        """Who was given a token.

        Raises:
            NotAuthenticatedError: It is not valid here; the message says which check failed.
            IdentityProviderUnavailableError: The issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise NotAuthenticatedError(
                f"The token is longer than {MAX_TOKEN_LENGTH} characters.", invalid=True
            )
        try:
            key = await self._key(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise NotAuthenticatedError(_explain(error), invalid=True) from error
        return Caller(f"oauth:{_client(claims)}", granted(_scopes(claims)))

    async def _key(self, token: str) -> jwt.PyJWK:
        header = jwt.get_unverified_header(token)
        identifier = header.get("kid")
        if not isinstance(identifier, str):
            raise jwt.InvalidKeyError
        if self._fetched is not None:
            return _for_algorithm(await self._fetched.find(identifier), header.get("alg"))
        key = choose_key(await self._file.current() if self._file else None, identifier)
        if key is None:
            raise jwt.InvalidKeyError
        return _for_algorithm(key, header.get("alg"))


def _for_algorithm(key: jwt.PyJWK, named: object) -> jwt.PyJWK:
    """A key that names no algorithm (RFC 7517, 4.4) is for any of its kind; PyJWT takes RS256."""
    own = key._jwk_data  # noqa: SLF001  nothing else tells whether it names one
    if own.get("alg") or not (isinstance(named, str) and named in ALGORITHMS):
        return key
    return jwt.PyJWK(own, algorithm=named)


def _parse_jwks(content: bytes) -> jwt.PyJWKSet:
    try:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object with a list `keys`")
        return jwt.PyJWKSet.from_dict(found)
    except jwt.PyJWTError as error:
        raise ValueError(f"no JSON Web Key Set: {error}") from error


def _explain(error: jwt.PyJWTError) -> str:
    """Which check failed; what PyJWT says may quote the token."""
    for kind, sentence in (
        (jwt.ExpiredSignatureError, "The token has expired."),
        (jwt.ImmatureSignatureError, "The token is not valid yet."),
        (jwt.InvalidAudienceError, "The token is for another audience."),
        (jwt.InvalidIssuerError, "The token is of another issuer."),
        (jwt.InvalidAlgorithmError, "The token's algorithm is not accepted."),
        (jwt.MissingRequiredClaimError, "The token lacks one of exp, iss, aud."),
        (jwt.InvalidSignatureError, "The token's signature is wrong."),
        ((jwt.PyJWKClientError, jwt.InvalidKeyError), "The token names a key that is not known."),
    ):
        if isinstance(error, kind):
            return sentence
    return "This is no token that could be read."


def _client(claims: dict[str, Any]) -> str:
    """The system that holds the token rather than its user, who may be a patient."""
    for claim in ("client_id", "azp", "sub"):
        value = claims.get(claim)
        if isinstance(value, str) and _CLIENT.fullmatch(value):
            return value
    raise NotAuthenticatedError(
        "The token lacks client_id, azp and sub, or they are no printable text.", invalid=True
    )


def _scopes(claims: dict[str, Any]) -> list[str]:
    """RFC 8693's `scope`, a string with spaces, or other servers' `scp`, which may be a list."""
    value = claims.get("scope", claims.get("scp", ""))
    if isinstance(value, str):
        return value.split(" ")
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
