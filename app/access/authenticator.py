"""Who sent a request: the one place that is asked, whatever the credential is (ADR-0022)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.access.keys import PREFIX, Keys, find_caller, parse_keys
from app.access.scopes import Caller, Scope
from app.access.tokens import TokenVerifier
from app.access.watched_file import WatchedFile
from app.domain.errors import NotAuthenticatedError

OPEN_SCOPES: Final = frozenset(Scope) - {Scope.ADMIN}
"""What anybody may do where nobody is told apart."""

_EXPECTED: Final = "Send an API key or an access token as `Authorization: Bearer CREDENTIAL`."


class Authenticator:
    """Tells callers apart, by API key, by token, or not at all.

    Attributes:
        is_open: Whether everybody may do everything but administer.
    """

    def __init__(self, keys_file: Path | None, tokens: TokenVerifier | None) -> None:
        """Take credentials of one or two kinds; without any, everybody is let in.

        Args:
            keys_file: Of API keys; read at once, and again when it changes.
            tokens: Verifies access tokens.

        Raises:
            AccessConfigurationError: The file is not one of keys.
        """
        self._keys: WatchedFile[Keys] | None = None
        if keys_file is not None:
            self._keys = WatchedFile(keys_file, parse_keys)
        self._tokens = tokens
        self.is_open = keys_file is None and tokens is None

    async def identify(self, authorization: str | None, address: str) -> Caller:
        """Who sent a request.

        Args:
            authorization: The header of that name.
            address: Where the request came from.

        Raises:
            NotAuthenticatedError: Nobody who is known.
            IdentityProviderUnavailableError: A token cannot be checked at present.
        """
        if self.is_open:
            return Caller(address, OPEN_SCOPES, is_known=False)
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise NotAuthenticatedError(_EXPECTED)
        credential = credential.strip()
        if credential.startswith(PREFIX):
            keys = await self._keys.current() if self._keys else None
            return find_caller(keys or {}, credential, datetime.now(UTC))
        if self._tokens is None:
            raise NotAuthenticatedError(f"This is no API key. {_EXPECTED}", invalid=True)
        return await self._tokens.find_caller(credential)
