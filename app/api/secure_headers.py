"""What browsers are told about every answer."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Final = {
    # Answers are about a patient's picture: no cache keeps them, no page embeds or reads them.
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
TLS_HEADERS: Final = {"strict-transport-security": "max-age=63072000"}


class SecureHeaders:
    """Tell browsers to do nothing with an answer but show it to who asked (OWASP, REST Security).

    An answer that has one of these headers itself keeps it: a page needs its own policy.
    """

    def __init__(self, app: ASGIApp, *, encrypted: bool) -> None:
        """Wrap an application.

        Args:
            app: Its answers get the headers.
            encrypted: Whether the service has TLS, which browsers are then to insist on.
        """
        self._app = app
        self._headers = SECURITY_HEADERS | (TLS_HEADERS if encrypted else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

        async def send_securely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_securely)
