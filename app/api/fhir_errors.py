"""Problems as FHIR OperationOutcomes, wherever in the service they arise."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import PROBLEM_MEDIA_TYPE
from app.api.fhir_answers import wants_fhir
from app.interop.fhir_codes import FHIR_MEDIA_TYPE
from app.interop.fhir_outcome import make_outcome


class SpeakFhir:
    """Answer who asks for FHIR with an OperationOutcome of the same status, in a problem's place.

    It wraps everything else, for problems come from the middleware too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not wants_fhir(Request(scope)):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translated_send(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                if body:
                    await _outcome(start, body)(scope, receive, send)
                else:  # nobody is left to read it
                    await send(start)
                    await send(message)

        await self._app(scope, receive, translated_send)


def _is_problem(start: Message) -> bool:
    return (b"content-type", PROBLEM_MEDIA_TYPE.encode()) in start["headers"]


def _outcome(start: Message, body: bytes) -> Response:
    response = Response(
        json.dumps(make_outcome(json.loads(body))), start["status"], media_type=FHIR_MEDIA_TYPE
    )
    replaced = {b"content-type", b"content-length"}
    response.raw_headers += [(k, v) for k, v in start["headers"] if k not in replaced]
    return response
