"""The keys of an identity provider behind a URL, fetched beside the event loop (ADR-0022)."""

import asyncio
import logging
from math import inf
from time import monotonic
from typing import Final

import anyio
import jwt
from anyio import to_thread

from app.domain.errors import IdentityProviderUnavailableError

FETCH_SECONDS: Final = 5.0
KEYS_LIFESPAN_SECONDS: Final = 300.0
"""How long keys that were fetched are used; one that is withdrawn is accepted for so long."""
UNKNOWN_KEY_COOLDOWN_SECONDS: Final = 10.0
"""Between two looks for a key that is not known: tokens that name keys at random cause no more."""
RETRY_SECONDS: Final = 1.0
"""Between two fetches where there are no keys to use."""

logger = logging.getLogger(__name__)


class FetchedKeys:
    """The newest keys that could be had.

    A key that is known is found without waiting: keys are fetched anew beside it, in the second
    half of their life. There is one fetch at a time, in one thread, however many wait for it or
    leave: a provider that hangs costs no more.
    """

    def __init__(self, url: str) -> None:
        """Fetch nothing yet.

        Args:
            url: Of a JSON Web Key Set.
        """
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: jwt.PyJWKSet | None = None
        self._fetched_at = self._tried_at = -inf
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._threads = anyio.CapacityLimiter(1)

    async def find(self, identifier: str) -> jwt.PyJWK:
        """A key.

        Args:
            identifier: Its `kid`.

        Raises:
            jwt.InvalidKeyError: The provider has none of that identifier.
            IdentityProviderUnavailableError: Whether it has cannot be told at present.
        """
        if (key := self._known(identifier)) is not None:
            if self._age() > KEYS_LIFESPAN_SECONDS / 2:
                self._begin_to_fetch()
            return key
        self._begin_to_fetch()
        if self._fetching is not None and not self._fetching.done():
            await asyncio.wait([self._fetching], timeout=FETCH_SECONDS)
        if (key := self._known(identifier)) is not None:
            return key
        if self._are_fresh() and not self._has_failed and not self._is_fetching():
            raise jwt.InvalidKeyError
        raise IdentityProviderUnavailableError(
            "The keys that tokens are checked with cannot be had at present. Repeat the request "
            "later, or use an API key."
        )

    def _begin_to_fetch(self) -> None:
        """Unless that is being done, or was tried just now."""
        pause = UNKNOWN_KEY_COOLDOWN_SECONDS if self._are_fresh() else RETRY_SECONDS
        if not self._is_fetching() and monotonic() - self._tried_at >= pause:
            self._tried_at = monotonic()
            self._fetching = asyncio.create_task(self._fetch(), name="fetch keys")

    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _known(self, identifier: str) -> jwt.PyJWK | None:
        return choose_key(self._keys, identifier) if self._are_fresh() else None

    def _are_fresh(self) -> bool:
        return self._age() < KEYS_LIFESPAN_SECONDS

    def _age(self) -> float:
        return monotonic() - self._fetched_at

    async def _fetch(self) -> None:
        try:
            keys = await to_thread.run_sync(self._client.get_jwk_set, limiter=self._threads)
        except (ValueError, OSError, RuntimeError, jwt.PyJWTError) as error:  # no thread, too
            self._has_failed = True
            logger.error("keys not fetched", extra={"reason": str(error)})  # noqa: TRY400
        else:
            self._has_failed = False
            self._keys, self._fetched_at = keys, monotonic()


def choose_key(keys: jwt.PyJWKSet | None, identifier: str) -> jwt.PyJWK | None:
    """The key for signatures of an identifier; None where there is none."""
    for key in keys.keys if keys else ():
        if key.key_id == identifier and key.public_key_use in {None, "sig"}:
            return key
    return None
